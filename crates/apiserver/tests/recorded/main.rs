//! The API server in one process: a store, a clock and requests, without a driver.
//!
//! `recording` compares every answer with what a real kube-apiserver answered; the other modules test what no recording shows.

mod behaviour;
mod harness;
mod masking;
mod metrics;
mod recording;
mod subresources;
mod tokens;
mod watches;
