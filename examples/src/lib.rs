//! Coracle's examples.
