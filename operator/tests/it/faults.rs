//! What happens when things break: the operator as a process of this machine, under its own account, with proxies before the
//! API server and before its door, and real runners on real nodes.
//!
//! The oracle is a ledger on each node's disk that every execution writes to (`ledger.rs`), and a witness that sees every
//! version of the object and of its pods (`witness.rs`): nothing lost, nothing twice, everything bounded, and the status comes
//! to rest. Each test also proves that its fault happened.
//!
//! These tests need the runner's image on the nodes and a cluster without another operator, so they run one at a time and
//! apart from the others: `cargo test -p scriptrunner-operator --test it faults::`, after `./test.sh it` has brought the
//! cluster up. Those that take long are ignored; `./test.sh faults` runs them.

#![expect(clippy::print_stderr, reason = "what a failed test saw is for people")]

mod absence;
mod answers;
mod certificates;
mod crashes;
mod held;
mod leaders;
mod ledger;
mod links;
mod outage;
mod process;
mod restore;
mod scene;
mod seed;
mod subject;
mod unbound;
mod witness;
