//! Every decision of ScriptRunner as a function of its arguments: no client, clock, environment or file. Pure.

pub mod adopt;
mod halt;
mod in_step;
pub mod names;
pub mod observed;
pub mod plan;
pub mod pod;
mod quantity;
pub mod results;
pub mod status;
pub mod validate;
