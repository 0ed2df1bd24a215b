//! The operator's parts against a real API server: the local cluster `test` (`./test.sh it`), or the one that
//! SCRIPTRUNNER_TEST_CLUSTER names. Never a cluster of somebody's kubeconfig.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod alone;
mod ancestor;
mod attacks;
mod audit;
mod built;
mod children;
mod cluster;
mod cost;
mod crd;
mod door;
mod faults;
mod fields;
mod flow;
mod images;
mod namespaces;
mod people;
mod policies;
mod rbac;
mod sources;
mod specs;
mod status;
mod table;
mod turn;
