use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::MessageType;

use super::io::TAIL_ENTRIES;
use super::*;
use crate::{Place, ReadId, Role};

mod guard;
mod time;

/// A group in memory whose disks are instant and whose network delivers everything between members that are up.
struct Group {
    now: Now,
    members: BTreeMap<MemberId, Member>,
    disks: BTreeMap<MemberId, Restored>,
    down: Vec<MemberId>,
    /// Messages between these are lost, in both directions.
    cut: Vec<(MemberId, MemberId)>,
    /// Whose disk does not answer, and what it owes.
    stuck: Option<MemberId>,
    owed: Option<PersistId>,
    /// What each member applied, by index; and the same of its last snapshot, and of one that is on its way to it.
    applied: BTreeMap<MemberId, BTreeMap<u64, String>>,
    saved: BTreeMap<MemberId, BTreeMap<u64, String>>,
    coming: BTreeMap<MemberId, BTreeMap<u64, String>>,
    /// What was applied at an index, by whoever was first.
    agreed: BTreeMap<u64, (u64, String)>,
    /// Who led in each term.
    leaders: BTreeMap<u64, MemberId>,
    appended: Vec<(ProposalId, u64, u64)>,
    settled: Vec<(ProposalId, bool)>,
    unknown: Vec<ProposalId>,
    refused: Vec<ChangeRefused>,
    readable: Vec<ReadId>,
    snapshots_sent: usize,
    /// Who wants to save a snapshot.
    wanted: Option<MemberId>,
    trace: Vec<String>,
}

impl Group {
    fn new(size: u64) -> Self {
        Self::of(&(1..=size).map(MemberId).collect::<Vec<_>>())
    }

    fn of(voters: &[MemberId]) -> Self {
        let mut group = Self {
            now: Now::default(),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            down: Vec::new(),
            cut: Vec::new(),
            stuck: None,
            owed: None,
            applied: BTreeMap::new(),
            saved: BTreeMap::new(),
            coming: BTreeMap::new(),
            agreed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            appended: Vec::new(),
            settled: Vec::new(),
            unknown: Vec::new(),
            refused: Vec::new(),
            readable: Vec::new(),
            snapshots_sent: 0,
            wanted: None,
            trace: Vec::new(),
        };
        for id in voters {
            let config = Config { voters: voters.to_vec(), ..Config::single(*id) };
            group.members.insert(*id, Member::new(group.now, config, None, Rng::seeded(id.0)));
        }
        group
    }

    /// A member that is in no group yet.
    fn newcomer(&mut self, id: u64) -> MemberId {
        let id = MemberId(id);
        self.members.insert(id, Member::new(self.now, Config::joining(id), None, Rng::seeded(id.0)));
        id
    }

    /// Starts a member again from what its disk holds.
    fn restart(&mut self, id: MemberId, seed: u64) {
        let restored = self.disks[&id].clone();
        let state = self.saved.get(&id).filter(|_| restored.snapshot.mark.index > 0).cloned().unwrap_or_default();
        self.applied.insert(id, state);
        let member = Member::new(self.now, Config::joining(id), Some(restored), Rng::seeded(seed));
        self.members.insert(id, member);
    }

    fn step(&mut self, id: MemberId, input: Input) {
        let mut inbox = VecDeque::from([(id, input)]);
        while let Some((id, input)) = inbox.pop_front() {
            if self.down.contains(&id) {
                continue;
            }
            let Some(member) = self.members.get_mut(&id) else { continue };
            for output in member.step(self.now, input) {
                self.trace.push(format!("{:?} {id:?} {output:?}", self.now.mono));
                self.carry_out(id, output, &mut inbox);
            }
        }
    }

