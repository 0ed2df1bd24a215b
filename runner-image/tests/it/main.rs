//! Runs the real binary on small scripts, each time in folders of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic, its module may too")]

mod children;
mod client;
mod copy;
mod deadline;
mod door;
mod endings;
mod environment;
mod hostile;
mod inline;
mod inputs;
mod install;
mod output;
mod packages;
mod pid_one;
mod pod;
mod repeat;
mod results;
mod sessions;
mod stop;
mod warm;
