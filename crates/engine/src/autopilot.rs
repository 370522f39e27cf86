//! Who votes: what the leader does so that the group becomes what the list of members asks for, and survives what it can.
//!
//! Pure, and asked again and again; it wants one step at a time. The second member stays a learner, because two voters are worse
//! than one: either of them stops both. When the third has caught up both become voters at once. Further members are spares. A
//! voter that has been silent for long gives its place to a spare, and never is there a step that leaves fewer voters awake than a
//! majority.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_base::Instant;
use coracle_raft::{MemberId, Membership, MembershipChange, PeerStatus, Place, Status};

use crate::members::{MemberRecord, Wants};

/// How many entries a learner may be behind and count as caught up.
const LAG_MAX: u64 = 64;
/// How often the group is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many voters there are where nobody asks for more.
const VOTERS: usize = 3;

/// How patient the leader is.
#[derive(Clone, Copy, Debug)]
pub struct AutopilotOptions {
    /// How long a voter may be silent before a spare takes its place, unless the cluster's settings say otherwise: laptops sleep.
    pub silent_max: Duration,
    /// How long a learner is seen to be caught up before it becomes a voter.
    pub stable: Duration,
}

impl Default for AutopilotOptions {
    fn default() -> Self {
        Self { silent_max: Duration::from_hours(24), stable: Duration::from_secs(5) }
    }
}

/// What the leader is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Change(MembershipChange),
    /// This member goes, and hands over first.
    TransferLead(MemberId),
}

/// What a leader remembers of its peers; a new one begins anew.
#[derive(Debug, Default)]
pub(crate) struct Autopilot {
    /// Since when a member is silent, or caught up.
    silent: BTreeMap<MemberId, Instant>,
    caught_up: BTreeMap<MemberId, Instant>,
}

impl Autopilot {
    /// Looks at the group; says what to do next, if anything.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        options: &AutopilotOptions,
        records: &[MemberRecord],
        status: &Status,
    ) -> Option<Step> {
        self.note(now, status);
        if status.membership.is_joint() {
            return None;
        }
        let group = Group { autopilot: self, now, options, records, status };
        group.leave().or_else(|| group.join()).or_else(|| group.promote()).or_else(|| group.replace())
    }

    fn note(&mut self, now: Instant, status: &Status) {
        let keep = |since: &mut BTreeMap<MemberId, Instant>, peer: &PeerStatus, holds: bool| {
            if holds {
                since.entry(peer.id).or_insert(now);
            } else {
                since.remove(&peer.id);
            }
        };
        let known: Vec<MemberId> = status.peers.iter().map(|peer| peer.id).collect();
        self.silent.retain(|id, _| known.contains(id));
        self.caught_up.retain(|id, _| known.contains(id));
        for peer in &status.peers {
            keep(&mut self.silent, peer, !peer.active);
            keep(&mut self.caught_up, peer, peer.active && peer.lag <= LAG_MAX);
        }
    }
}

struct Group<'a> {
    autopilot: &'a Autopilot,
    now: Instant,
    options: &'a AutopilotOptions,
    records: &'a [MemberRecord],
    status: &'a Status,
}

impl Group<'_> {
    fn membership(&self) -> &Membership {
        &self.status.membership
    }

    fn wants(&self, id: MemberId) -> Option<Wants> {
        self.records.iter().find(|record| record.id == id).map(|record| record.wants)
    }

    fn is_awake(&self, id: MemberId) -> bool {
        id == self.status.id || self.status.peers.iter().any(|peer| peer.id == id && peer.active)
    }

    /// Learners that could vote from now on: those that ask for it, and (`spares`) those that leave it to the cluster.
    fn eligible(&self, spares: bool) -> Vec<MemberId> {
        let stable = |id: &MemberId| {
            let since = self.autopilot.caught_up.get(id);
            since.is_some_and(|since| self.now.saturating_since(*since) >= self.options.stable)
        };
        let wants = |id: &MemberId| match self.wants(*id) {
            Some(Wants::Voter) => true,
            Some(Wants::Auto) => spares,
            _ => false,
        };
        self.membership().learners.iter().copied().filter(|id| wants(id) && stable(id)).collect()
    }

    /// Members that were removed, or ask to be without a vote.
    fn leave(&self) -> Option<Step> {
        let membership = self.membership();
        let leaving = membership.members().into_iter().find_map(|id| {
            let place = match self.wants(id)? {
                Wants::Removed => Place::Outside,
                Wants::Worker if membership.voters.contains(&id) => Place::Learner,
                _ => return None,
            };
            Some((id, place))
        });
        let (id, place) = leaving?;
        let rest: Vec<MemberId> = membership.voters.iter().copied().filter(|voter| *voter != id).collect();
        if membership.voters.contains(&id) && !self.is_safe(&rest) {
            return None;
        }
        if id == self.status.id {
            return self.heir().map(Step::TransferLead);
        }
        Some(Step::Change(MembershipChange::one(id, place)))
    }

    /// The voter that is the least behind among those that are awake and stay.
    fn heir(&self) -> Option<MemberId> {
        let stays = |peer: &&PeerStatus| {
            peer.active
                && self.membership().voters.contains(&peer.id)
                && !matches!(self.wants(peer.id), Some(Wants::Removed | Wants::Worker))
        };
        let heirs = self.status.peers.iter().filter(stays);
        heirs.max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.id))).map(|peer| peer.id)
    }

    /// Members of the list that are not in the group yet.
    fn join(&self) -> Option<Step> {
        let members = self.membership().members();
        let comes = |record: &&MemberRecord| record.wants != Wants::Removed && !members.contains(&record.id);
        let next = self.records.iter().find(comes)?;
        Some(Step::Change(MembershipChange::one(next.id, Place::Learner)))
    }

    fn promote(&self) -> Option<Step> {
        let voters = self.membership().voters.len();
        let mut chosen = self.eligible(false);
        if voters + chosen.len() < VOTERS {
            let spares = self.eligible(true);
            let others: Vec<MemberId> = spares.into_iter().filter(|id| !chosen.contains(id)).collect();
            let missing = VOTERS - voters - chosen.len();
            if others.len() >= missing {
                chosen.extend(others.into_iter().take(missing));
            }
        }
        if chosen.is_empty() {
            return None;
        }
        Some(Step::Change(MembershipChange(chosen.into_iter().map(|id| (id, Place::Voter)).collect())))
    }

    /// A spare for a voter that has been silent for too long, which stays as a learner in case it comes back.
    fn replace(&self) -> Option<Step> {
        let silent = |id: &&MemberId| {
            let since = self.autopilot.silent.get(id);
            since.is_some_and(|since| self.now.saturating_since(*since) >= self.options.silent_max)
        };
        let membership = self.membership();
        let dead = *membership.voters.iter().find(silent)?;
        let spare = *self.eligible(true).first()?;
        let mut voters: Vec<MemberId> = membership.voters.iter().copied().filter(|voter| *voter != dead).collect();
        voters.push(spare);
        let change = MembershipChange(BTreeMap::from([(dead, Place::Learner), (spare, Place::Voter)]));
        self.is_safe(&voters).then_some(Step::Change(change))
    }

    /// Whether these voters could decide something now.
    fn is_safe(&self, voters: &[MemberId]) -> bool {
        let awake = voters.iter().filter(|voter| self.is_awake(**voter)).count();
        awake > voters.len() / 2
    }
}

#[cfg(test)]
mod tests;
