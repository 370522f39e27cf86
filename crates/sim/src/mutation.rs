//! Deliberate faults of the driver, to see that the swarm finds them: each breaks one line of the contract between a driver and the
//! machines, as a careless one would.
//!
//! All of them are in this driver, around machines that are those of production. Nothing else can be made wrong so, because nothing
//! that is shipped knows of this.

/// A deliberate fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutation {
    /// A disk says that a batch is durable while it is still in its memory.
    SkippedFsync,
    /// A member says what it has in its log before that is durable there.
    WordBeforeFsync,
    /// A client is answered when its write is proposed, as if that were applied.
    AnswerBeforeCommit,
    /// A member begins with a state that is newer than its log says, and applies entries to it again.
    AppliedTwice,
    /// Reads are answered from whatever a member has, without asking whether that is all.
    StaleRead,
    /// A member that was started answers before it has everything that was acknowledged.
    ServedTooEarly,
    /// An event of a watch gets lost now and then.
    LostWatchEvent,
    /// A cluster that was restored from a backup counts on from the backup's revision.
    RevisionReused,
    /// What was forwarded is forwarded again later, whatever became of it.
    ForwardedTwice,
    /// A crash takes what a member voted and in which term.
    VoteForgotten,
    /// A member takes half of another one's state for the whole.
    HalfSnapshot,
    /// What a leader's controllers want is done whoever leads by then.
    OldLeaderActs,
}

impl Mutation {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::SkippedFsync,
        Self::WordBeforeFsync,
        Self::AnswerBeforeCommit,
        Self::AppliedTwice,
        Self::StaleRead,
        Self::ServedTooEarly,
        Self::LostWatchEvent,
        Self::RevisionReused,
        Self::ForwardedTwice,
        Self::VoteForgotten,
        Self::HalfSnapshot,
        Self::OldLeaderActs,
    ];

    /// The one of a name, which is that of its variant.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name)
    }
}
