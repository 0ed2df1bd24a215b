//! A namespace per test.
