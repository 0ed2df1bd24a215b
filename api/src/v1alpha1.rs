//! Version v1alpha1 of the API.

pub mod script_runner;
pub mod status;
pub mod targets;

pub use script_runner::*;
pub use status::*;
pub use targets::*;
