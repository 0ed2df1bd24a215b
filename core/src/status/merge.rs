//! Merges histories. Pure.
