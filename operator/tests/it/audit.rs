//! What the deployed operator asked of the API server since the cluster was made, by its audit log, against the list of its rights.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
};

use scriptrunner_operator::{
    manifests::{NAMESPACE, operator_user},
    rbac::{CLUSTER, OWN_NAMESPACE, Rule},
};
use serde_json::Value;

use crate::cluster::cluster;

/// Rights that a cluster without faults may never see in use: whether they are for certain names only, and the reason that keeps
/// each on the list.
const RARE: [(&str, bool, &str); 4] = [
    ("get pods", false, "a pod that vanishes from the watch, or whose name is taken"),
    ("update secrets", true, "a certificate that is about to end, or a Secret that cannot be read"),
    ("patch events", false, "an Event that repeats within minutes"),
    (
        "get configmaps",
        false,
        "inputs that an operator made just before it died, and those of a run that went on while it was away",
    ),
];

/// One request, as the audit log tells it.
struct Request {
    verb: String,
    group: String,
    resource: String,
    namespace: String,
    name: String,
    /// The answer if it was a refusal for want of a right.
    forbidden: Option<String>,
}

impl Request {
    /// None if it asks for no object: health, versions.
    fn read(event: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = event["objectRef"].as_object()?;
        let of = |key: &str| object.get(key).map(text).unwrap_or_default();
        let subresource = object.get("subresource").map(|it| format!("/{}", text(it))).unwrap_or_default();
        let answer = text(&event["responseStatus"]["message"]);
        // What a policy or a namespace that ends refuses is no lack of a right.
        let is_lack = event["responseStatus"]["code"] == 403 && answer.contains(" cannot ");
        Some(Self {
            verb: text(&event["verb"]),
            group: of("apiGroup"),
            resource: of("resource") + &subresource,
            namespace: of("namespace"),
            name: of("name"),
            forbidden: is_lack.then_some(answer),
        })
    }

    fn is_by(&self, rule: &Rule) -> bool {
        rule.group == self.group
            && rule.resource == self.resource
            && rule.verbs.contains(&self.verb.as_str())
            && (rule.names.is_empty() || rule.names.contains(&self.name.as_str()))
    }
}

/// `verb resource` of each right, with its rule.
fn rights(rules: &'static [Rule]) -> impl Iterator<Item = (String, &'static Rule)> {
    rules
        .iter()
        .flat_map(|rule| rule.verbs.iter().map(move |verb| (format!("{verb} {}", rule.resource), rule)))
}

#[test]
#[ignore = "needs an operator that has worked in the cluster: ./test.sh e2e runs it last"]
fn whole_run() {
    let account = format!("\"username\":\"{}\"", operator_user());
    let log = BufReader::new(File::open(cluster().audit_log()).unwrap());
    let (mut used, mut unlisted, mut forbidden) =
        (BTreeSet::new(), BTreeMap::<String, u32>::new(), BTreeSet::new());
    for line in log.lines().map(Result::unwrap).filter(|line| line.contains(&account)) {
        let event: Value = serde_json::from_str(&line).unwrap();
        // Tests that impersonate the operator are somebody else.
        if event["user"]["username"] != operator_user() {
            continue;
        }
        let Some(request) = Request::read(&event) else {
            *unlisted.entry(format!("{} {}", event["verb"], event["requestURI"])).or_default() += 1;
            continue;
        };
        let what = format!("{} {}", request.verb, request.resource);
        if let Some(answer) = &request.forbidden {
            forbidden.insert(format!("{what}: {answer}"));
            continue;
        }
        let own = OWN_NAMESPACE.iter().filter(|_| request.namespace == NAMESPACE);
        let rule = own.chain(CLUSTER).find(|rule| request.is_by(rule));
        match rule {
            Some(rule) => drop(used.insert((request.verb.clone(), rule.group, rule.resource, rule.names))),
            None => {
                *unlisted.entry(format!("{what} {}/{}", request.namespace, request.name)).or_default() += 1;
            }
        }
    }
    assert_eq!(forbidden, BTreeSet::new());
    assert_eq!(unlisted, BTreeMap::new(), "asked for, and not on the list");
    let unused: Vec<_> = rights(CLUSTER)
        .chain(rights(OWN_NAMESPACE))
        .filter(|(right, rule)| {
            let verb = right.split(' ').next().unwrap_or_default().to_owned();
            !used.contains(&(verb, rule.group, rule.resource, rule.names))
        })
        .filter(|(right, rule)| {
            RARE.iter()
                .all(|(rare, by_name, _)| (right.as_str(), !rule.names.is_empty()) != (*rare, *by_name))
        })
        .map(|(right, _)| right)
        .collect();
    assert_eq!(unused, Vec::<String>::new(), "on the list, and never asked for");
}
