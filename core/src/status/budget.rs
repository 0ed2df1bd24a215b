//! Keeps an object within its byte budget. Pure.
