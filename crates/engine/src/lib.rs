//! Coracle's engine crate.
