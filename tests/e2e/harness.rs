//! What the tests share: a cluster in a process of its own, kubectl, and waiting for what has to become true.

mod cluster;
mod docker;
mod guest;
mod hosts;
mod http;
mod kubectl;
mod load;
pub(crate) mod machines;
mod mask;
mod registry;
mod runs;
mod wait;

pub(crate) use cluster::{Cluster, Options, program};
pub(crate) use docker::{Docker, Engine, IMAGE};
pub(crate) use guest::Guest;
pub(crate) use hosts::Hosts;
pub(crate) use http::{Http, Token, http_get};
pub(crate) use kubectl::{Ran, finish, is_installed};
pub(crate) use load::{Answers, Client, Connections, Load, count_answers};
pub(crate) use mask::Mask;
pub(crate) use registry::{PASSWORD, Registry, USER};
pub(crate) use runs::Runs;
pub(crate) use wait::{eventually, eventually_within};