    fn carry_out(&mut self, id: MemberId, output: Output, inbox: &mut VecDeque<(MemberId, Input)>) {
        match output {
            Output::Persist(persist, batch) => {
                self.disks.entry(id).or_default().write(batch);
                if self.stuck == Some(id) {
                    self.owed = Some(persist);
                } else {
                    inbox.push_back((id, Input::Persisted(persist)));
                }
            }
            // Whoever it is for is down by the time the disk answers.
            Output::Send { after: Some(_), .. } if self.stuck == Some(id) => {}
            Output::Send { to, message, .. } => {
                if !self.cut.contains(&(id, to)) && !self.cut.contains(&(to, id)) {
                    inbox.push_back((to, Input::Message(id, message)));
                }
            }
            Output::SendSnapshot { to, message, mark } => {
                let state = self.saved.get(&id).cloned().unwrap_or_default();
                assert_eq!(message.snapshot_mark(), Some(mark));
                let arrives = !self.down.contains(&to);
                if arrives {
                    self.coming.insert(to, state);
                    inbox.push_back((to, Input::Snapshot(id, message)));
                }
                self.snapshots_sent += 1;
                inbox.push_back((id, Input::SnapshotSent(to, arrives)));
            }
            Output::SnapshotWanted => self.wanted = Some(id),
            Output::Install { .. } => {
                let state = self.coming.remove(&id).expect("a state came with it");
                self.saved.insert(id, state.clone());
                self.applied.insert(id, state);
            }
            Output::Apply { term, index, proposal, data } => {
                self.settled.extend(proposal.map(|proposal| (proposal, true)));
                self.apply(id, index, term, String::from_utf8_lossy(&data).into_owned());
            }
            Output::Membership { term, index, proposal, membership } => {
                self.settled.extend(proposal.map(|proposal| (proposal, true)));
                self.apply(id, index, term, format!("{membership:?}"));
            }
            Output::Appended { proposal, term, index } => self.appended.push((proposal, term, index)),
            Output::Dropped(proposal) => self.settled.push((proposal, false)),
            Output::Unknown(proposal) => self.unknown.push(proposal),
            Output::Refused(_, why) => self.refused.push(why),
            Output::Readable(read) => self.readable.push(read),
            Output::Unreadable(read) => panic!("{read:?} was turned away"),
            Output::Leading(term) => {
                let other = self.leaders.insert(term, id);
                assert!(other.is_none_or(|other| other == id), "{other:?} and {id:?} lead in term {term}");
            }
            Output::Following | Output::Leader(_) => {}
        }
    }

    fn apply(&mut self, id: MemberId, index: u64, term: u64, data: String) {
        let agreed = self.agreed.entry(index).or_insert_with(|| (term, data.clone()));
        assert_eq!(*agreed, (term, data.clone()), "{id:?} applies something else at {index}");
        self.applied.entry(id).or_default().insert(index, data);
    }

    /// Saves a snapshot of everything that a member has applied.
    fn save(&mut self, id: MemberId) {
        let state = self.applied[&id].clone();
        let index = *state.last_key_value().unwrap().0;
        let term = self.agreed[&index].0;
        self.saved.insert(id, state);
        self.step(id, Input::SnapshotSaved { index, term });
    }

    fn propose(&mut self, number: u64, data: &str) {
        let leader = self.leader().expect("somebody leads");
        self.step(leader, Input::Propose(ProposalId(number), Bytes::copy_from_slice(data.as_bytes())));
    }

    fn change(&mut self, number: u64, places: &[(u64, Place)]) {
        let leader = self.leader().expect("somebody leads");
        let change = MembershipChange(places.iter().map(|(id, place)| (MemberId(*id), *place)).collect());
        self.step(leader, Input::ChangeMembership(ProposalId(number), change));
    }

