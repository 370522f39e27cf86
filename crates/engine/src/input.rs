//! What a control plane is told.

use std::time::Duration;

use coracle_api::Response;
use coracle_base::Now;
use coracle_raft::{MemberId, Message, PersistId};
use coracle_store::Transaction;

use crate::ActionId;

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
    /// The monotonic and the wall clock drifted apart by more than [`crate::CLOCK_DRIFT_MAX`] since the last step: the machine
    /// slept, or its clock was set. Nothing counts as missed for that time.
    ClockJumped,
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
