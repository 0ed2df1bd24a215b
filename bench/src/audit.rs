//! Counts requests in the API server's audit log.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Deserialize;

/// A place in the log.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    log: PathBuf,
    offset: u64,
}

/// What was asked since a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Of the account in question, by verb and resource such as `create pods`.
    pub(crate) by_kind: BTreeMap<String, usize>,
    /// Of these, by kind, those that were answered with an error: `create pods 409`.
    pub(crate) refused: BTreeMap<String, usize>,
    /// Requests of anybody that were answered 429.
    pub(crate) too_many: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    stage: String,
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Mark {
    /// The end of the log.
    pub(crate) fn end(log: &Path) -> anyhow::Result<Self> {
        let offset = std::fs::metadata(log).with_context(|| format!("look at {}", log.display()))?.len();
        Ok(Self { log: log.to_owned(), offset })
    }

    /// Requests since then of the account `user` whose user agent contains `agent`.
    pub(crate) fn requests(&self, user: &str, agent: &str) -> anyhow::Result<Requests> {
        let mut file = File::open(&self.log).with_context(|| format!("open {}", self.log.display()))?;
        file.seek(SeekFrom::Start(self.offset)).context("find the place in the audit log")?;
        let mut requests = Requests::default();
        for line in BufReader::new(file).lines() {
            let line = line.context("read the audit log")?;
            // The last line may still be under way.
            if let Ok(entry) = serde_json::from_str(&line) {
                requests.add(entry, user, agent);
            }
        }
        Ok(requests)
    }
}

impl Requests {
    fn add(&mut self, entry: Entry, user: &str, agent: &str) {
        let Entry { stage, verb, user: asked, impersonated_user, user_agent, object_ref, response_status } =
            entry;
        // A watch is logged when it begins and when it ends: the beginning is the request.
        let counts = if verb == "watch" { stage == "ResponseStarted" } else { stage == "ResponseComplete" };
        let code = response_status.map_or(0, |status| status.code);
        if !counts {
            return;
        }
        self.too_many += usize::from(code == 429);
        let asked = impersonated_user.unwrap_or(asked);
        if asked.username != user || !user_agent.contains(agent) {
            return;
        }
        let ObjectRef { resource, subresource } = object_ref.unwrap_or_default();
        let slash = if subresource.is_empty() { "" } else { "/" };
        let kind = format!("{verb} {resource}{slash}{subresource}");
        if code >= 400 {
            *self.refused.entry(format!("{kind} {code}")).or_default() += 1;
        }
        *self.by_kind.entry(kind).or_default() += 1;
    }

    /// All of the account's.
    pub(crate) fn total(&self) -> usize {
        self.by_kind.values().sum()
    }

    /// Those that nodes cost: all but the renewals of the Lease, which time costs.
    pub(crate) fn of_nodes(&self) -> usize {
        self.total() - self.count(|kind| kind.ends_with(" leases"))
    }

    /// Lists among them.
    pub(crate) fn lists(&self) -> usize {
        self.count(|kind| kind.starts_with("list "))
    }

    fn count(&self, which: impl Fn(&str) -> bool) -> usize {
        self.by_kind.iter().filter(|(kind, _)| which(kind)).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::json;

    use super::*;

    fn line(user: &str, verb: &str, stage: &str, resource: [&str; 2], code: u16) -> String {
        json!({
            "stage": stage, "verb": verb, "user": {"username": user}, "userAgent": "operator/1",
            "objectRef": {"resource": resource[0], "subresource": resource[1]}, "responseStatus": {"code": code},
        })
        .to_string()
    }

    #[test]
    fn requests_are_counted_once_each_and_only_those_after_the_mark() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        writeln!(log, "{}", line("me", "create", "ResponseComplete", ["pods", ""], 201)).unwrap();
        let mark = Mark::end(log.path()).unwrap();
        for entry in [
            line("me", "create", "ResponseComplete", ["pods", ""], 201),
            line("me", "create", "ResponseComplete", ["pods", ""], 409),
            line("me", "watch", "ResponseStarted", ["pods", ""], 200),
            line("me", "watch", "ResponseComplete", ["pods", ""], 200),
            line("me", "watch", "ResponseStarted", ["nodes", ""], 200),
            line("me", "list", "ResponseComplete", ["pods", ""], 200),
            line("me", "patch", "ResponseComplete", ["scriptrunners", "status"], 200),
            line("me", "update", "ResponseComplete", ["leases", ""], 200),
            line("other", "create", "ResponseComplete", ["pods", ""], 429),
        ] {
            writeln!(log, "{entry}").unwrap();
        }
        write!(log, "{{\"stage\":").unwrap();
        let requests = mark.requests("me", "operator").unwrap();
        let kinds: Vec<_> = requests.by_kind.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        let expected = [
            ("create pods", 2),
            ("list pods", 1),
            ("patch scriptrunners/status", 1),
            ("update leases", 1),
            ("watch nodes", 1),
            ("watch pods", 1),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(requests.refused, BTreeMap::from([("create pods 409".to_owned(), 1)]));
        assert_eq!((requests.total(), requests.of_nodes()), (7, 6));
        assert_eq!((requests.lists(), requests.too_many), (1, 1));
        assert_eq!(mark.requests("me", "another").unwrap().total(), 0);
    }

    #[test]
    fn who_was_acted_as_is_who_asked() {
        let entry = json!({
            "stage": "ResponseComplete", "verb": "get", "user": {"username": "admin"},
            "impersonatedUser": {"username": "me"}, "objectRef": {"resource": "nodes"},
        });
        let mut requests = Requests::default();
        requests.add(serde_json::from_value(entry).unwrap(), "me", "");
        assert_eq!(requests.by_kind, BTreeMap::from([("get nodes".to_owned(), 1)]));
    }
}