    fn membership(&self, id: MemberId) -> String {
        let ids = |ids: &[MemberId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ");
        let membership = self.members[&id].membership();
        let mut text = format!("voters {}", ids(&membership.voters));
        for (what, list) in [("learners", &membership.learners), ("outgoing", &membership.outgoing)] {
            if !list.is_empty() {
                text = format!("{text}, {what} {}", ids(list));
            }
        }
        text
    }

    #[track_caller]
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            self.pass(1);
        }
        panic!("it did not happen within 100 s: {}", self.trace[self.trace.len().saturating_sub(60)..].join("\n"));
    }

    /// Lets so many hundredths of a second pass.
    fn pass(&mut self, hundredths: u64) {
        for _ in 0..hundredths {
            self.now = self.now.after(Duration::from_millis(10));
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                self.step(id, Input::Tick);
            }
        }
    }

    fn leader(&self) -> Option<MemberId> {
        let leads = |(id, member): &(&MemberId, &Member)| member.is_leader() && !self.down.contains(id);
        self.members.iter().filter(leads).max_by_key(|(_, member)| member.term()).map(|(id, _)| *id)
    }

    /// What a member applied, but for changes of the group.
    fn applied(&self, id: MemberId) -> Vec<&str> {
        let all = self.applied.get(&id).into_iter().flat_map(BTreeMap::values).map(String::as_str);
        all.filter(|data| !data.is_empty() && !data.starts_with("Membership")).collect()
    }
}

#[test]
fn a_member_alone_leads_at_once_and_applies_only_what_is_durable() {
    let mut member = Member::new(Now::default(), Config::single(MemberId(1)), None, Rng::seeded(1));
    assert_eq!(member.next_wakeup(), Some(Instant::ZERO));
    let mut persists = VecDeque::new();
    let mut applied = Vec::new();
    let mut inputs = VecDeque::from([Input::Tick]);
    while let Some(input) = inputs.pop_front() {
        for output in member.step(Now::default(), input) {
            match output {
                Output::Persist(id, _) => persists.push_back(id),
                Output::Leading(term) => assert_eq!(term, 2, "the first is that of the group's founding"),
                Output::Membership { index, .. } => assert_eq!(index, 1),
                Output::Leader(leader) => assert_eq!(leader, Some(MemberId(1))),
                Output::Apply { data, .. } => applied.push(data),
                other => panic!("unexpected {other:?}"),
            }
        }
        inputs.extend(persists.pop_front().map(Input::Persisted));
    }
    assert!(member.is_leader());
    assert_eq!(applied, [Bytes::new()], "the first entry of its term");
    assert_eq!(member.next_wakeup(), None);

    let outputs = member.step(Now::default(), Input::Propose(ProposalId(7), Bytes::from_static(b"a")));
    let [Output::Appended { term: 2, index: 3, .. }, Output::Persist(id, batch)] = outputs.as_slice() else {
        panic!("unexpected {outputs:?}")
    };
    assert_eq!(batch.entries[0].data, "a");
    let outputs = member.step(Now::default(), Input::Persisted(*id));
    assert!(
        matches!(outputs.as_slice(), [Output::Apply { proposal: Some(ProposalId(7)), index: 3, .. }]),
        "unexpected {outputs:?}"
    );
}

#[test]
fn three_members_agree_and_outlive_their_leader() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let old = group.leader().unwrap();
    group.step(old, Input::Propose(ProposalId(1), Bytes::from_static(b"a")));
    group.run_until(|group| (1..=3).all(|id| group.applied(MemberId(id)) == ["a"]));
    group.down.push(old);
    group.run_until(|group| group.leader().is_some());
    let new = group.leader().unwrap();
    assert_ne!(old, new);
    group.step(new, Input::Propose(ProposalId(2), Bytes::from_static(b"b")));
    group.run_until(|group| group.applied(new) == ["a", "b"]);
    group.down.clear();
    group.run_until(|group| group.applied(old) == ["a", "b"]);
    assert_eq!(group.settled, [(ProposalId(1), true), (ProposalId(2), true)]);
}

#[test]
fn who_does_not_lead_drops_proposals() {
    let mut group = Group::new(3);
    group.step(MemberId(1), Input::Propose(ProposalId(1), Bytes::from_static(b"a")));
    assert_eq!(group.settled, [(ProposalId(1), false)]);
}

