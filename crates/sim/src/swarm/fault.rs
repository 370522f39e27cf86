//! The faults of a swarm: what each does to a cluster in the middle of whatever is going on.

use std::time::Duration;

use super::{Run, plan};
use crate::{MemberId, Side, Wants};

/// How many members a run has at most, those that went among them, and how many are left when others go.
const MEMBERS_MAX: usize = 7;
const MEMBERS_MIN: usize = 3;
/// How many events a crash waits for a write at most.
const WRITE_WAIT_EVENTS: u64 = 300;

/// How often a member restarts in a row, and how many events each of its starts lasts at most.
const FLAPS: usize = 6;
const VOTE_WAIT_EVENTS: u64 = 1_000;
/// How many events a leader's controllers have to begin something.
const WORK_WAIT_EVENTS: u64 = 400;

/// A kind of fault, or the end of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Crash,
    CrashWhileWriting,
    /// It is there again at once, before anybody noticed.
    CrashAndRestart,
    CrashLeader,
    CrashAll,
    Restart,
    Cut,
    CutOneWay,
    CutPair,
    Heal,
    Pause,
    ClockJump,
    TransferLead,
    Weather,
    SlowDisk,
    Join,
    Remove,
    KillNode,
    RestartNode,
    RestartAgent,
    CutNode,
    HealNode,
    /// A machine goes as a whole: the member and the node on it.
    LosePower,
    /// The leader and the one follower that hears it lose their power, and that one comes back.
    LoseMajority,
    /// A member restarts again and again just after it has voted, while the others do not hear each other.
    Flap,
    /// A leader is cut off in the middle of what its controllers do.
    CutWorkingLeader,
}

impl Fault {
    pub(super) const ALL: [Self; 26] = [
        Self::Crash,
        Self::CrashWhileWriting,
        Self::CrashAndRestart,
        Self::CrashLeader,
        Self::CrashAll,
        Self::Restart,
        Self::Cut,
        Self::CutOneWay,
        Self::CutPair,
        Self::Heal,
        Self::Pause,
        Self::ClockJump,
        Self::TransferLead,
        Self::Weather,
        Self::SlowDisk,
        Self::Join,
        Self::Remove,
        Self::KillNode,
        Self::RestartNode,
        Self::RestartAgent,
        Self::CutNode,
        Self::HealNode,
        Self::LosePower,
        Self::LoseMajority,
        Self::Flap,
        Self::CutWorkingLeader,
    ];

    /// Whether it breaks something rather than mend it.
    pub(super) fn hurts(self) -> bool {
        !matches!(self, Self::Restart | Self::Heal | Self::RestartNode | Self::HealNode)
    }

    /// Does it, if it is possible now.
    pub(super) fn strike(self, run: &mut Run<'_>) -> bool {
        match self {
            Self::Crash => run.with_running(2, |run, member| run.c.crash(member)),
            Self::CrashWhileWriting => run.with_running(2, Run::crash_while_writing),
            Self::CrashAndRestart => run.with_running(1, |run, member| {
                run.c.crash(member);
                run.c.restart(member);
            }),
            Self::CrashLeader => run.crash_leader(),
            Self::CrashAll => run.crash_all(),
            Self::Restart => run.with_down(|run, member| run.c.restart(member)),
            Self::Cut => run.with_any(|run, member| run.c.cut(member, Side::All)),
            Self::CutOneWay => run.with_any(|run, member| run.c.cut_one_way(member, Side::All)),
            Self::CutPair => run.with_any(Run::cut_pair),
            Self::Heal => run.with_any(|run, _| run.c.heal()),
            Self::Pause => run.with_running(1, |run, member| {
                let time = run.up_to(run.plan.pause_max);
                run.c.pause(member, time);
            }),
            Self::ClockJump => run.with_any(|run, member| {
                let ahead = run.up_to(run.plan.jump_max);
                run.c.set_clock(member, ahead);
            }),
            Self::TransferLead => run.with_running(1, |run, member| run.c.transfer_lead(member)),
            Self::Weather => run.with_any(|run, _| {
                let weather = plan::weather(&mut run.rng);
                run.c.weather(weather);
            }),
            Self::SlowDisk => run.with_running(1, |run, member| {
                let time = run.up_to(Duration::from_secs(5));
                run.c.slow_disk(member, run.plan.slow_factor, time);
            }),
            Self::Join => run.join(),
            Self::Remove => run.remove(),
            Self::KillNode => run.kill_node(),
            Self::RestartNode => run.restart_node(),
            Self::RestartAgent => run.with_node(|run, node| run.c.restart_agent(&node)),
            Self::CutNode => run.cut_node(),
            Self::HealNode => run.heal_node(),
            Self::LosePower => run.lose_power(),
            Self::LoseMajority => run.lose_majority(),
            Self::Flap => run.with_running(3, Run::flap),
            Self::CutWorkingLeader => run.cut_working_leader(),
        }
    }
}

