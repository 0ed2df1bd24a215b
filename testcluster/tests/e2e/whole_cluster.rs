//! What befalls nodes and the operator: tests with the cluster to themselves, last by the name of this module.

mod hung;
mod interruptions;
mod leftovers;
mod nodes;
mod operator_killed;
mod operator_replaced;
