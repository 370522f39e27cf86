//! The second phase: what is broken is mended, and the cluster must come right within a bounded time.

use std::time::Duration;

use super::load::DEPLOYMENTS;
use super::{Run, calm};
use crate::{Class, MemberId, Outcome, Propagation, Side, Wants, Who};

/// How long a healed quorum has until everybody in it takes writes.
const QUORUM_MAX: Duration = Duration::from_mins(1);
/// How long the group has to become what its list asks for.
const CHANGES_MAX: Duration = Duration::from_mins(3);
/// How long requests are on their way at most: longer than clients wait.
const REQUEST_MAX: Duration = Duration::from_secs(15);

impl Run<'_> {
    /// All but one voter are mended, which is a majority: they take writes again.
    pub(super) fn heal_a_quorum(&mut self) {
        // Who stands still goes on.
        self.c.run_for(self.plan.pause_max);
        let Some(left) = self.spare_voter() else { return };
        self.c.count(Class::Quorums);
        self.c.heal();
        self.c.weather(calm());
        let running = self.c.running_members();
        if self.rng.below(2) == 0 && running.contains(&left) {
            self.c.crash(left);
        }
        self.c.cut(left, Side::All);
        let mut quorum = self.c.member_ids();
        quorum.retain(|id| *id != left);
        for member in &quorum {
            self.wake(*member);
        }
        quorum.retain(|id| !self.removed.contains(id));
        for member in quorum {
            self.must_write(member, "a healed quorum takes no write");
        }
    }

    /// A voter without which the others are a majority, whatever change of the group is under way: none is.
    fn spare_voter(&mut self) -> Option<MemberId> {
        let statuses = self.c.statuses();
        let membership = statuses.iter().max_by_key(|status| status.applied)?.membership.clone();
        let agreed = statuses.iter().all(|status| status.membership == membership);
        let members = membership.members();
        let settled = self.c.member_ids().into_iter().all(|id| {
            let goes = self.removed.contains(&id);
            members.contains(&id) != goes
        });
        let spare = agreed && settled && !membership.is_joint() && membership.voters.len() >= 3;
        spare.then(|| self.pick(&membership.voters))
    }

    fn wake(&mut self, member: MemberId) {
        if !self.c.running_members().contains(&member) {
            self.c.restart(member);
        }
    }

    /// Writes through this member until a write is acknowledged.
    fn must_write(&mut self, member: MemberId, why: &str) {
        let until = self.c.elapsed() + QUORUM_MAX;
        loop {
            self.value += 1;
            let ticket = self.c.via(member).put("healed", self.value);
            let outcome = self.c.wait(ticket);
            if matches!(outcome, Outcome::Acknowledged(_)) {
                return;
            }
            assert!(self.c.elapsed() < until, "{why}: {outcome:?} through member {}", member.0);
            self.c.run_for(Duration::from_secs(1));
        }
    }

    /// Reads through this member what was written last.
    fn must_read(&mut self, member: MemberId) {
        let read = self.c.read(member, "healed");
        assert!(read == Some(self.value), "member {} reads {read:?} after {} was acknowledged", member.0, self.value);
    }

    /// Everything is mended: members agree, every request has an end, and what clients saw was one register each.
    pub(super) fn heal_everybody(&mut self) {
        self.c.heal();
        self.c.weather(calm());
        for member in self.c.member_ids() {
            self.wake(member);
        }
        for node in std::mem::take(&mut self.dead_nodes) {
            self.c.restart_node(&node);
        }
        for node in std::mem::take(&mut self.cut_nodes) {
            self.c.heal_node(&node);
        }
        self.c.run_for(REQUEST_MAX);
        self.repeat_what_was_asked();
        self.c.run_until_members_agree();
        let members: Vec<MemberId> =
            self.c.running_members().into_iter().filter(|id| !self.removed.contains(id)).collect();
        self.must_write(members[0], "a healed cluster takes no write");
        for member in members {
            self.must_read(member);
            for register in 0..self.plan.registers {
                self.c.read(member, &format!("r{register}"));
            }
        }
        self.c.run_until_told();
        for record in self.c.history().records() {
            assert!(record.outcome != Outcome::Pending, "a request has no end: {record:?}");
        }
        self.c.history().check_linearizable();
    }

    /// What was asked of the list of members and got lost on its way.
    fn repeat_what_was_asked(&mut self) {
        for id in self.c.member_ids() {
            if self.removed.contains(&id) {
                self.c.want(id, Wants::Removed);
            } else if id.0 > self.plan.members as u64 && self.c.wanted(id).is_none() {
                self.c.want(id, Wants::Auto);
            }
        }
        let until = self.c.elapsed() + CHANGES_MAX;
        while !self.group_is_as_asked() {
            let statuses = self.c.statuses();
            assert!(self.c.elapsed() < until, "the group is not as asked, without {:?}: {statuses:#?}", self.removed);
            self.c.run_for(Duration::from_millis(500));
        }
    }

    fn group_is_as_asked(&self) -> bool {
        let statuses = self.c.statuses();
        let Some(newest) = statuses.iter().max_by_key(|status| status.applied) else { return false };
        let members = newest.membership.members();
        let here = self.c.member_ids().into_iter().all(|id| members.contains(&id) != self.removed.contains(&id));
        here && statuses.iter().all(|status| !self.removed.contains(&status.id))
    }

    /// Workloads come to rest; half of them are rolled once more while nothing fails, and keep their bounds; then they go with all that
    /// is theirs.
    pub(super) fn roll_out_in_peace(&mut self) {
        if self.plan.nodes == 0 {
            return;
        }
        self.c.run_until_converged();
        self.check_containers();
        if self.rng.below(2) == 0 {
            self.roll();
        }
        let how = self.pick(&[Propagation::Foreground, Propagation::Background]);
        for name in DEPLOYMENTS {
            let object = format!("deployment/{name}");
            if self.c.get(&object).is_some() {
                self.c.delete(&object, how);
            }
        }
        self.c.run_until_converged();
        self.check_containers();
        self.c.run_until_told();
        assert!(self.c.list("replicasets").is_empty() && self.c.list("pods").is_empty(), "dependents were left behind");
    }

    /// The cluster goes on behind a backup and is lost; it is restored, and whoever watched it is sent back to a list, because no
    /// revision may mean two things.
    pub(super) fn restore_a_backup(&mut self) {
        if self.rng.below(2) == 0 {
            return;
        }
        let leader = self.c.who(Who::Leader);
        let backup = self.c.back_up(leader);
        for _ in 0..=self.rng.below(8) {
            self.must_write(leader, "a healed cluster takes no write");
        }
        self.c.run_until_told();
        self.c.restore(leader, &backup);
        self.must_write(leader, "a restored cluster takes no write");
        self.must_read(leader);
        self.c.run_until_told();
    }

    fn roll(&mut self) {
        self.c.begin_peace();
        for name in DEPLOYMENTS {
            let object = format!("deployment/{name}");
            if let Some(deployment) = self.c.get(&object) {
                let before = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
                let image = if before == "v1" { "v2" } else { "v1" };
                self.c.apply(&format!("{object} image={image}"));
            }
        }
        self.c.run_until_converged();
        self.check_containers();
        self.c.end_peace();
    }

    /// As many containers run as there are pods wanted.
    fn check_containers(&mut self) {
        let deployments = self.c.list("deployments");
        let wanted: u64 =
            deployments.iter().map(|deployment| deployment["spec"]["replicas"].as_u64().unwrap_or_default()).sum();
        let nodes = self.c.running_nodes();
        let running: usize = nodes.iter().map(|node| self.c.running_containers(node)).sum();
        let (pods, containers) = (self.c.show("pods"), self.c.show_containers());
        assert_eq!(running as u64, wanted, "a container of no pod runs, or a pod has none:\n{pods}\n{containers}");
    }
}
