//! Version v1alpha1 of the API.

pub mod attempts;
pub mod dependencies;
pub mod execution;
pub mod pod_template;
pub mod script_runner;
pub mod source;
pub mod status;
pub mod targets;

pub use attempts::*;
pub use dependencies::*;
pub use execution::*;
pub use pod_template::*;
pub use script_runner::*;
pub use source::*;
pub use status::*;
pub use targets::*;
