//! The `Runtime` port on Docker Engine: pods as containers.
//!
//! It carries out what `coracle-node` decides and decides nothing itself: when something starts again, how long it waits and what counts as
//! healthy is the same for every runtime. It talks to the Engine through its socket and starts no program.
//!
//! A pod is a sandbox container that holds its namespaces and its address on the node's bridge, and containers that join it. Everything is
//! found by its labels (`coracle.dev/...`): the containers of a runtime that was killed run on and are taken over by the next, and nothing
//! without those labels is touched. What a killed process has left that nobody can take over, because it kept nothing, the next one removes.
//! Where there is no Engine, the runtime says so and looks for it again.

mod create;
mod datagrams;
mod engine;
mod exec;
mod images;
mod labels;
mod logs;
mod memory;
mod network;
mod options;
mod owner;
mod pod;
mod runtime;
mod sandbox_image;
mod session;
mod shared;
mod stats;
mod sweep;
mod volume;
mod watch;

pub use images::DockerImage;
pub use network::reserve;
pub use options::{DEFAULT_SOCKET, DockerOptions};
pub use runtime::DockerRuntime;
