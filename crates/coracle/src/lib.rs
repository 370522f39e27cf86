//! Coracle's coracle crate.
