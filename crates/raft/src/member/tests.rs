use super::*;

/// A group in memory whose disks are instant and whose network delivers everything between members that are up.
struct Group {
    now: Now,
    members: BTreeMap<MemberId, Member>,
    disks: BTreeMap<MemberId, Restored>,
    down: Vec<MemberId>,
    /// Whose disk does not answer, and what it owes.
    stuck: Option<MemberId>,
    owed: Option<PersistId>,
    applied: BTreeMap<MemberId, Vec<String>>,
    settled: Vec<(ProposalId, bool)>,
    readable: Vec<ReadId>,
    trace: Vec<String>,
}

impl Group {
    fn new(size: u64) -> Self {
        let ids: Vec<MemberId> = (1..=size).map(MemberId).collect();
        let mut group = Self {
            now: Now::default(),
            members: BTreeMap::new(),
            disks: BTreeMap::new(),
            down: Vec::new(),
            stuck: None,
            owed: None,
            applied: BTreeMap::new(),
            settled: Vec::new(),
            readable: Vec::new(),
            trace: Vec::new(),
        };
        for id in &ids {
            let config = Config { voters: ids.clone(), ..Config::single(*id) };
            group.members.insert(*id, Member::new(group.now, config, None, Rng::seeded(id.0)));
        }
        group
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
                match output {
                    Output::Persist(persist, batch) => {
                        write(self.disks.entry(id).or_default(), &batch);
                        if self.stuck == Some(id) {
                            self.owed = Some(persist);
                        } else {
                            inbox.push_back((id, Input::Persisted(persist)));
                        }
                    }
                    Output::Send { to, message, .. } => inbox.push_back((to, Input::Message(id, message))),
                    Output::Apply { proposal, data, .. } => {
                        self.settled.extend(proposal.map(|proposal| (proposal, true)));
                        self.applied.entry(id).or_default().push(String::from_utf8_lossy(&data).into_owned());
                    }
                    Output::Dropped(proposal) => self.settled.push((proposal, false)),
                    Output::Readable(read) => self.readable.push(read),
                    Output::Unreadable(read) => panic!("{read:?} was turned away"),
                    Output::Leading(_) | Output::Following => {}
                }
            }
        }
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            self.now = self.now.after(Duration::from_millis(10));
            for id in self.members.keys().copied().collect::<Vec<_>>() {
                self.step(id, Input::Tick);
            }
        }
        panic!("it did not happen within 100 s");
    }

    fn leader(&self) -> Option<MemberId> {
        let leads = |(id, member): &(&MemberId, &Member)| member.is_leader() && !self.down.contains(id);
        self.members.iter().find(leads).map(|(id, _)| *id)
    }

    fn applied(&self, id: MemberId) -> Vec<&str> {
        self.applied.get(&id).into_iter().flatten().map(String::as_str).filter(|data| !data.is_empty()).collect()
    }
}

fn write(disk: &mut Restored, batch: &WalBatch) {
    if let Some(first) = batch.entries.first() {
        disk.entries.retain(|entry| entry.index < first.index);
        disk.entries.extend(batch.entries.iter().cloned());
    }
    disk.hard_state = batch.hard_state.unwrap_or(disk.hard_state);
    disk.snapshot = batch.snapshot.unwrap_or(disk.snapshot);
    if let Some(index) = batch.compact_to {
        if let Some(base) = disk.entries.iter().find(|entry| entry.index == index) {
            disk.base = SnapshotMark { index, term: base.term };
        }
        disk.entries.retain(|entry| entry.index > index);
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
                Output::Leading(term) => assert_eq!(term, 1),
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
    let [Output::Persist(id, batch)] = outputs.as_slice() else { panic!("unexpected {outputs:?}") };
    assert_eq!(batch.entries[0].data, "a");
    let outputs = member.step(Now::default(), Input::Persisted(*id));
    assert!(
        matches!(outputs.as_slice(), [Output::Apply { proposal: Some(ProposalId(7)), index: 2, .. }]),
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
    group.step(id, Input::SnapshotSaved { index: 3, term: 1 });
    let restored = group.disks[&id].clone();
    assert_eq!(restored.snapshot, SnapshotMark { index: 3, term: 1 });
    group.members.insert(id, Member::new(group.now, Config::single(id), Some(restored), Rng::seeded(9)));
    group.applied.clear();
    group.step(id, Input::Tick);
    assert_eq!(group.applied(id), ["c"], "a and b are in the snapshot");
    assert_eq!(group.members[&id].term(), 2);
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
    let entry = LogEntry { index: 1, term: 1, data: Bytes::from_static(b"a") };
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
