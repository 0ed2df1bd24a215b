//! A real Kubernetes cluster on one Linux machine, from package registries only: see the README of this crate.
//!
//! Tests find a running cluster with [`Cluster::existing`], get a namespace of their own with
//! [`namespace::in_namespace`] and wait with [`wait::until`].

pub mod api;
pub mod binaries;
pub mod bindings;
pub mod component;
pub mod folder;
pub mod namespace;
pub mod pki;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod sandbox;
pub mod slot;
pub mod state;
pub mod status;
pub mod tool;
pub mod up;
pub mod wait;

mod cgroup;
mod cluster;
mod control_plane;
mod digest;
mod down;
mod error;
mod images;
mod machine;
mod network;
mod node;
mod revive;

pub use cluster::Cluster;
pub use down::down;
pub use error::{Error, Result};
pub use node::Condition;

#[cfg(not(target_os = "linux"))]
compile_error!(
    "scriptrunner-testcluster makes nodes of Linux namespaces: use a Linux machine, or any other cluster"
);
