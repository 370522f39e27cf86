//! Programs for tests, and bindings to the interfaces that they use beside WASI's core.

#![allow(clippy::all, reason = "the bindings are generated")]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
