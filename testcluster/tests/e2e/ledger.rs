//! The truth about executions, whatever Kubernetes says of them: a file on each node's own disk that the script itself writes to.
//! There it also finds the sign to end, which a test can give while nobody reaches the node.

use std::{convert::Infallible, fs, path::PathBuf};

use scriptrunner_testcluster::wait;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage};

/// Run, attempt and serial of an execution.
pub(crate) type Key = (u64, u32, u64);

/// The ledgers of one object, removed when this is dropped. Their namespace admits privileged runs.
pub(crate) struct Ledger {
    name: String,
    /// By node.
    folders: Vec<(String, PathBuf)>,
}

impl Ledger {
    /// The ledgers of the object that is called so.
    pub(crate) fn of(stage: &Stage, object: &str) -> Self {
        let folder = |node: String| {
            let folder = stage.cluster.node_var(&node).unwrap().join("lib");
            (node, folder)
        };
        let folders = stage.cluster.node_names().into_iter().map(folder).collect();
        Self { name: format!("e2e-{}-{object}", stage.namespace), folders }
    }

    /// A spec whose bash script writes down each execution as it begins and then does as `lines` say; `fields` say where it
    /// runs, and more. The lines find the ledger's path in `$ledger`.
    pub(crate) fn spec(&self, lines: &str, fields: &Value) -> Value {
        let mut spec = json!({"interpreter": ["bash"], "mode": "PrivilegedWithHostFS", "parallelism": "100%",
            "executionDeadlineSeconds": 600, "terminationGracePeriodSeconds": 1, "script": self.script(lines)});
        let further = fields.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(further);
        spec
    }

    fn script(&self, lines: &str) -> String {
        format!(
            "ledger=$SCRIPTRUNNER_HOST_ROOT/var/lib/{}\n\
            echo \"$SCRIPTRUNNER_RUN,$SCRIPTRUNNER_ATTEMPT,$SCRIPTRUNNER_SERIAL\" >> \"$ledger\"\n{lines}",
            self.name
        )
    }

    /// Lines of a script that wait for the sign.
    pub(crate) const AWAIT_SIGN: &str = "until [ -e \"$ledger.sign\" ]; do sleep 0.1; done\n";

    /// Gives the script on a node the sign that it waits for.
    pub(crate) fn give_sign(&self, node: &str) {
        fs::write(self.file(node, ".sign"), "").unwrap();
    }

    /// The executions that began on a node, in order.
    pub(crate) fn executions(&self, node: &str) -> Vec<Key> {
        // A node where nothing ran has none.
        let text = fs::read_to_string(self.file(node, "")).unwrap_or_default();
        text.lines().map(|line| key(line).unwrap_or_else(|| panic!("{node}: {line:?}"))).collect()
    }

    /// Waits until so many executions have begun on a node.
    pub(crate) async fn until(&self, node: &str, count: usize) {
        wait::until(&format!("{count} executions in the ledger of {node:?}"), PATIENCE, async |seen| {
            let executions = self.executions(node);
            seen.note(format!("{executions:?}"));
            Ok::<_, Infallible>((executions.len() == count).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until the script on a node, or another one, has left a file with this ending beside the ledger.
    pub(crate) async fn until_left(&self, node: &str, ending: &str) {
        let file = self.file(node, ending);
        wait::until(&format!("{} to be there", file.display()), PATIENCE, async |_| {
            Ok::<_, Infallible>(file.exists().then_some(()))
        })
        .await
        .unwrap();
    }

    fn file(&self, node: &str, ending: &str) -> PathBuf {
        let (_, folder) = self.folders.iter().find(|(known, _)| known == node).unwrap();
        folder.join(format!("{}{ending}", self.name))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        for (_, folder) in &self.folders {
            let files = fs::read_dir(folder).into_iter().flatten().flatten();
            let is_ours = |file: &fs::DirEntry| {
                let name = file.file_name();
                name.to_str()
                    .and_then(|name| name.strip_prefix(&self.name))
                    .is_some_and(|ending| ending.is_empty() || ending.starts_with('.'))
            };
            for file in files.filter(is_ours) {
                // Only tidiness: names are the test's own.
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

fn key(line: &str) -> Option<Key> {
    let mut parts = line.split(',');
    let key = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(key)
}
