//! Coracle's cli crate.
