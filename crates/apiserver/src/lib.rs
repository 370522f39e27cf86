//! REST semantics: a request is a machine over a `View` that ends in a response, a transaction, a watch or a tunnel.
//!
//! This crate opens no socket and waits for nothing: what needs the world is returned as plain data in [`Next`],
//! and the driver resumes the machine with what came of it.
//!
//! A driver makes a [`RequestMachine`] for each request and calls [`RequestMachine::advance`] until it answers, watches or tunnels:
//! a proposed transaction is settled by the store, and the machine goes on from a view that has it. A [`Watcher`] is polled with
//! the current view whenever [`coracle_store::View::last_change`] of its resource has moved, or the time it named has come.

mod answer;
pub mod audit;
mod authorize;
mod callout;
mod context;
mod decode;
mod discovery;
mod error;
mod health;
mod kind_rules;
pub mod kinds;
mod machine;
mod managed_fields;
mod metrics;
mod node_lease;
mod openapi;
mod openid;
mod options;
mod request;
mod review;
mod route;
pub mod service_account;
pub mod strategy;
mod subresource;
pub mod validation;
mod verb;
mod watcher;

/// Kubernetes' roles: who decides by them, and what rules hold.
pub mod rbac {
    pub use crate::authorize::{Authorizer, PolicyRule, check_path, node_rules, uncovered};
}

pub use answer::Listing;
pub use callout::Callout;
pub use machine::{LogOptions, Next, Proposed, RequestMachine, Resume, SessionStreams, TunnelSpec};
pub use metrics::{ContainerRates, NodeUsage, Rates};
pub use node_lease::Heartbeats;
pub use openapi::OpenApi;
pub use options::ServerOptions;
pub use watcher::{WatchPoll, Watcher};
