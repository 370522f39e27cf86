//! Which messages of other members this one lets near the raft crate, which trusts what it is given and panics where it was deceived.
//! It only looks; what is refused counts as lost on the way.

use raft::GetEntriesContext;
use raft::eraftpb::{self, MessageType};

use super::{EntryKind, LogEntry, Member, MemberId, Message};
use crate::membership::Step;
use crate::message::from_raft;

impl Member {
    /// Whether a message is from whom it was received, for this member, and can be taken as it stands now.
    pub(super) fn bears(&self, from: MemberId, message: &Message) -> bool {
        let raft = &self.node.raft;
        message.0.from == from.0
            && message.0.to == self.config.id.0
            && message.is_sound(raft.raft_log.last_index())
            && (message.0.get_msg_type() != MessageType::MsgAppend || self.bears_entries(message))
    }

    fn bears_entries(&self, Message(m): &Message) -> bool {
        let log = &self.node.raft.raft_log;
        // Terms never fall along a log: what follows a committed entry is of its term or a later one.
        let falls = m.index >= log.committed && log.term(log.committed).is_ok_and(|term| m.log_term < term);
        !falls && self.bears_changes(m)
    }

    /// Whether the group can take each change that would be appended, after those that are still to be applied.
    fn bears_changes(&self, m: &eraftpb::Message) -> bool {
        let log = &self.node.raft.raft_log;
        let is_change = |entry: &LogEntry| entry.kind == EntryKind::Membership;
        let mut new = m.entries.iter().map(from_raft).filter(is_change).peekable();
        if new.peek().is_none() || !log.match_term(m.index, m.log_term) {
            return true; // nothing to look at, or nothing that would be appended
        }
        if self.installing.is_some() {
            return false; // who is in the group is not known yet
        }
        let waiting = if log.applied < m.index {
            log.slice(log.applied + 1, m.index + 1, None, GetEntriesContext::empty(false)).unwrap_or_default()
        } else {
            Vec::new()
        };
        let waiting = waiting.iter().map(from_raft).filter(is_change);
        let new = new.filter(|entry| entry.index > log.applied);
        let mut group = self.membership().clone();
        waiting.chain(new).all(|entry| {
            let after = Step::decode(&entry.data).ok().and_then(|step| group.after(&step));
            after.map(|after| group = after).is_some()
        })
    }
}
