//! What a control plane asks of its driver.

use coracle_api::Request;
use coracle_raft::{MemberId, Membership, Message, PersistId, ReadId, SnapshotMark, WalBatch};
use coracle_store::{Applied, Refused, View};

use crate::{ActionId, PeerMessage, ProposalId};

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was applied, or refused when it was.
    Applied(Result<Applied, Refused>),
    /// Nobody leads, or the lead was lost before the proposal was applied: nothing was done, and nothing will be. It can be tried
    /// again.
    NotLeader,
    /// Whether it was applied cannot be told: the leader was gone before it said so, or this member was too late.
    Unknown,
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
        message: PeerMessage,
        /// What must be durable first.
        after: Option<PersistId>,
    },
    /// Move the state of this snapshot, which was saved last, to another member: there `message` comes with it in
    /// [`crate::Input::SnapshotReceived`]. Then tell [`crate::Input::SnapshotSent`] here, whatever came of it.
    SendSnapshot {
        /// To whom.
        to: MemberId,
        /// What stands for the snapshot.
        message: Message,
        /// Which one.
        mark: SnapshotMark,
    },
    /// The state is now the one that came with [`crate::Input::SnapshotReceived`]. The batch that names it follows.
    Installed(SnapshotMark),
    /// This read can be answered from the view: it has everything that was acknowledged before the read was asked for.
    Readable(ReadId),
    /// It cannot: no leader was heard of in time, or too many wait. The answer is 504.
    Unreadable(ReadId),
    /// Who leads has changed, as far as this member knows.
    Leader(Option<MemberId>),
    /// Who is in the group has changed.
    Membership(Membership),
    /// This member was removed from the cluster: it can stop.
    Removed,
    /// The cluster uses what this member's program does not know: the member must stop, and be started by a newer program.
    Outdated {
        /// The cluster's feature level.
        cluster: u32,
        /// The program's.
        own: u32,
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
