//! What befalls nodes and the operator. These tests have the cluster to themselves, and come last by the name of this module.

mod nodes;
mod operator_killed;
mod operator_replaced;
