//! Every decision of ScriptRunner as a function of its arguments: no client, clock, environment or file. Pure.

pub mod status;