#[test]
fn a_restarted_member_applies_its_log_again_behind_its_snapshot() {
    let mut group = Group::new(1);
    let id = MemberId(1);
    group.step(id, Input::Tick);
    for (number, data) in ["a", "b", "c"].into_iter().enumerate() {
        group.step(id, Input::Propose(ProposalId(number as u64), Bytes::copy_from_slice(data.as_bytes())));
    }
    assert_eq!(group.applied(id), ["a", "b", "c"]);
    group.step(id, Input::SnapshotSaved { index: 4, term: 2 });
    let restored = group.disks[&id].clone();
    assert_eq!(restored.snapshot.mark, SnapshotMark { index: 4, term: 2 });
    assert_eq!(restored.snapshot.membership, Membership::of_voters(&[id]));
    group.restart(id, 9);
    group.step(id, Input::Tick);
    assert_eq!(group.applied(id), ["c"], "a and b are in the snapshot");
    assert_eq!(group.members[&id].term(), 3);
}

#[test]
fn a_member_alone_reads_at_once_when_it_leads() {
    let mut group = Group::new(1);
    let id = MemberId(1);
    group.stuck = Some(id);
    group.step(id, Input::Tick);
    group.step(id, Input::ReadIndex(ReadId(1)));
    assert_eq!(group.readable, [], "nothing of its term is durable yet");
    let owed = group.owed.take().unwrap();
    group.step(id, Input::Persisted(owed));
    assert_eq!(group.readable, [ReadId(1)]);
    group.step(id, Input::ReadIndex(ReadId(2)));
    assert_eq!(group.readable, [ReadId(1), ReadId(2)]);
}

#[test]
fn a_read_sees_what_was_committed_before_it_on_whichever_member() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    group.step(leader, Input::Propose(ProposalId(1), Bytes::from_static(b"a")));
    let follower = (1..=3).map(MemberId).find(|id| *id != leader).unwrap();
    group.step(follower, Input::ReadIndex(ReadId(1)));
    group.step(leader, Input::ReadIndex(ReadId(2)));
    group.run_until(|group| group.readable.len() == 2);
    assert_eq!(group.applied(follower), ["a"]);
}

#[test]
fn a_leader_without_a_majority_serves_no_read() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    let others: Vec<MemberId> = (1..=3).map(MemberId).filter(|id| *id != leader).collect();
    group.down.clone_from(&others);
    group.step(leader, Input::ReadIndex(ReadId(1)));
    for _ in 0..500 {
        group.now = group.now.after(Duration::from_millis(10));
        group.step(leader, Input::Tick);
    }
    assert_eq!(group.readable, []);
    assert!(!group.members[&leader].is_leader(), "it has heard of nobody");
    group.down.clear();
    group.run_until(|group| group.readable == [ReadId(1)]);
}

/// The answer that `from` gives to a request of member 1 for its vote.
fn granted(from: MemberId, outputs: &[Output]) -> Option<Input> {
    let request = outputs.iter().find_map(|output| match output {
        Output::Send { to, message: Message(message), .. } if *to == from => Some(message),
        _ => None,
    })?;
    let answer = match request.get_msg_type() {
        MessageType::MsgRequestPreVote => MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgRequestVote => MessageType::MsgRequestVoteResponse,
        other => panic!("unexpected {other:?}"),
    };
    let mut message = eraftpb::Message::default();
    message.set_msg_type(answer);
    (message.from, message.to, message.term) = (from.0, request.from, request.term);
    Some(Input::Message(from, Message(message)))
}

fn last_batch(outputs: &[Output]) -> PersistId {
    let batches = outputs.iter().filter_map(|output| match output {
        Output::Persist(id, _) => Some(*id),
        _ => None,
    });
    batches.max().unwrap()
}

