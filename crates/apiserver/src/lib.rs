//! REST semantics: a request is a machine over a `View` that ends in a response, a transaction, a watch or a tunnel.
//!
//! This crate opens no socket and waits for nothing: what needs the world is returned as plain data in [`Next`],
//! and the driver resumes the machine with what came of it.

pub mod kinds;
mod machine;
mod options;
pub mod strategy;
pub mod validation;

pub use machine::{Callout, LogOptions, Next, RequestMachine, Resume, TunnelSpec};
pub use options::ServerOptions;
