//! What a scenario says about members: who they are, what happens to them and between them, and registers to try them with.

use std::fmt;
use std::ops::Sub;
use std::time::Duration;

use coracle_api::{Method, Request, UserInfo};
use coracle_engine::{Input, MemberRecord, ProposalId, Wants};
use coracle_raft::{MemberId, Role, Status};
use serde_json::json;

use crate::history::{Outcome, Ticket, value_of};
use crate::{TestCluster, Weather};

/// Which member is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Who leads in the highest term.
    Leader,
    /// The first that follows with a vote.
    Follower,
}

/// Some of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Every one.
    All,
    /// Every one but this.
    But(MemberId),
    /// This one.
    One(MemberId),
}

impl Side {
    fn has(self, member: MemberId) -> bool {
        match self {
            Self::All => true,
            Self::But(other) => member != other,
            Self::One(one) => member == one,
        }
    }
}

impl Sub<MemberId> for Side {
    type Output = Self;

    fn sub(self, member: MemberId) -> Self {
        assert_eq!(self, Self::All, "only one can be left out");
        Self::But(member)
    }
}

/// How often what happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Operations on registers that were acknowledged.
    pub acknowledged: u64,
    /// Operations on registers whose outcome is not known.
    pub unknown: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Processes killed.
    pub crashes: u64,
    /// Batches that a crash took from a disk.
    pub torn: u64,
    /// Partitions made.
    pub partitions: u64,
    /// Messages between members that were lost.
    pub lost: u64,
    /// Messages between members that came twice.
    pub doubled: u64,
    /// States of other members installed.
    pub snapshots: u64,
    /// Changes of the group that members applied.
    pub memberships: u64,
    /// Clocks set.
    pub jumps: u64,
    /// Processes that stood still for a while.
    pub pauses: u64,
}

impl Totals {
    /// Each class with its name.
    pub fn classes(&self) -> [(&'static str, u64); 12] {
        [
            ("acknowledged", self.acknowledged),
            ("unknown", self.unknown),
            ("elections", self.elections),
            ("crashes", self.crashes),
            ("torn writes", self.torn),
            ("partitions", self.partitions),
            ("lost messages", self.lost),
            ("doubled messages", self.doubled),
            ("snapshots installed", self.snapshots),
            ("membership changes", self.memberships),
            ("clock jumps", self.jumps),
            ("pauses", self.pauses),
        ]
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            acknowledged: self.acknowledged + other.acknowledged,
            unknown: self.unknown + other.unknown,
            elections: self.elections + other.elections,
            crashes: self.crashes + other.crashes,
            torn: self.torn + other.torn,
            partitions: self.partitions + other.partitions,
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            snapshots: self.snapshots + other.snapshots,
            memberships: self.memberships + other.memberships,
            jumps: self.jumps + other.jumps,
            pauses: self.pauses + other.pauses,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.classes().iter().map(|(name, number)| format!("{number} {name}")).collect();
        f.write_str(&texts.join(", "))
    }
}

/// A client of one member. When that is down it goes to another.
#[derive(Debug)]
pub struct Via<'a> {
    cluster: &'a mut TestCluster,
    member: usize,
}

impl Via<'_> {
    /// Writes a register, and does not wait.
    pub fn put(self, register: &str, value: u64) -> Ticket {
        let path = format!("/api/v1/namespaces/default/configmaps/{register}");
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": register, "namespace": "default"}, "data": {"value": value.to_string()},
        });
        let request = Request::new(Method::Patch, path, UserInfo::admin("client"))
            .query("fieldManager", "client")
            .query("force", "true")
            .content_type("application/apply-patch+yaml")
            .json(object);
        self.cluster.submit_to(self.member, request, Some((register.to_owned(), Some(value))))
    }

    /// Reads a register, and does not wait.
    pub fn read(self, register: &str) -> Ticket {
        let path = format!("/api/v1/namespaces/default/configmaps/{register}");
        let request = Request::new(Method::Get, path, UserInfo::admin("client"));
        self.cluster.submit_to(self.member, request, Some((register.to_owned(), None)))
    }
}