#[test]
fn a_member_whose_disk_is_slow_does_not_lead_before_its_log_is_durable() {
    let [id, leader, third] = [1, 2, 3].map(MemberId);
    let config = Config { voters: vec![id, leader, third], ..Config::single(id) };
    let mut now = Now::default();
    let mut member = Member::new(now, config, None, Rng::seeded(1));
    let mut append = eraftpb::Message::default();
    append.set_msg_type(MessageType::MsgAppend);
    (append.from, append.to, append.term) = (leader.0, id.0, 1);
    (append.index, append.log_term) = (3, 1);
    let entry = LogEntry { index: 4, term: 1, data: Bytes::from_static(b"a"), ..LogEntry::default() };
    append.set_entries(vec![to_raft(&entry)].into());
    let batch = last_batch(&member.step(now, Input::Message(leader, Message(append))));

    let vote = loop {
        now = now.after(Duration::from_millis(10));
        if let Some(vote) = granted(third, &member.step(now, Input::Tick)) {
            break vote;
        }
    };
    assert!(member.step(now, vote).is_empty(), "the entry is not durable yet");
    let outputs = member.step(now, Input::Persisted(batch));
    let (batch, vote) = (last_batch(&outputs), granted(third, &outputs).unwrap());
    assert!(member.step(now, vote).is_empty(), "its own vote is not durable yet");
    member.step(now, Input::Persisted(batch));
    assert!(member.is_leader());
}

#[test]
fn the_same_seeds_give_the_same_run() {
    let run = || {
        let mut group = Group::new(3);
        for round in 0..5 {
            group.run_until(|group| group.leader().is_some());
            let leader = group.leader().unwrap();
            group.step(leader, Input::Propose(ProposalId(round), Bytes::from_static(b"a")));
            group.down = vec![leader];
        }
        group.trace
    };
    let first = run();
    for _ in 0..5 {
        assert_eq!(run(), first);
    }
}

#[test]
fn a_minority_cannot_commit_and_what_it_took_is_dropped() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let old = group.leader().unwrap();
    let others: Vec<MemberId> = (1..=3).map(MemberId).filter(|id| *id != old).collect();
    group.cut = others.iter().map(|other| (old, *other)).collect();
    group.step(old, Input::Propose(ProposalId(1), Bytes::from_static(b"lost")));
    assert_eq!(group.appended.len(), 1);
    group.run_until(|group| others.contains(&group.leader().unwrap_or(old)));
    group.propose(2, "kept");
    group.run_until(|group| others.iter().all(|id| group.applied(*id) == ["kept"]));
    assert_eq!((group.applied(old).len(), group.settled.as_slice()), (0, [(ProposalId(2), true)].as_slice()));
    group.cut.clear();
    group.run_until(|group| group.applied(old) == ["kept"]);
    assert_eq!(group.settled, [(ProposalId(2), true), (ProposalId(1), false)]);
}

#[test]
fn a_proposal_that_was_told_its_place_is_applied_there() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    group.propose(1, "a");
    let (_, term, index) = group.appended[0];
    group.run_until(|group| group.settled == [(ProposalId(1), true)]);
    assert_eq!(group.agreed[&index], (term, "a".into()));
}

#[test]
fn the_lead_is_handed_to_whoever_is_named() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    for heir in [1, 2, 3, 1].map(MemberId) {
        let leader = group.leader().unwrap();
        let before = group.now;
        group.step(leader, Input::TransferLead(heir));
        group.run_until(|group| group.leader() == Some(heir));
        assert!(
            group.now.mono.saturating_since(before.mono) < Duration::from_millis(100),
            "no election was waited for"
        );
    }
    assert!(group.members.values().all(|member| member.status().leader == Some(MemberId(1))));
}

#[test]
fn a_leader_that_no_longer_trusts_itself_follows_when_others_can_lead() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    group.step(leader, Input::GiveUpLead);
    assert_eq!(group.leader(), None);
    group.run_until(|group| group.leader().is_some());
    let mut alone = Group::new(1);
    alone.step(MemberId(1), Input::Tick);
    alone.step(MemberId(1), Input::GiveUpLead);
    assert_eq!(alone.leader(), Some(MemberId(1)));
}

