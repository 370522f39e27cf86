//! The Wasm runtime: Coracle's `Runtime` port on wasmtime.
//!
//! A container is a core module with `_start` (WASI 0.1), a `wasi:cli/run` component (0.2 or 0.3), or one that is served on the
//! container's ports: `wasi:http/incoming-handler` (0.2) with an instance a request, `wasi:http/handler` (0.3) with instances that are reused. A
//! component that exports both runs `run` once, to its end, and serves if it succeeded: a service's way to check its
//! configuration and to fail at its start.
//!
//! What it must not do: decide anything. Restarts, back-off, pull policy and phases are the agent's. And no guest ever
//! reaches the operating system's network, a file outside of its pod's folder, or a thread that is not a guest thread.
//!
//! - Ends: see `exit.rs`. WASI has no signals: stopping ends a command at once (143), unless it imports `termination` of
//!   `coracle:pod/lifecycle` and ends by itself; a service finishes the requests that it is at and exits with 0. Killing is 137.
//! - Limits: memory by a limiter that ends the guest beyond it (`OOMKilled`); CPU by time slices and a quota; fuel,
//!   where it is asked for, by a second engine that counts instructions: a total ends the guest (`FuelExhausted`), a rate
//!   makes it pause.
//! - Files below the state's folder: `images/` (contents by digest, and an index), `compiled/` (machine code, by digest
//!   and engine; only this crate writes there, because what is read back is run) and `pods/` (volumes).

#![warn(missing_docs)]

mod error;
mod files;
mod options;

mod account;
mod placement;
mod slices;
mod virtual_core;

mod image_store;
mod inspect;
mod offers;
mod program;
mod registry;

mod engine;
mod exchange;
mod exit;
mod flow;
mod guest;
mod network;
mod outgoing;
mod pipe;
mod platform;
mod sockets;
mod stdio;
mod volume;

mod container;
mod pod;
mod probe;
mod reuse;
mod runtime;
mod service;
mod session;
mod shared;
mod terminal;
mod tools;

pub mod simulated;

pub use coracle_node::canonical_image_name;
pub use error::Error;
pub use image_store::{IMAGE_SIZE_MAX, Image, ImageStore};
pub use inspect::{ImageDetails, Inspection, inspect};
pub use options::{BuiltinImages, Placement, WasmOptions};
pub use registry::{Endpoint, HostSettings, Mirror, PushError, Registries, push};
pub use runtime::WasmRuntime;

/// The version of wasmtime that this runtime is built on.
pub const WASMTIME_VERSION: &str = "48.0.8";
