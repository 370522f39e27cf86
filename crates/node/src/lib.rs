//! The node agent: pod workers, restart back-off, probes, status, volumes' contents.
//!
//! It decides; a [`runtime::Runtime`] carries out. It knows `base` and `api` only, so that an agent in the process and one on
//! another machine are the same code, and Wasm and Docker pods behave alike because they share it.
//!
//! [`NodeAgent`] is a pure machine: [`Input`] in, [`Output`]s out, time as an argument. It reads no clock and never waits.

pub mod runtime;

mod address;
mod admission;
mod agent;
mod checkpoint;
mod config;
mod container;
mod context;
mod credentials;
mod downward;
mod env;
pub mod fake;
mod feature;
mod image_gc;
mod image_name;
mod input;
mod node_status;
mod objects;
mod output;
mod pod_spec;
mod pod_worker;
mod probe;
mod reasons;
mod resolver;
mod restart;
mod security;
mod status;
mod storage;
mod volume;

pub use agent::NodeAgent;
pub use checkpoint::{Checkpoint, ContainerCheckpoint, ObjectCheckpoint, PodCheckpoint};
pub use config::{Capacity, NodeConfig, RuntimeInfo};
pub use credentials::Keyring;
pub use feature::RuntimeFeature;
pub use image_name::canonical_image_name;
pub use input::{Input, RequestId};
pub use output::{EventRecord, EventType, Heartbeat, Output};
pub use pod_worker::tokens::TokenCheckpoint;
pub use restart::Termination;