// Members.
impl Run<'_> {
    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.below(most.as_micros() as u64))
    }

    fn with_any(&mut self, strike: impl FnOnce(&mut Self, MemberId)) -> bool {
        let all = self.c.member_ids();
        let member = self.pick(&all);
        strike(self, member);
        true
    }

    /// To one of the members that run, if there are so many.
    fn with_running(&mut self, least: usize, strike: impl FnOnce(&mut Self, MemberId)) -> bool {
        let running = self.c.running_members();
        let possible = running.len() >= least;
        if possible {
            let member = self.pick(&running);
            strike(self, member);
        }
        possible
    }

    fn with_down(&mut self, strike: impl FnOnce(&mut Self, MemberId)) -> bool {
        let running = self.c.running_members();
        let down: Vec<MemberId> = self.c.member_ids().into_iter().filter(|id| !running.contains(id)).collect();
        let possible = !down.is_empty();
        if possible {
            let member = self.pick(&down);
            strike(self, member);
        }
        possible
    }

    fn crash_while_writing(&mut self, member: MemberId) {
        for _ in 0..WRITE_WAIT_EVENTS {
            if self.c.is_writing(member) || !self.c.running_members().contains(&member) {
                break;
            }
            self.c.advance_events(1);
        }
        if self.c.running_members().contains(&member) {
            self.c.crash(member);
        }
    }

    fn crash_leader(&mut self) -> bool {
        let leader = self.c.leader_of(Side::All);
        if let Some(leader) = leader {
            self.crash_while_writing(leader);
        }
        leader.is_some()
    }

    /// The light goes out in the whole house.
    fn crash_all(&mut self) -> bool {
        let running = self.c.running_members();
        for member in &running {
            self.c.crash(*member);
        }
        let time = self.up_to(Duration::from_secs(2));
        self.c.run_for(time);
        for member in &running {
            self.c.restart(*member);
        }
        !running.is_empty()
    }

    fn lose_majority(&mut self) -> bool {
        let running = self.c.running_members();
        let Some(leader) = self.c.leader_of(Side::All).filter(|_| running.len() >= 3) else { return false };
        let others: Vec<MemberId> = running.into_iter().filter(|id| *id != leader).collect();
        let follower = self.pick(&others);
        for other in others.into_iter().filter(|id| *id != follower) {
            self.c.cut(leader, Side::One(other));
        }
        self.c.slow_disk(follower, self.plan.slow_factor, Duration::from_secs(1));
        let time = self.up_to(Duration::from_millis(800));
        self.c.run_for(time);
        for member in [leader, follower] {
            if self.c.running_members().contains(&member) {
                self.c.crash(member);
            }
        }
        self.c.heal_member(follower);
        self.c.restart(follower);
        true
    }

    fn flap(&mut self, member: MemberId) {
        let all = self.c.member_ids();
        for one in all.iter().filter(|id| **id != member) {
            for other in all.iter().filter(|id| **id != member && *id != one) {
                self.c.cut(*one, Side::One(*other));
            }
        }
        let term = |run: &Self| run.c.statuses().iter().find(|status| status.id == member).map(|status| status.term);
        for _ in 0..FLAPS {
            let before = term(self);
            for _ in 0..VOTE_WAIT_EVENTS {
                self.c.advance_events(1);
                if term(self) != before && !self.c.is_writing(member) {
                    break;
                }
            }
            if self.c.running_members().contains(&member) {
                self.c.crash(member);
            }
            self.c.restart(member);
        }
    }

    fn cut_working_leader(&mut self) -> bool {
        let Some(leader) = self.c.leader_of(Side::All).filter(|_| self.plan.nodes > 0) else { return false };
        let replicas = 4 + self.rng.below(5);
        self.scale_up(leader, replicas);
        for _ in 0..WORK_WAIT_EVENTS {
            if self.is_short_of_pods() {
                break;
            }
            self.c.advance_events(1);
        }
        let events = self.rng.below(10);
        self.c.advance_events(events);
        self.c.cut(leader, Side::All);
        // Long enough for another one to lead, and short enough for what was begun to be still wanted.
        let time = self.up_to(Duration::from_millis(2_500));
        self.c.run_for(time);
        self.c.heal_member(leader);
        true
    }

    fn cut_pair(&mut self, member: MemberId) {
        let all = self.c.member_ids();
        let other = self.pick(&all);
        self.c.cut(member, Side::One(other));
    }

    fn join(&mut self) -> bool {
        if self.c.member_ids().len() >= MEMBERS_MAX {
            return false;
        }
        let wants = if self.rng.below(3) == 0 { Wants::Voter } else { Wants::Auto };
        let new = self.c.start_joining();
        self.with_running(1, |run, via| run.c.ask(via, new, wants))
    }

    fn remove(&mut self) -> bool {
        let newest = self.c.statuses().into_iter().max_by_key(|status| status.applied);
        let mut left = newest.map(|status| status.membership.members()).unwrap_or_default();
        left.retain(|id| !self.removed.contains(id));
        if left.len() <= MEMBERS_MIN {
            return false;
        }
        let gone = self.pick(&left);
        self.removed.push(gone);
        self.with_running(1, |run, via| run.c.ask(via, gone, Wants::Removed))
    }
}

// Nodes.
impl Run<'_> {
    fn with_node(&mut self, strike: impl FnOnce(&mut Self, String)) -> bool {
        let running = self.c.running_nodes();
        let possible = !running.is_empty();
        if possible {
            let node = self.pick(&running);
            strike(self, node);
        }
        possible
    }

    fn kill_node(&mut self) -> bool {
        self.with_node(|run, node| {
            run.c.kill_node(&node);
            run.dead_nodes.push(node);
        })
    }

    fn restart_node(&mut self) -> bool {
        let Some(node) = self.dead_nodes.pop() else { return false };
        self.c.restart_node(&node);
        true
    }

    fn cut_node(&mut self) -> bool {
        self.with_node(|run, node| {
            run.c.cut_node(&node);
            if !run.cut_nodes.contains(&node) {
                run.cut_nodes.push(node);
            }
        })
    }

    fn heal_node(&mut self) -> bool {
        let Some(node) = self.cut_nodes.pop() else { return false };
        self.c.heal_node(&node);
        true
    }

    fn lose_power(&mut self) -> bool {
        self.with_running(2, |run, member| {
            run.c.crash(member);
            let node = format!("node-{}", member.0);
            if run.c.running_nodes().contains(&node) {
                run.c.kill_node(&node);
                run.dead_nodes.push(node);
            }
        })
    }
}
