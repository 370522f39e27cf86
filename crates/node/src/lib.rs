//! The node agent: pod workers, restart back-off, probes, status, volumes' contents.
//!
//! It decides; a [`runtime::Runtime`] carries out. It knows `base` and `api` only, so that an agent in the process and one on
//! another machine are the same code, and Wasm and Docker pods behave alike because they share it.

pub mod runtime;