impl TestCluster {
    /// A client of a member.
    #[track_caller]
    pub fn via(&mut self, member: MemberId) -> Via<'_> {
        let member = self.world.place(member);
        Via { cluster: self, member }
    }

    /// A member by what it does; waits until there is one.
    #[track_caller]
    pub fn who(&mut self, who: Who) -> MemberId {
        let find = |c: &Self| match who {
            Who::Leader => c.leader_of(Side::All),
            Who::Follower => {
                c.statuses().into_iter().find(|status| status.role == Role::Follower).map(|status| status.id)
            }
        };
        self.run_until(|c| find(c).is_some());
        find(self).expect("it was waited for")
    }

    /// Who of these leads.
    pub fn leader_of(&self, side: Side) -> Option<MemberId> {
        self.world.leader(|id| side.has(id)).map(|m| self.world.members[m].id)
    }

    /// How the members that run stand, in the order of their ids.
    pub fn statuses(&self) -> Vec<Status> {
        self.world.members.iter().filter_map(|member| Some(member.plane()?.status())).collect()
    }

    /// Every member, running or not.
    pub fn member_ids(&self) -> Vec<MemberId> {
        self.world.members.iter().map(|member| member.id).collect()
    }

    /// The members whose process runs.
    pub fn running_members(&self) -> Vec<MemberId> {
        self.world.members.iter().filter(|member| member.is_running()).map(|member| member.id).collect()
    }

    /// Writes a register through the first member that answers, and waits for the outcome.
    #[track_caller]
    pub fn put(&mut self, register: &str, value: u64) -> Outcome {
        let first = self.member_ids()[0];
        let ticket = self.via(first).put(register, value);
        self.wait(ticket)
    }

    /// Reads a register through a member, and waits.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    #[track_caller]
    pub fn read(&mut self, member: MemberId, register: &str) -> Option<u64> {
        let ticket = self.via(member).read(register);
        match self.wait(ticket) {
            Outcome::Acknowledged(response) => value_of(&response),
            Outcome::Refused(status) if status.code == 404 => None,
            other => panic!("{register} cannot be read through member {}: {other:?}", member.0),
        }
    }

    /// Waits until a request has come to its end.
    #[track_caller]
    pub fn wait(&mut self, ticket: Ticket) -> Outcome {
        self.run_until(|c| *c.history().outcome(ticket) != Outcome::Pending);
        self.history().outcome(ticket).clone()
    }

    // Faults.

    /// Whether a member's disk is in the middle of a write.
    #[track_caller]
    pub fn is_writing(&self, member: MemberId) -> bool {
        self.world.members[self.world.place(member)].is_writing()
    }

    /// Kills a member's process.
    #[track_caller]
    pub fn crash(&mut self, member: MemberId) {
        let m = self.world.place(member);
        self.world.crash_member(m);
    }

    /// Starts it again, from what its disk holds.
    #[track_caller]
    pub fn restart(&mut self, member: MemberId) {
        let m = self.world.place(member);
        self.world.start_member(m);
    }

    /// Messages between a member and others are lost, in both directions.
    pub fn cut(&mut self, member: MemberId, others: Side) {
        self.cut_one_way(member, others);
        for other in self.member_ids().into_iter().filter(|other| others.has(*other)) {
            self.world.network.cut(other, member);
        }
    }

    /// Messages from a member to others are lost; it still hears them.
    pub fn cut_one_way(&mut self, member: MemberId, others: Side) {
        self.world.totals.partitions += 1;
        for other in self.member_ids().into_iter().filter(|other| others.has(*other)) {
            self.world.network.cut(member, other);
        }
    }

    /// Everybody hears everybody again.
    pub fn heal(&mut self) {
        self.world.network.heal();
    }

    /// How the network between members is from now on.
    pub fn weather(&mut self, weather: Weather) {
        self.world.network.weather = weather;
    }

    /// A member's process stands still for a while: what is meant for it waits.
    #[track_caller]
    pub fn pause(&mut self, member: MemberId, time: Duration) {
        self.world.totals.pauses += 1;
        let m = self.world.place(member);
        let until = self.world.now.mono + time;
        self.world.pause_member(m, until);
    }

    /// A member's wall clock is set, so far ahead of the world's.
    #[track_caller]
    pub fn set_clock(&mut self, member: MemberId, ahead: Duration) {
        self.world.totals.jumps += 1;
        let m = self.world.place(member);
        self.world.set_clock(m, ahead);
    }

    /// Asks that a member leads.
    #[track_caller]
    pub fn transfer_lead(&mut self, to: MemberId) {
        let m = self.world.place(self.leader_of(Side::All).unwrap_or(to));
        self.world.tell_member(m, Input::TransferLead(to));
    }

    /// A new member, written into the list through the leader.
    #[track_caller]
    pub fn join(&mut self, wants: Wants) -> MemberId {
        let listed = MemberRecord::next_id(self.view());
        let known = self.member_ids().into_iter().max().map_or(1, |last| last.0 + 1);
        let id = MemberId(listed.0.max(known));
        let m = self.world.add_member(id);
        self.world.start_member(m);
        self.write_record(id, wants);
        id
    }

    /// Says what a member is to be.
    #[track_caller]
    pub fn want(&mut self, id: MemberId, wants: Wants) {
        self.write_record(id, wants);
    }

    #[track_caller]
    fn write_record(&mut self, id: MemberId, wants: Wants) {
        let record = MemberRecord {
            id,
            name: format!("member-{}", id.0),
            addresses: Vec::new(),
            wants,
            identity: String::new(),
        };
        for attempt in 0.. {
            assert!(attempt < 100, "the list of members cannot be written");
            if MemberRecord::find(self.view(), id).is_some_and(|found| found.wants == wants) {
                return;
            }
            let leader = self.who(Who::Leader);
            let m = self.world.place(leader);
            let view = self.view();
            let transaction = record.update(view).or_else(|| record.create(view)).expect("the list has room");
            // Nobody waits for it: the list is looked at.
            self.world.tell_member(m, Input::Submit(ProposalId(u64::MAX), transaction));
            self.advance(Duration::from_millis(500));
        }
    }

    /// Lets time pass until every member that runs has the same state, and one leads.
    ///
    /// # Panics
    ///
    /// When that takes more than two minutes.
    #[track_caller]
    pub fn run_until_members_agree(&mut self) {
        for _ in 0..240 {
            self.advance(Duration::from_millis(500));
            let mut applied: Vec<u64> = self.statuses().iter().map(|status| status.applied).collect();
            applied.dedup();
            let serving = self.world.members.iter().all(|member| member.is_serving() || !member.is_running());
            if applied.len() == 1 && serving && self.leader_of(Side::All).is_some() {
                return self.world.check_replicas();
            }
        }
        panic!("the members do not agree: {:#?}", self.statuses());
    }

    /// How often what happened up to now.
    pub fn totals(&self) -> Totals {
        let world = &self.world;
        let outcomes = |wanted: fn(&Outcome) -> bool| {
            let records = self.history().records().iter().filter(|record| record.register.is_some());
            records.filter(|record| wanted(&record.outcome)).count() as u64
        };
        Totals {
            acknowledged: outcomes(|outcome| matches!(outcome, Outcome::Acknowledged(_))),
            unknown: outcomes(|outcome| matches!(outcome, Outcome::Unknown)),
            elections: world.agreement.elections() as u64,
            lost: world.network.lost,
            doubled: world.network.doubled,
            ..world.totals
        }
    }
}
