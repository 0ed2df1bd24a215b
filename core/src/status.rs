//! The status of a ScriptRunner: how it is put together, bounded and written. Pure.

pub mod budget;
pub mod consensus;
pub mod events;
pub mod fold;
pub mod groups;
pub mod merge;
pub mod patch;
pub mod size;
pub mod urgency;
pub mod verdict;