#[test]
fn one_voter_and_two_learners_become_three_voters_at_once() {
    let mut group = Group::new(1);
    let first = MemberId(1);
    group.step(first, Input::Tick);
    group.propose(1, "a");
    for (number, id) in [(2, 2), (3, 3)] {
        let id = group.newcomer(id);
        group.change(number, &[(id.0, Place::Learner)]);
        group.run_until(|group| group.applied(id) == ["a"]);
        assert_eq!(group.members[&id].status().role, Role::Learner);
    }
    group.propose(4, "b");
    group.run_until(|group| group.settled.contains(&(ProposalId(4), true)));
    let lags: Vec<u64> = group.members[&first].status().peers.iter().map(|peer| peer.lag).collect();
    assert_eq!(lags, [0, 0]);
    group.change(5, &[(2, Place::Voter), (3, Place::Voter)]);
    group.run_until(|group| (1..=3).all(|id| group.membership(MemberId(id)) == "voters 1 2 3"));
    let joint = group.trace.iter().filter(|line| line.contains("outgoing: [MemberId(1)]")).count();
    assert_eq!(joint, 3, "each member went through the joint group");
    group.down.push(first);
    group.run_until(|group| group.leader().is_some());
    group.propose(6, "c");
    group.run_until(|group| group.settled.contains(&(ProposalId(6), true)));
}

#[test]
fn learners_neither_lead_nor_count() {
    let mut group = Group::new(1);
    group.step(MemberId(1), Input::Tick);
    for id in [2, 3] {
        group.newcomer(id);
        group.change(id, &[(id, Place::Learner)]);
        group.run_until(|group| group.members[&MemberId(id)].membership().learners.contains(&MemberId(id)));
    }
    group.down = vec![MemberId(2), MemberId(3)];
    group.propose(4, "alone");
    assert_eq!(group.settled.last(), Some(&(ProposalId(4), true)));
    group.down = vec![MemberId(1)];
    group.pass(1_000);
    assert_eq!(group.leader(), None);
    group.restart(MemberId(1), 7);
    group.down = vec![MemberId(2), MemberId(3)];
    let before = group.now;
    group.run_until(|group| group.leader() == Some(MemberId(1)));
    assert!(group.now.mono.saturating_since(before.mono) < Duration::from_millis(50), "there is nobody to wait for");
}

#[test]
fn a_learner_catches_up_by_a_snapshot_and_keeps_it() {
    let mut group = Group::new(1);
    let (first, second) = (MemberId(1), group.newcomer(2));
    group.step(first, Input::Tick);
    for number in 0..TAIL_ENTRIES + 10 {
        group.propose(number, &format!("{number}"));
    }
    group.save(first);
    group.propose(5_000, "behind the snapshot");
    group.change(5_001, &[(2, Place::Learner)]);
    group.run_until(|group| group.wanted == Some(first));
    assert_eq!(group.snapshots_sent, 0, "the last snapshot does not know the new member");
    group.save(first);
    group.run_until(|group| group.applied(second) == group.applied(first));
    assert_eq!(group.snapshots_sent, 1);
    assert_eq!(group.membership(second), "voters 1, learners 2");
    let disk = &group.disks[&second];
    assert_eq!((disk.base, disk.snapshot.mark), (disk.snapshot.mark, group.disks[&first].snapshot.mark));
    group.restart(second, 5);
    group.propose(5_002, "after its restart");
    group.run_until(|group| group.applied(second) == group.applied(first));
    assert_eq!(group.snapshots_sent, 1, "the log is enough");
}

#[test]
fn a_snapshot_that_did_not_arrive_is_sent_again() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    let late = (1..=3).map(MemberId).find(|id| *id != leader).unwrap();
    group.down.push(late);
    for number in 0..TAIL_ENTRIES + 10 {
        group.propose(number, "x");
    }
    group.save(leader);
    // It is heard of, and gone again before the state is moved.
    group.down.clear();
    group.run_until(|group| group.snapshots_sent == 1);
    group.run_until(|group| group.applied(late) == group.applied(leader));
}

