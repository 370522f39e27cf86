//! What a control plane is told.

use std::time::Duration;

use coracle_api::{Request, Response};
use coracle_base::Now;
use coracle_raft::{MemberId, Message, PersistId, ReadId};
use coracle_store::{Store, Transaction};

use crate::{ActionId, PeerMessage};

/// Which proposal an outcome belongs to; chosen by the driver, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// How far the two clocks may drift apart between two steps before the driver says [`Input::ClockJumped`]: more than a clock is
/// slewed, less than any grace.
pub const CLOCK_DRIFT_MAX: Duration = Duration::from_secs(2);

/// Whether the clocks drifted apart between two readings.
pub fn clock_jumped(before: Now, now: Now) -> bool {
    let mono = now.mono.saturating_since(before.mono);
    let expected = before.wall + mono;
    now.wall.saturating_since(expected).max(expected.saturating_since(now.wall)) > CLOCK_DRIFT_MAX
}

/// Whether a request must see everything that was acknowledged before it ([`Input::Read`]): all but reads that say how old a state
/// they are content with, by a `resourceVersion`, and those of no state at all: whether the process is alive, and what it is.
/// A member that is alone is always up to date.
pub fn needs_read(request: &Request) -> bool {
    if matches!(request.path.as_str(), "/livez" | "/healthz" | "/version") {
        return false;
    }
    let reads = matches!(request.method, coracle_api::Method::Get | coracle_api::Method::Head);
    let version = request.query.iter().find(|(name, _)| name == "resourceVersion").map_or("", |(_, value)| value);
    !reads || version.is_empty()
}

/// Whether a request that [`needs_read`] may be run from any view first. When that comes to one transaction, the transaction has
/// everything that it rests on among its preconditions, which hold at its place in the log or refuse it; what it is refused for is
/// seen in a view that has that place. So a write costs no round of its own before it. Whatever else such a run comes to is dropped,
/// and the request run again once it may read: only a transaction proves what it was made from.
///
/// What a transaction does not name among its preconditions (roles, limits, the schema of a custom kind) may be as old as the
/// view, as it is in a kube-apiserver, which has these from its watches.
pub fn may_prove_itself(request: &Request) -> bool {
    use coracle_api::Method;
    matches!(request.method, Method::Post | Method::Put | Method::Patch | Method::Delete)
}

/// An input of [`crate::ControlPlane::step`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// Nothing but that time has passed.
    Tick,
    /// A message of another member.
    Peer(MemberId, PeerMessage),
    /// What was sent to a member lately may be lost.
    Unreachable(MemberId),
    /// A member's process has ended, as far as can be told: the connection to it was lost, and nobody listens where it did.
    Gone(MemberId),
    /// The state that another member sent with [`crate::Output::SendSnapshot`] is here, complete, durable and read.
    SnapshotReceived {
        /// Who sent it.
        from: MemberId,
        /// What stands for it.
        message: Message,
        /// The state.
        store: Box<Store>,
    },
    /// A state is complete on another member, or did not get there.
    SnapshotSent(MemberId, bool),
    /// A request is to see everything that was acknowledged before it was made: see [`needs_read`]. The driver chooses the id, below
    /// the highest that there is.
    Read(ReadId),
    /// This member, whether it leads or not, asks that another one leads.
    TransferLead(MemberId),
    /// This member is about to stop: if it leads and another one can, that one is to lead.
    HandOver,
    /// Everything up to this batch is durable.
    Persisted(PersistId),
    /// A transaction that a request machine prepared. A member that does not lead forwards it.
    Submit(ProposalId, Transaction),
    /// The answer to a request that [`crate::Output::Prepare`] asked for.
    Answered(ActionId, Response),
    /// A node's agent is alive; a member that does not lead tells the leader.
    Heartbeat(String),
    /// The monotonic and the wall clock drifted apart by more than [`crate::CLOCK_DRIFT_MAX`] since the last step: the machine
    /// slept, or its clock was set. Nothing counts as missed for that time.
    ClockJumped,
    /// The snapshot that was asked for last could not be saved: the next one is when the log has grown again.
    SnapshotFailed,
    /// A snapshot of the state at this index is durable.
    SnapshotSaved {
        /// The index of the last entry in it.
        index: u64,
        /// Its term.
        term: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_jump_when_they_drift_apart_and_not_when_time_passes() {
        let before = Now::default();
        let later = before.after(Duration::from_secs(100));
        assert!(!clock_jumped(before, later));
        assert!(!clock_jumped(before, Now { wall: later.wall + CLOCK_DRIFT_MAX, ..later }));
        let slept = Now { wall: later.wall + Duration::from_secs(3), ..later };
        assert!(clock_jumped(before, slept) && clock_jumped(slept, later.after(Duration::from_secs(1))));
    }
}
