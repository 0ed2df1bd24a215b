//! Version v1alpha1 of the API.

pub mod attempts;
pub mod execution;
pub mod script_runner;
pub mod status;
pub mod targets;

pub use attempts::*;
pub use execution::*;
pub use script_runner::*;
pub use status::*;
pub use targets::*;
