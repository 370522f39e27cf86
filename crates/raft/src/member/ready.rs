//! What the raft crate has ready, as outputs.

use std::collections::VecDeque;

use raft::StateRole;
use raft::eraftpb::{self, Entry, Snapshot};

use super::{Member, MemberId, Output};
use crate::membership::Step;
use crate::message::from_raft;
use crate::{EntryKind, HardState, LogEntry, Membership, Message, PersistId, SnapshotMark, SnapshotPointer, WalBatch};

impl Member {
    /// Everything that the raft crate has ready, as outputs.
    pub(super) fn collect(&mut self) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            if let Some(soft) = ready.ss() {
                let (role, leader) = (soft.raft_state, soft.leader_id);
                self.role_changed(role);
                self.leader_changed(leader);
            }
            for read in ready.take_read_states() {
                self.reads.answer(&read.request_ctx, read.index);
            }
            let messages = ready.take_messages();
            self.send(messages, None);
            let committed = ready.take_committed_entries();
            self.apply(committed);
            let after = self.persist(&ready);
            let messages = ready.take_persisted_messages();
            self.send(messages, after);
            let number = ready.number();
            self.node.advance_append_async(ready);
            if after.is_none() {
                // Nothing is on its way: it is as durable as it will be. Kept until the next batch, the records of an idle
                // leader's heartbeats would pile up.
                self.node.on_persist_ready(number);
            }
        }
        let applied = self.node.raft.raft_log.applied;
        self.out.extend(self.reads.possible(applied).map(Output::Readable));
    }

    pub(super) fn persisted(&mut self, id: PersistId) {
        let mut number = None;
        while let Some((batch, raft)) = self.persisting.front() {
            if *batch > id {
                break;
            }
            number = Some(*raft);
            self.persisting.pop_front();
        }
        if let Some(number) = number {
            self.node.on_persist_ready(number);
        }
        if let Some((_, index)) = self.installing.take_if(|(batch, _)| *batch <= id) {
            self.node.advance_apply_to(index);
        }
        if self.persisting.is_empty() {
            for Message(vote) in std::mem::take(&mut self.votes) {
                let _ = self.node.step(vote);
            }
        }
    }

    /// Hands over what must be durable; returns the batch that a message of this ready waits for.
    fn persist(&mut self, ready: &raft::Ready) -> Option<PersistId> {
        let mut batch = WalBatch::default();
        let installed = ready.snapshot().get_metadata().index;
        if installed > 0 {
            let pointer = self.install(ready.snapshot());
            batch.restart = true;
            batch.snapshot = Some(pointer);
        }
        if !ready.entries().is_empty() {
            self.node.mut_store().append(ready.entries());
            batch.entries = ready.entries().iter().map(from_raft).collect();
        }
        if let Some(state) = ready.hs() {
            self.node.mut_store().set_hard_state(state.clone());
            self.hard_state = HardState { term: state.term, vote: state.vote, commit: state.commit };
        }
        // A commit index alone need not be durable: it is learned again. But with any entry goes what was committed when it came:
        // the entry that ends a change of the group says that the change was committed, and a member that forgot this would
        // decide with the group from before.
        if ready.must_sync() && self.hard_state != self.written {
            self.written = self.hard_state;
            batch.hard_state = Some(self.hard_state);
        }
        if batch == WalBatch::default() {
            // Nothing to write: it is durable as soon as what was handed over before is.
            if let Some(last) = self.persisting.back_mut() {
                last.1 = ready.number();
            }
        } else {
            let id = self.hand_over(batch);
            self.persisting.push_back((id, ready.number()));
            if installed > 0 {
                self.installing = Some((id, installed));
            }
        }
        self.persisting.back().map(|(id, _)| *id)
    }

    pub(super) fn hand_over(&mut self, batch: WalBatch) -> PersistId {
        let id = self.next_persist;
        self.next_persist = PersistId(id.0 + 1);
        self.out.push(Output::Persist(id, batch));
        id
    }

    /// The log begins anew behind a snapshot of another member.
    fn install(&mut self, snapshot: &Snapshot) -> SnapshotPointer {
        let metadata = snapshot.get_metadata();
        let mark = SnapshotMark { index: metadata.index, term: metadata.term };
        let membership = Membership::from_raft(metadata.get_conf_state());
        let pointer = SnapshotPointer { mark, membership: membership.clone() };
        self.node.mut_store().restart(pointer.clone());
        self.memberships = VecDeque::from([(mark.index, membership.clone())]);
        self.out.push(Output::Install { mark, membership });
        let behind = self.proposals.split_off(&(mark.index + 1, 0));
        let passed = std::mem::replace(&mut self.proposals, behind);
        self.out.extend(passed.into_values().map(Output::Unknown));
        pointer
    }

    /// Hands over messages.
    fn send(&mut self, messages: Vec<eraftpb::Message>, after: Option<PersistId>) {
        for message in messages {
            let (to, message) = (MemberId(message.to), Message(message));
            match message.snapshot_mark() {
                Some(mark) => self.out.push(Output::SendSnapshot { to, message, mark }),
                None => self.out.push(Output::Send { to, message, after }),
            }
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else { return };
        for entry in entries {
            let LogEntry { index, term, kind, data } = from_raft(&entry);
            let proposal = self.settle(index, term);
            match kind {
                EntryKind::Normal => self.out.push(Output::Apply { term, index, proposal, data }),
                EntryKind::Membership => {
                    let membership = self.change(index, &data);
                    self.out.push(Output::Membership { term, index, proposal, membership });
                }
            }
        }
        let begins = self.is_leader() && !self.node.raft.apply_to_current_term();
        self.node.advance_apply_to(last);
        if begins && self.node.raft.apply_to_current_term() {
            // Before this the raft crate dropped reads.
            self.reads.retry();
        }
    }

    /// Which proposal of this member an entry is. Others that were proposed for its index are dropped, and those of an earlier term
    /// behind it: terms never fall along a log.
    fn settle(&mut self, index: u64, term: u64) -> Option<super::ProposalId> {
        let own = self.proposals.remove(&(index, term));
        let passed = self.proposals.extract_if(.., |(at, made), _| *at <= index || *made < term);
        self.out.extend(passed.map(|(_, proposal)| Output::Dropped(proposal)));
        own
    }

    fn change(&mut self, index: u64, data: &[u8]) -> Membership {
        // A committed entry that cannot be read would split the group: stop here rather than go on without it.
        let step = Step::decode(data).expect("a committed change of the group is readable");
        let raft = &mut self.node.raft;
        let stays = self.memberships.back().is_some_and(|(_, now)| now.voters.contains(&self.config.id));
        if step.is_leave() && !stays && raft.state == StateRole::Leader {
            // The raft crate does not bear a leader that is not in the group.
            let term = raft.term;
            raft.become_follower(term, 0);
        }
        let state = self.node.apply_conf_change(&step.to_raft()).expect("a committed change of the group fits it");
        let membership = Membership::from_raft(&state);
        self.memberships.push_back((index, membership.clone()));
        membership
    }
}
