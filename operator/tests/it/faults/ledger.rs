//! The truth about executions: a file on each node's disk that the script itself writes to, and syncs, when it begins and
//! when it ends.

use std::{fs, path::PathBuf};

use super::scene::Scene;

/// Run, attempt and serial of an execution.
pub(crate) type Key = (u64, u32, u64);

/// What one node's ledger says.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Executions that began, in order.
    pub(crate) begun: Vec<Key>,
    /// Executions that ended, in order.
    pub(crate) ended: Vec<Key>,
    /// What must never be: an execution beside another, or twice.
    pub(crate) breaches: Vec<String>,
}

/// A script that writes the ledger of object `name`, takes a fifth of a second, and prints its serial and then dots, so that
/// its answer has `width` bytes at least.
pub(crate) fn script(scene: &Scene, name: &str, width: usize) -> String {
    format!(
        "import os, time\n\
        own = os.environ\n\
        path = own['SCRIPTRUNNER_HOST_ROOT'] + '/var/lib/{}'\n\
        ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
        def note(what):\n\
        \x20   key = [own['SCRIPTRUNNER_' + part] for part in ('RUN', 'ATTEMPT', 'SERIAL')]\n\
        \x20   os.write(ledger, (','.join([what] + key) + '\\n').encode())\n\
        \x20   os.fsync(ledger)\n\
        note('begun')\n\
        time.sleep(0.2)\n\
        print(own['SCRIPTRUNNER_SERIAL'].ljust({width}, '.'))\n\
        note('ended')\n",
        file_name(scene, name)
    )
}

fn file_name(scene: &Scene, name: &str) -> String {
    format!("faults-{}-{name}", scene.namespace)
}

fn path(scene: &Scene, node: &str, name: &str) -> PathBuf {
    scene.cluster.node_var(node).unwrap().join("lib").join(file_name(scene, name))
}

/// Reads the ledger of object `name` on a node; empty if nothing began.
pub(crate) fn read(scene: &Scene, node: &str, name: &str) -> Ledger {
    let mut ledger = Ledger::default();
    let text = fs::read_to_string(path(scene, node, name)).unwrap_or_default();
    for line in text.lines() {
        ledger.take_in(line);
    }
    ledger
}

/// Removes the ledgers of object `name` from all nodes.
pub(crate) fn remove(scene: &Scene, name: &str) {
    for node in scene.cluster.node_names() {
        // A node where nothing ran has none.
        let _ = fs::remove_file(path(scene, &node, name));
    }
}

impl Ledger {
    fn take_in(&mut self, line: &str) {
        let Some((what, key)) = parse(line) else {
            self.breaches.push(format!("half a line: {line:?}"));
            return;
        };
        match what {
            "begun" => {
                // An execution that was killed has no end; the next one is of another pod then.
                let before = self.begun.last().filter(|before| self.ended.last() != Some(*before));
                if before.is_some_and(|before| before.1 == key.1 && before.0 == key.0) {
                    self.breaches.push(format!("{key:?} began beside {before:?}"));
                }
                if self.begun.iter().any(|other| (other.0, other.2) == (key.0, key.2)) {
                    self.breaches.push(format!("{key:?} began again"));
                }
                self.begun.push(key);
            }
            _ if self.begun.last() == Some(&key) && self.ended.last() != Some(&key) => self.ended.push(key),
            _ => self.breaches.push(format!("{key:?} ended out of turn")),
        }
    }
}

fn parse(line: &str) -> Option<(&str, Key)> {
    let mut parts = line.split(',');
    let what = parts.next().filter(|what| matches!(*what, "begun" | "ended"))?;
    let key = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((what, key))
}

#[test]
fn a_ledger_tells_what_must_never_be() {
    let breaches = |lines: &[&str]| {
        let mut ledger = Ledger::default();
        for line in lines {
            ledger.take_in(line);
        }
        ledger.breaches
    };
    let good = ["begun,1,1,1", "ended,1,1,1", "begun,1,1,2", "begun,1,2,3", "ended,1,2,3", "begun,2,1,1"];
    assert_eq!(breaches(&good), Vec::<String>::new());
    for (lines, expected) in [
        (["begun,1,1,1", "begun,1,1,2"], "beside"),
        (["begun,1,1,1", "begun,1,2,1"], "again"),
        (["begun,1,1,1", "ended,1,1,2"], "out of turn"),
        (["begun,1,1,1", "begun,1,"], "half a line"),
    ] {
        let found = breaches(&lines);
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
}
