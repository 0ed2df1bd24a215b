//! The status of a ScriptRunner: how it is put together, bounded and written. Pure.

pub mod budget;
pub mod fold;
pub mod groups;
pub mod merge;
pub mod patch;
