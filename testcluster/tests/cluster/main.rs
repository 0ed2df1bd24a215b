//! Real clusters on this machine, made and unmade. Needs root; without it every test fails and says so.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on ends")]

mod isolation;
mod lifecycle;
mod machine;
mod nodes;
mod owned;
mod refusals;
