//! Pod placement: filter, score and decide, purely.
//!
//! A [`Scheduler`] is told of changes, keeps what nodes have left, and returns [`Decision`]s; it reads no clock and writes nothing.
//! Whoever carries a decision out tells it what came of that. All it knows may be lost: it is built again from a view.

mod affinity;
mod cluster_view;
mod decision;
mod filter;
mod pod_info;
mod preempt;
mod queue;
mod reasons;
mod resources;
mod scheduler;
mod score;
mod terms;

pub use decision::{Decision, Victim};
pub use scheduler::Scheduler;
