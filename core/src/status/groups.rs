//! Groups nodes by their newest answer. Pure.
