//! What a control plane asks of its driver.

use coracle_api::Request;
use coracle_raft::{MemberId, Message, PersistId, WalBatch};
use coracle_store::{Applied, Refused, View};

use crate::{ActionId, ProposalId};

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was applied, or refused when it was.
    Applied(Result<Applied, Refused>),
    /// This member does not lead, or lost its lead before the proposal was applied; nothing was done in this term.
    NotLeader,
}

/// An output of [`crate::ControlPlane::step`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Write this batch, atomically, and tell [`crate::Input::Persisted`].
    Persist(PersistId, WalBatch),
    /// Send this to another member, once everything up to `after` is durable.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
        /// What must be durable first.
        after: Option<PersistId>,
    },
    /// A proposal's outcome; the view has it already.
    Settled(ProposalId, Settled),
    /// Take this request through the API server, with `term` in every transaction that comes of it, and tell
    /// [`crate::Input::Answered`].
    Prepare {
        /// To be given back with the answer.
        id: ActionId,
        /// The term of the lead that wants it: in any other its transactions are refused.
        term: u64,
        /// The request.
        request: Request,
    },
    /// Save the state at this index: encode the view elsewhere, make it durable, and tell [`crate::Input::SnapshotSaved`].
    SaveSnapshot {
        /// The index of the last entry in it.
        index: u64,
        /// Its term.
        term: u64,
        /// The state.
        view: View,
    },
}
