//! Makes the JSON patch of a status. Pure.
