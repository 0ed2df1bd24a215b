//! Folds node names. Pure.