#[test]
fn half_a_snapshot_is_not_taken() {
    let mut group = Group::new(1);
    group.step(MemberId(1), Input::Tick);
    group.propose(1, "a");
    group.save(MemberId(1));
    let mut member = Member::new(group.now, Config::joining(MemberId(2)), None, Rng::seeded(2));
    let mut descriptor = eraftpb::Message::default();
    descriptor.set_msg_type(MessageType::MsgSnapshot);
    (descriptor.from, descriptor.to, descriptor.term) = (1, 2, 2);
    let metadata = descriptor.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (3, 2);
    let membership = Membership { learners: vec![MemberId(2)], ..Membership::of_voters(&[MemberId(1)]) };
    metadata.set_conf_state(membership.to_raft());
    let message = Message(descriptor);
    assert!(
        member.step(group.now, Input::Message(MemberId(1), message.clone())).is_empty(),
        "only the descriptor came"
    );
    let outputs = member.step(group.now, Input::Snapshot(MemberId(1), message));
    let installed = outputs.iter().position(|output| matches!(output, Output::Install { .. })).unwrap();
    let Output::Persist(id, batch) = &outputs[installed + 1] else { panic!("unexpected {outputs:?}") };
    assert!(batch.restart && batch.hard_state.is_some_and(|state| state.commit == 3));
    assert_eq!(batch.snapshot.as_ref().map(|pointer| &pointer.membership), Some(&membership));
    let held = |output: &&Output| matches!(output, Output::Send { after, .. } if *after == Some(*id));
    assert_eq!(outputs.iter().filter(held).count(), 1, "the acknowledgement waits for the disk");
}

#[test]
fn a_proposal_whose_place_went_by_in_a_snapshot_is_unknown() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let old = group.leader().unwrap();
    group.cut = (1..=3).map(|other| (old, MemberId(other))).collect();
    group.propose(1, "nobody knows");
    group.run_until(|group| group.leader().is_some_and(|leader| leader != old));
    for number in 2..TAIL_ENTRIES + 10 {
        group.propose(number, "x");
    }
    let new = group.leader().unwrap();
    group.save(new);
    group.cut.clear();
    group.run_until(|group| group.applied(old) == group.applied(new));
    assert_eq!(group.unknown, [ProposalId(1)]);
}

#[test]
fn a_removed_member_knows_it_and_disturbs_nobody() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    let gone = (1..=3).map(MemberId).find(|id| *id != leader).unwrap();
    group.change(1, &[(gone.0, Place::Outside)]);
    group.run_until(|group| group.members[&gone].membership().place(gone) == Place::Outside);
    assert_eq!(group.members[&gone].status().role, Role::Outside);
    let term = group.members[&leader].term();
    group.pass(1_000);
    assert_eq!((group.leader(), group.members[&leader].term()), (Some(leader), term));
    group.propose(2, "b");
    assert_eq!(group.settled, [(ProposalId(1), true), (ProposalId(2), true)]);
}

#[test]
fn changes_that_would_break_the_group_are_refused() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    let other = (1..=3).map(MemberId).find(|id| *id != leader).unwrap();
    group.step(other, Input::ChangeMembership(ProposalId(1), MembershipChange::one(leader, Place::Outside)));
    group.change(2, &[(leader.0, Place::Learner)]);
    group.change(3, &[(1, Place::Outside), (2, Place::Outside), (3, Place::Learner)]);
    group.change(4, &[(other.0, Place::Voter)]);
    group.down.push(other);
    group.cut = (1..=3).map(|id| (leader, MemberId(id))).collect();
    group.change(5, &[(4, Place::Learner)]);
    group.change(6, &[(5, Place::Learner)]);
    let names: Vec<String> = group.refused.iter().map(|why| format!("{why:?}")).collect();
    assert_eq!(names, ["NotLeader", "Leader", "NoVoter", "Nothing", "UnderWay"]);
}

