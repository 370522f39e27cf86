//! What a member says about itself and, while it leads, about its peers.

use raft::{ProgressState, RawNode, StateRole};
use serde::{Deserialize, Serialize};

use crate::log::Log;
use crate::{MemberId, Membership};

/// What a member does in its group at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Role {
    /// It leads.
    Leader,
    /// It stands for election.
    Candidate,
    /// It follows, and may lead another time.
    Follower,
    /// It follows without a vote.
    Learner,
    /// It is not in the group: not yet, or no more.
    Outside,
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Which member.
    pub id: MemberId,
    /// What it does.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader that it knows of.
    pub leader: Option<MemberId>,
    /// The highest index that it knows to be committed.
    pub commit: u64,
    /// The highest index that it has applied.
    pub applied: u64,
    /// The last index of its log.
    pub last: u64,
    /// Who is in the group, as far as it has applied.
    pub membership: Membership,
    /// The other members, by id; only a leader knows.
    pub peers: Vec<PeerStatus>,
}

/// What a leader knows of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Which member.
    pub id: MemberId,
    /// The highest index that its log is known to have.
    pub matched: u64,
    /// How many entries it is behind.
    pub lag: u64,
    /// Whether it was heard of within the last election timeout or so.
    pub active: bool,
    /// Whether a snapshot is on its way to it.
    pub snapshot: bool,
}

pub(crate) fn status(id: MemberId, node: &RawNode<Log>, membership: &Membership) -> Status {
    let raft = &node.raft;
    let last = raft.raft_log.last_index();
    let role = match raft.state {
        StateRole::Leader => Role::Leader,
        StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        StateRole::Follower => match membership.place(id) {
            crate::Place::Voter => Role::Follower,
            crate::Place::Learner => Role::Learner,
            crate::Place::Outside => Role::Outside,
        },
    };
    let mut peers = Vec::new();
    if role == Role::Leader {
        for (peer, progress) in raft.prs().iter().filter(|(peer, _)| **peer != id.0) {
            peers.push(PeerStatus {
                id: MemberId(*peer),
                matched: progress.matched,
                lag: last.saturating_sub(progress.matched),
                active: progress.recent_active,
                snapshot: progress.state == ProgressState::Snapshot,
            });
        }
        peers.sort_by_key(|peer| peer.id);
    }
    Status {
        id,
        role,
        term: raft.term,
        leader: (raft.leader_id != 0).then_some(MemberId(raft.leader_id)),
        commit: raft.raft_log.committed,
        applied: raft.raft_log.applied,
        last,
        membership: membership.clone(),
        peers,
    }
}
