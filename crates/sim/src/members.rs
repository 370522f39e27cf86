//! What a scenario says about members: who they are, what happens to them and between them, and registers to try them with.

use std::ops::Sub;
use std::time::Duration;

use coracle_api::{Method, Request, UserInfo};
use coracle_engine::{Input, MemberRecord, ProposalId, Wants};
use coracle_raft::{MemberId, Role, Status};
use serde_json::json;

use crate::history::{Access, History, Outcome, Ticket, value_of};
use crate::{Backup, Class, TestCluster, Totals, Weather};

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

/// A client of one member. When that is down it goes to another.
#[derive(Debug)]
pub struct Via<'a> {
    cluster: &'a mut TestCluster,
    member: usize,
}

impl Via<'_> {
    /// Writes a register, and does not wait.
    pub fn put(self, register: &str, value: u64) -> Ticket {
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": register, "namespace": "default"}, "data": {"value": value.to_string()},
        });
        let request = Request::new(Method::Patch, path(register), UserInfo::admin("client"))
            .query("fieldManager", "client")
            .query("force", "true")
            .content_type("application/apply-patch+yaml")
            .json(object);
        self.cluster.submit_to(self.member, request, Some((register.to_owned(), Access::Put(value))))
    }

    /// Reads a register, and does not wait.
    pub fn read(self, register: &str) -> Ticket {
        let request = Request::new(Method::Get, path(register), UserInfo::admin("client"));
        self.cluster.submit_to(self.member, request, Some((register.to_owned(), Access::Read)))
    }

    /// Deletes a register, and does not wait.
    pub fn delete(self, register: &str) -> Ticket {
        let request = Request::new(Method::Delete, path(register), UserInfo::admin("client"));
        self.cluster.submit_to(self.member, request, Some((register.to_owned(), Access::Delete)))
    }
}

/// A register is a ConfigMap.
fn path(register: &str) -> String {
    format!("/api/v1/namespaces/default/configmaps/{register}")
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
        self.world.totals.add(Class::Partitions, 1);
        for other in self.member_ids().into_iter().filter(|other| others.has(*other)) {
            self.world.network.cut(member, other);
        }
    }

    /// Everybody hears everybody again.
    pub fn heal(&mut self) {
        self.world.network.heal();
    }

    /// Everybody hears this member again, and it them.
    pub fn heal_member(&mut self, member: MemberId) {
        self.world.network.heal_member(member);
    }

    /// A member's disk takes so many times as long, for a while.
    #[track_caller]
    pub fn slow_disk(&mut self, member: MemberId, factor: u32, time: Duration) {
        let m = self.world.place(member);
        let until = self.world.now.mono + time;
        self.world.slow_disk(m, factor, until);
    }

    /// How the network between members is from now on.
    pub fn weather(&mut self, weather: Weather) {
        self.world.network.weather = weather;
    }

    /// A member's process stands still for a while: what is meant for it waits.
    #[track_caller]
    pub fn pause(&mut self, member: MemberId, time: Duration) {
        self.world.totals.add(Class::Pauses, 1);
        let m = self.world.place(member);
        let until = self.world.now.mono + time;
        self.world.pause_member(m, until);
    }

    /// A member's wall clock is set, so far ahead of the world's.
    #[track_caller]
    pub fn set_clock(&mut self, member: MemberId, ahead: Duration) {
        self.world.totals.add(Class::ClockJumps, 1);
        let m = self.world.place(member);
        self.world.set_clock(m, ahead);
    }

    /// A member's wall clock is a little ahead from the beginning: no jump that anybody could notice.
    #[track_caller]
    pub(crate) fn skew_clock(&mut self, member: MemberId, ahead: Duration) {
        let m = self.world.place(member);
        self.world.set_clock(m, ahead);
    }

    /// Nothing fails from now on: Deployments keep the bounds of their rollouts at every moment.
    pub fn begin_peace(&mut self) {
        self.world.invariants.peace = true;
    }

    /// Something may fail again.
    pub fn end_peace(&mut self) {
        self.world.invariants.peace = false;
    }

    /// Something happened that only who runs the cluster knows of.
    pub(crate) fn count(&mut self, class: Class) {
        self.world.totals.add(class, 1);
    }

    /// Asks that a member leads.
    #[track_caller]
    pub fn transfer_lead(&mut self, to: MemberId) {
        let m = self.world.place(self.leader_of(Side::All).unwrap_or(to));
        self.world.tell_member(m, Input::TransferLead(to));
    }

    /// A backup of what a member has.
    #[track_caller]
    pub fn back_up(&self, member: MemberId) -> Backup {
        self.world.back_up(self.world.place(member))
    }

    /// Every member is lost, and this one begins again with a backup. What was asked of the cluster before is forgotten, because what
    /// was acknowledged since the backup is lost.
    #[track_caller]
    pub fn restore(&mut self, member: MemberId, backup: &Backup) {
        let m = self.world.place(member);
        self.world.restore(m, backup);
        let totals = self.totals();
        self.world.history = History::default();
        self.world.totals.keep_outcomes(&totals);
    }

    /// A new member, written into the list through the leader.
    #[track_caller]
    pub fn join(&mut self, wants: Wants) -> MemberId {
        let id = self.start_joining();
        self.want(id, wants);
        id
    }

    /// A new member that runs and waits until it is spoken to; it is in no list yet.
    pub fn start_joining(&mut self) -> MemberId {
        let listed = MemberRecord::next_id(self.view());
        let known = self.member_ids().into_iter().max().map_or(1, |last| last.0 + 1);
        let id = MemberId(listed.0.max(known));
        let m = self.world.add_member(id);
        self.world.start_member(m);
        id
    }

    /// Says what a member is to be, and waits until the list has it.
    #[track_caller]
    pub fn want(&mut self, id: MemberId, wants: Wants) {
        for attempt in 0.. {
            assert!(attempt < 100, "the list of members cannot be written");
            if self.wanted(id) == Some(wants) {
                return;
            }
            let leader = self.who(Who::Leader);
            self.ask(leader, id, wants);
            self.advance(Duration::from_millis(500));
        }
    }

    /// What a member is to be, as the list has it.
    pub fn wanted(&self, id: MemberId) -> Option<Wants> {
        MemberRecord::find(self.view(), id).map(|record| record.wants)
    }

    /// Writes into the list through a member what another is to be. Nobody waits for it: the list is looked at.
    ///
    /// # Panics
    ///
    /// When the list is full.
    #[track_caller]
    pub fn ask(&mut self, via: MemberId, id: MemberId, wants: Wants) {
        let name = format!("member-{}", id.0);
        let record = MemberRecord { id, name, addresses: Vec::new(), wants, identity: String::new() };
        let view = self.view();
        let transaction = record.update(view).or_else(|| record.create(view)).expect("the list has room");
        let m = self.world.place(via);
        self.world.tell_member(m, Input::Submit(ProposalId(u64::MAX), transaction));
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
        let mut totals = world.totals;
        totals.add(Class::Acknowledged, outcomes(|outcome| matches!(outcome, Outcome::Acknowledged(_))));
        totals.add(Class::Unknown, outcomes(|outcome| matches!(outcome, Outcome::Unknown)));
        totals.add(Class::Elections, world.agreement.elections() as u64);
        totals.add(Class::LostMessages, world.network.lost);
        totals.add(Class::DoubledMessages, world.network.doubled);
        totals
    }
}
