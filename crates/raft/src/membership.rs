//! Who is in the group, and how that changes: by joint consensus, so that no step in between has a majority of its own.

use std::collections::BTreeMap;

use bytes::Bytes;
use coracle_base::wire::{Damage, Reader, Writer};
use raft::RawNode;
use raft::eraftpb::{self, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use serde::{Deserialize, Serialize};

use crate::log::Log;
use crate::{MemberId, SnapshotMark, SnapshotPointer};

const FORMAT: u8 = 1;

/// What a member is in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Place {
    /// It counts towards majorities and may lead.
    Voter,
    /// It follows, and counts for nothing.
    Learner,
    /// It is not in the group.
    Outside,
}

/// Who is in the group, as the log says at some index. Each list is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Who votes.
    pub voters: Vec<MemberId>,
    /// Who follows without a vote.
    pub learners: Vec<MemberId>,
    /// While a change is under way: who voted before it. Until it is over a majority of these is needed too.
    pub outgoing: Vec<MemberId>,
    /// Which of these become learners when it is over.
    pub learners_next: Vec<MemberId>,
}

impl Membership {
    /// A group of these voters.
    pub fn of_voters(voters: &[MemberId]) -> Self {
        let mut voters = voters.to_vec();
        voters.sort();
        Self { voters, ..Self::default() }
    }

    /// What a member is, counting who is on its way out as what it still is.
    pub fn place(&self, member: MemberId) -> Place {
        if self.voters.contains(&member) || self.outgoing.contains(&member) {
            Place::Voter
        } else if self.learners.contains(&member) {
            Place::Learner
        } else {
            Place::Outside
        }
    }

    /// Whether a change is under way: two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Everybody who is in the group, sorted.
    pub fn members(&self) -> Vec<MemberId> {
        let mut all: Vec<MemberId> =
            [&self.voters, &self.learners, &self.outgoing].into_iter().flatten().copied().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether this member alone is a majority.
    pub(crate) fn is_decided_by(&self, member: MemberId) -> bool {
        self.voters == [member] && self.outgoing.iter().all(|outgoing| *outgoing == member)
    }

    /// Whether the raft crate can begin with it.
    pub(crate) fn is_sound(&self) -> bool {
        let distinct = |ids: &[MemberId]| ids.windows(2).all(|pair| pair[0] < pair[1]) && !ids.contains(&MemberId(0));
        let lists = [&self.voters, &self.learners, &self.outgoing, &self.learners_next];
        let votes = |id: &MemberId| self.voters.contains(id) || self.outgoing.contains(id);
        let waits = |id: &MemberId| self.outgoing.contains(id) && !self.voters.contains(id);
        !self.voters.is_empty()
            && lists.into_iter().all(|ids| distinct(ids))
            && !self.learners.iter().any(votes)
            && self.learners_next.iter().all(waits)
    }

    /// The group after a step, if it can be made: what the raft crate itself says.
    pub(crate) fn after(&self, step: &Step) -> Option<Self> {
        let mark = SnapshotMark { index: 1, term: 1 };
        let pointer = SnapshotPointer { mark, membership: self.clone() };
        let log = Log::new(mark, pointer, eraftpb::HardState { term: 1, commit: 1, ..eraftpb::HardState::default() });
        let config = raft::Config { applied: 1, ..raft::Config::new(u64::MAX) };
        let mut node = RawNode::new(&config, log, &slog::Logger::root(slog::Discard, slog::o!())).ok()?;
        let after = Self::from_raft(&node.apply_conf_change(&step.to_raft()).ok()?);
        after.is_sound().then_some(after)
    }

    /// The bytes of the log's file and of peers.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.byte(FORMAT);
        for members in [&self.voters, &self.learners, &self.outgoing, &self.learners_next] {
            w.list(members, |w, member| w.number(member.0));
        }
        w.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// On damaged bytes, and on those of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let r = &mut Reader::new(bytes);
        r.version(FORMAT)?;
        let mut list = || r.list(|r| r.number().map(MemberId));
        let membership = Self { voters: list()?, learners: list()?, outgoing: list()?, learners_next: list()? };
        r.finish()?;
        Ok(membership)
    }

    pub(crate) fn from_raft(state: &ConfState) -> Self {
        let ids = |ids: &[u64]| {
            let mut ids: Vec<MemberId> = ids.iter().copied().map(MemberId).collect();
            ids.sort();
            ids
        };
        Self {
            voters: ids(&state.voters),
            learners: ids(&state.learners),
            outgoing: ids(&state.voters_outgoing),
            learners_next: ids(&state.learners_next),
        }
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let ids = |ids: &[MemberId]| ids.iter().map(|id| id.0).collect();
        ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            voters_outgoing: ids(&self.outgoing),
            learners_next: ids(&self.learners_next),
            ..ConfState::default()
        }
    }
}

/// What is to become of members, at once; who is not named stays what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipChange(pub BTreeMap<MemberId, Place>);

impl MembershipChange {
    /// One member's change.
    pub fn one(member: MemberId, place: Place) -> Self {
        Self(BTreeMap::from([(member, place)]))
    }
}

/// Why a change is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeRefused {
    /// Only the leader changes the group.
    #[error("this member does not lead")]
    NotLeader,
    /// One change at a time.
    #[error("another change of the members is under way")]
    UnderWay,
    /// The leader stays until it has handed over its lead.
    #[error("the leader cannot give up its vote: transfer the lead first")]
    Leader,
    /// Nobody would be left to decide anything.
    #[error("no voter would be left")]
    NoVoter,
    /// Everybody is already what they are to be.
    #[error("the members are already what they are to be")]
    Nothing,
}

