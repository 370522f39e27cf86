//! What a control plane is told.

use coracle_api::Response;
use coracle_raft::{MemberId, Message, PersistId};
use coracle_store::Transaction;

use crate::ActionId;

/// Which proposal an outcome belongs to; chosen by the driver, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// An input of [`crate::ControlPlane::step`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// Nothing but that time has passed.
    Tick,
    /// A message of another member.
    Peer(MemberId, Message),
    /// Everything up to this batch is durable.
    Persisted(PersistId),
    /// A transaction that a request machine prepared.
    Submit(ProposalId, Transaction),
    /// The answer to a request that [`crate::Output::Prepare`] asked for.
    Answered(ActionId, Response),
    /// A node's agent is alive.
    Heartbeat(String),
    /// A snapshot of the state at this index is durable.
    SnapshotSaved {
        /// The index of the last entry in it.
        index: u64,
        /// Its term.
        term: u64,
    },
}
