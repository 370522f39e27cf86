//! When a member stands for election: time in ticks, and timeouts that are drawn from our own seed.

use coracle_base::{Instant, Now};
use raft::StateRole;

use super::Member;

impl Member {
    /// Whether there is nobody else in the group.
    pub(super) fn is_alone(&self) -> bool {
        let membership = self.membership();
        membership.is_decided_by(self.config.id) && membership.learners.is_empty()
    }

    /// Whether this member decides alone and does not lead yet: there is nobody to wait for but its own disk.
    pub(super) fn is_due_to_lead(&self) -> bool {
        let log = &self.node.raft.raft_log;
        self.decides_alone() && !self.is_leader() && log.persisted == log.last_index() && self.installing.is_none()
    }

    fn decides_alone(&self) -> bool {
        self.membership().is_decided_by(self.config.id)
    }

    /// When the next tick is due that does something: the ticks before it are made up for together. Never later than the shortest
    /// election timeout, so that what else depends on the time is looked at as well.
    pub(super) fn next_due(&self) -> Instant {
        let raft = &self.node.raft;
        let elapsed = raft.election_elapsed;
        let left = if self.is_leader() {
            let heartbeat = raft.heartbeat_timeout().saturating_sub(raft.heartbeat_elapsed());
            heartbeat.min(raft.election_timeout().saturating_sub(elapsed))
        } else {
            self.drawn.saturating_sub(elapsed).min(raft.election_timeout())
        };
        self.next_tick + self.config.tick() * u32::try_from(left.saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Makes up for the ticks since the last step, so that what comes now finds the time that it is. A message of the leader a follower
    /// follows was under way while they passed: none of them was one of silence.
    pub(super) fn pass_time(&mut self, now: Now, input: &super::Input) {
        let of_leader = |from: &super::MemberId| from.0 == self.node.raft.leader_id && !self.is_leader();
        match input {
            super::Input::Message(from, _) if of_leader(from) => {
                self.next_tick = self.next_tick.max(now.mono + self.config.tick());
            }
            super::Input::Tick => {
                if self.is_due_to_lead() {
                    let _ = self.node.campaign();
                }
                self.tick(now);
            }
            _ => self.tick(now),
        }
    }

    fn tick(&mut self, now: Now) {
        if self.is_alone() {
            return;
        }
        while self.next_tick <= now.mono {
            // The raft crate must not stand for election while the log is not durable up to its end.
            let must_wait = self.installing.is_some() || (self.decides_alone() && !self.is_leader());
            let stands = !must_wait && self.node.tick() && !self.is_leader();
            if stands {
                // It stands for election, perhaps once more in the same role and term.
                self.draw_election_timeout();
            }
            self.pin_election_timeout();
            self.next_tick = self.next_tick + self.config.tick();
            if now.mono.saturating_since(self.next_tick) > self.config.election.1 {
                // The process stood still: what it missed is not made up for, or it would count as many silent heartbeats.
                self.next_tick = now.mono + self.config.tick();
            }
        }
    }

    /// Who leads is no longer there: the silence that others grant it is over at once, and this member stands within a heartbeat, drawn
    /// so that all who hear of it do not stand together.
    pub(super) fn gone(&mut self, member: super::MemberId) {
        let raft = &mut self.node.raft;
        if raft.leader_id != member.0 || member == self.config.id || !raft.promotable() {
            return;
        }
        raft.election_elapsed = raft.election_elapsed.max(raft.election_timeout());
        self.drawn = raft.election_elapsed + 1 + self.rng.below(u64::from(super::io::TICKS_PER_HEARTBEAT)) as usize;
        raft.set_randomized_election_timeout(self.drawn);
    }

    pub(super) fn draw_election_timeout(&mut self) {
        let (low, high) = self.config.election_ticks();
        self.drawn = low + self.rng.below((high - low) as u64) as usize;
    }

    /// The raft crate draws from the thread's generator; a run must replay from its seed, so its draw is overwritten. Whether it
    /// drew cannot be told from its value, which may be the same by chance: a new role, term or leader is what tells.
    pub(super) fn pin_election_timeout(&mut self) {
        let raft = &self.node.raft;
        let standing = (raft.term, raft.state, raft.leader_id);
        if standing != self.standing {
            self.standing = standing;
            self.draw_election_timeout();
        }
        self.node.raft.set_randomized_election_timeout(self.drawn);
    }

    pub(super) fn role_changed(&mut self, role: StateRole) {
        let leading = role == StateRole::Leader;
        if leading != self.leading {
            self.leading = leading;
            self.out.push(if leading { super::Output::Leading(self.node.raft.term) } else { super::Output::Following });
        }
    }

    pub(super) fn leader_changed(&mut self, leader: u64) {
        if leader != self.leader {
            self.leader = leader;
            self.out.push(super::Output::Leader((leader != 0).then_some(super::MemberId(leader))));
        }
    }
}
