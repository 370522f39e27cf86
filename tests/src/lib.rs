//! Coracle's tests.
