//! Coracle's benches.
