//! Coracle's sim crate.