/// A step in the log: into a change, or out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Through a joint configuration; without one only what has no vote may change.
    joint: bool,
    changes: Vec<(MemberId, Place)>,
}

impl Step {
    /// The step that begins a change, if it changes anything.
    pub(crate) fn begin(from: &Membership, change: &MembershipChange) -> Option<Self> {
        let differ = |(member, place): &(&MemberId, &Place)| from.place(**member) != **place;
        let changes: Vec<_> = change.0.iter().filter(differ).map(|(member, place)| (*member, *place)).collect();
        let votes = changes.iter().any(|(id, to)| *to == Place::Voter || from.place(*id) == Place::Voter);
        (!changes.is_empty()).then_some(Self { joint: votes || changes.len() > 1, changes })
    }

    /// The step that ends a joint configuration.
    pub(crate) fn leave() -> Self {
        Self { joint: false, changes: Vec::new() }
    }

    /// The first voters of a new group come one by one: there is nobody yet to be joint with.
    pub(crate) fn found(voter: MemberId) -> Self {
        Self { joint: false, changes: vec![(voter, Place::Voter)] }
    }

    pub(crate) fn is_leave(&self) -> bool {
        !self.joint && self.changes.is_empty()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.byte(FORMAT);
        w.byte(self.joint.into());
        w.list(&self.changes, |w, (member, place)| {
            w.number(member.0);
            w.byte(match place {
                Place::Voter => 0,
                Place::Learner => 1,
                Place::Outside => 2,
            });
        });
        w.finish().into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let r = &mut Reader::new(bytes);
        r.version(FORMAT)?;
        let joint = match r.byte()? {
            0 => false,
            1 => true,
            other => return Err(format!("{other} is neither yes nor no").into()),
        };
        let changes = r.list(|r| {
            let member = MemberId(r.number()?);
            let place = match r.byte()? {
                0 => Place::Voter,
                1 => Place::Learner,
                2 => Place::Outside,
                other => return Err(format!("{other} is no place in a group").into()),
            };
            Ok((member, place))
        })?;
        r.finish()?;
        Ok(Self { joint, changes })
    }

    pub(crate) fn to_raft(&self) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        // The raft crate's own way out of a joint configuration forgets it when the leader changes at the wrong moment.
        change.set_transition(if self.joint { ConfChangeTransition::Explicit } else { ConfChangeTransition::Auto });
        let singles = self.changes.iter().map(|(member, place)| {
            let mut single = ConfChangeSingle { node_id: member.0, ..ConfChangeSingle::default() };
            single.set_change_type(match place {
                Place::Voter => ConfChangeType::AddNode,
                Place::Learner => ConfChangeType::AddLearnerNode,
                Place::Outside => ConfChangeType::RemoveNode,
            });
            single
        });
        change.set_changes(singles.collect::<Vec<_>>().into());
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    #[test]
    fn what_is_written_is_read_again_and_damage_is_an_error() {
        let membership = Membership {
            voters: ids(&[1, 300]),
            learners: ids(&[4]),
            outgoing: ids(&[1, 2]),
            learners_next: ids(&[2]),
        };
        let bytes = membership.encode();
        assert_eq!(Membership::decode(&bytes), Ok(membership));
        let change = MembershipChange(BTreeMap::from([(MemberId(1), Place::Voter), (MemberId(2), Place::Outside)]));
        let step = Step::begin(&Membership::of_voters(&ids(&[2])), &change).unwrap();
        let encoded = step.encode();
        assert_eq!(Step::decode(&encoded), Ok(step));
        for length in 0..bytes.len() {
            assert!(Membership::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        for length in 0..encoded.len() {
            assert!(Step::decode(&encoded[..length]).is_err(), "{length} bytes");
        }
        assert!(Membership::decode(&[2]).unwrap_err().to_string().contains("format version is 2"));
    }

    #[test]
    fn a_log_with_a_change_that_its_group_cannot_make_is_unsound() {
        let entry = |index, step: Step| crate::LogEntry {
            index,
            term: 1,
            kind: crate::EntryKind::Membership,
            data: step.encode(),
        };
        let leaves = Step { joint: false, changes: vec![(MemberId(1), Place::Outside)] };
        let log = |entries: Vec<crate::LogEntry>| crate::Restored {
            hard_state: crate::HardState { term: 1, vote: 0, commit: 1 },
            entries,
            ..crate::Restored::default()
        };
        let founded = entry(1, Step::found(MemberId(1)));
        assert_eq!(log(vec![founded.clone()]).check(), Ok(()));
        assert_eq!(log(vec![founded.clone(), entry(2, leaves)]).check(), Err(crate::Unsound::Change(2)));
        assert_eq!(log(vec![founded, entry(2, Step::leave())]).check(), Err(crate::Unsound::Change(2)));
    }

    #[test]
    fn a_change_that_touches_no_vote_needs_no_second_majority() {
        let from = Membership { learners: ids(&[2]), ..Membership::of_voters(&ids(&[1])) };
        let step = |member, place| Step::begin(&from, &MembershipChange::one(MemberId(member), place));
        assert!(!step(3, Place::Learner).unwrap().joint);
        assert!(!step(2, Place::Outside).unwrap().joint);
        assert!(step(2, Place::Voter).unwrap().joint);
        assert!(step(1, Place::Learner).unwrap().joint);
        assert_eq!(step(2, Place::Learner), None);
    }
}
