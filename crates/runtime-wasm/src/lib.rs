//! Coracle's runtime-wasm crate.