#[test]
fn whoever_leads_ends_a_change_that_another_leader_began() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let old = group.leader().unwrap();
    let others: Vec<MemberId> = (1..=3).map(MemberId).filter(|id| *id != old).collect();
    // The entry that begins the change reaches everybody, and the leader is gone before it knows.
    group.stuck = Some(others[0]);
    group.down.push(others[1]);
    group.change(1, &[(others[1].0, Place::Outside)]);
    let owed = group.owed.take().unwrap();
    group.stuck = None;
    group.down = vec![old];
    group.step(others[0], Input::Persisted(owed));
    group.run_until(|group| group.leader().is_some_and(|leader| leader == others[0]));
    group.down.clear();
    group.run_until(|group| group.membership(others[0]) == group.membership(old) && group.leader().is_some());
    group.run_until(|group| !group.membership(others[0]).contains("outgoing"));
    assert!(!group.members[&others[0]].membership().voters.contains(&others[1]));
}

#[test]
fn who_leads_a_group_that_it_leaves_lets_another_end_the_change() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let old = group.leader().unwrap();
    let others: Vec<MemberId> = (1..=3).map(MemberId).filter(|id| *id != old).collect();
    let leaving = others[0];
    // The change reaches only who is to leave, and it comes to lead.
    group.stuck = Some(leaving);
    group.down.push(others[1]);
    group.change(1, &[(leaving.0, Place::Outside)]);
    let owed = group.owed.take().unwrap();
    group.stuck = None;
    group.down = vec![old];
    group.step(leaving, Input::Persisted(owed));
    group.run_until(|group| group.leaders.values().any(|leader| *leader == leaving));
    group.down.clear();
    group.run_until(|group| group.members[&leaving].membership().place(leaving) == Place::Outside);
    group.run_until(|group| group.leader().is_some_and(|leader| leader != leaving));
    group.propose(2, "b");
    group.run_until(|group| group.settled.contains(&(ProposalId(2), true)));
}

/// The founder of a group that has three voters by now was cut off by the power: had it forgotten that the change was
/// committed, it would lead alone what is no longer its own.
#[test]
fn a_member_that_decided_alone_once_does_not_do_so_again_after_a_restart() {
    let mut group = Group::new(1);
    let first = MemberId(1);
    group.step(first, Input::Tick);
    for id in [2, 3] {
        group.newcomer(id);
        group.change(id, &[(id, Place::Learner)]);
    }
    group.change(4, &[(2, Place::Voter), (3, Place::Voter)]);
    group.run_until(|group| (1..=3).all(|id| group.membership(MemberId(id)) == "voters 1 2 3"));
    group.down = vec![MemberId(2), MemberId(3)];
    group.restart(first, 9);
    group.pass(500);
    assert_eq!(group.leader(), None);
}

#[test]
fn messages_that_no_member_would_send_are_ignored() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    let other = (1..=3).map(MemberId).find(|id| *id != leader).unwrap();
    let term = group.members[&leader].term();
    let forge = |kind, from: MemberId, to: MemberId| {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (from.0, to.0, term);
        message
    };
    let mut read = forge(MessageType::MsgReadIndex, other, leader);
    read.term = 0;
    let mut ahead = forge(MessageType::MsgAppendResponse, other, leader);
    ahead.index = 1_000;
    let mut committed = forge(MessageType::MsgHeartbeat, leader, other);
    committed.commit = 1_000;
    let mut gap = forge(MessageType::MsgAppend, leader, other);
    gap.set_entries(vec![Entry { index: 9, term, ..Entry::default() }].into());
    for message in [read, ahead, committed, gap] {
        let (from, to) = (MemberId(message.from), MemberId(message.to));
        group.step(to, Input::Message(from, Message(message)));
    }
    group.propose(1, "a");
    group.run_until(|group| (1..=3).all(|id| group.applied(MemberId(id)) == ["a"]));
}
