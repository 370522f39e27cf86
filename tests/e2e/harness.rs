//! What the tests share: a cluster in a process of its own, kubectl, and waiting for what has to become true.

mod cluster;
mod http;
mod kubectl;
mod mask;
mod wait;

pub(crate) use cluster::{Cluster, Options, coracle};
pub(crate) use http::Http;
pub(crate) use kubectl::{Ran, is_installed};
pub(crate) use mask::Mask;
pub(crate) use wait::{eventually, eventually_within};
