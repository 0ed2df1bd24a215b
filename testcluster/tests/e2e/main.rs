//! Whole-system scenarios: the images, the manifests and the samples on the real nodes of a running local cluster.
//!
//! `./test.sh e2e` brings the cluster up, installs the operator and runs this. By hand: `SCRIPTRUNNER_TEST_CLUSTER`
//! names the cluster (default `test`). Tests share the cluster, each in a namespace of its own; those in `whole_cluster` wait
//! until they have it to themselves.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on ends")]

mod answer;
mod claim;
mod cleanup;
mod deadlines;
mod dependencies;
mod ends;
mod figures;
mod flow;
mod harmless;
mod host;
mod hostile;
mod images;
mod interruptions;
mod journal;
mod ledger;
mod limits;
mod live;
mod node;
mod operator;
mod output;
mod outside;
mod pacing;
mod package_archive;
mod packed;
mod pair;
mod processes;
mod python_index;
mod reruns;
mod results;
mod retries;
mod samples;
mod source;
mod stage;
mod submitted;
mod targets;
mod warm;
mod whole_cluster;
