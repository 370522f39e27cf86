//! Kubernetes light enough to embed: a cluster in your program.
//!
//! ```no_run
//! # async fn example() -> Result<(), coracle::Error> {
//! use std::time::Duration;
//!
//! let cluster = coracle::Cluster::builder().start().await?; // in memory, one node, no socket
//! cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: hello}, data: {who: world}}").await?;
//! cluster.wait_for("namespace/default", "phase=Active", Duration::from_secs(1)).await?;
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Under virtual time the same cluster runs on a test's own runtime, its WebAssembly pods included, and what takes an hour is over
//! as soon as nothing is left to do in it:
//!
//! ```no_run
//! # #[cfg(feature = "wasm")]
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), coracle::Error> {
//!     use std::time::Duration;
//!
//!     use coracle::{Cluster, ClusterClock};
//!
//!     let trap = br#"(module (func (export "_start") unreachable))"#;
//!     let cluster = Cluster::builder().clock(ClusterClock::Virtual).nodes(1).image("trap", trap.as_slice()).start().await?;
//!     cluster.apply("{apiVersion: v1, kind: Pod, metadata: {name: trap}, spec: {containers: [{name: c, image: trap}]}}").await?;
//!     tokio::time::sleep(Duration::from_mins(6)).await; // it was restarted after 0, 10, 20, 40, 80 and 160 seconds
//!     cluster.shutdown().await;
//!     Ok(())
//! }
//! # #[cfg(not(feature = "wasm"))]
//! # fn main() {}
//! ```
//!
//! The crate is the production driver around a pure machine: it has the clock, the sockets, the files and the threads, and
//! decides nothing about Kubernetes. Features: `wasm` (default) runs pods as WebAssembly; `client` gives a `kube::Client`
//! that is wired to the cluster in the process.

mod audit;
mod auth;
mod backup;
mod brain;
mod builder;
mod clock;
mod cluster;
mod data_directory;
mod dialer;
mod dns;
mod error;
#[cfg(target_os = "linux")]
mod host_network;
mod http;
mod identity;
mod images;
mod ingress;
mod join;
mod key_values;
mod limits;
mod logs;
mod member;
mod memory_disk;
mod metrics;
mod node;
mod peers;
mod presence;
mod process;
mod recovery;
#[cfg(feature = "wasm")]
mod registries;
mod reporter;
mod seal;
mod seat;
mod services;
mod settings;
#[cfg(test)]
mod testing;
mod tls;
mod tokens;
mod tunnel;
mod usage;
mod wal;

pub use audit::AuditOptions;
pub use backup::{BackupKey, BackupSummary, inspect_backup, restore_backup};
pub use builder::{ClusterBuilder, ClusterClock, Image};
pub use cluster::{Cluster, ClusterMember, ClusterResult, MemberStatus, object_path};
pub use data_directory::{delete_data, rotate_keys};
pub use error::{Error, ErrorKind};
pub use images::{ImageDetails, ImageDirectory, ImageRecord};
pub use limits::Limits;
pub use recovery::{Recovered, recover};
#[cfg(feature = "wasm")]
pub use registries::{Registries, push_image};
pub use seat::last_address;
pub use tls::CertificateRequest;

/// What members of this version understand of what the others write.
pub use coracle_engine::FEATURE_LEVEL;

/// How containers behave on fake nodes.
pub use coracle_node::fake::Script;

/// The vocabulary of requests and objects, for programs that talk to the cluster without a client library.
pub use coracle_api as api;
