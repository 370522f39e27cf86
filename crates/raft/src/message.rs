//! Messages between members, and their encoding: our own, so that the `raft` crate and its protobuf types stay inside.

use std::fmt;

use bytes::Bytes;
use coracle_base::wire::{Damage, Reader, Writer};
use raft::eraftpb::{self, ConfState, Entry, EntryType, MessageType, Snapshot};

use crate::{EntryKind, LogEntry, Membership, SnapshotMark};

const FORMAT: u8 = 1;
/// No index and no term comes near this by counting: behind it sums would overflow.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// Every type by its number. What is local to a member is not among them, nor what forwards a proposal or a wish that another may
/// lead: no peer sends that.
const TYPES: [(u8, MessageType); 12] = [
    (3, MessageType::MsgAppend),
    (4, MessageType::MsgAppendResponse),
    (5, MessageType::MsgRequestVote),
    (6, MessageType::MsgRequestVoteResponse),
    (7, MessageType::MsgSnapshot),
    (8, MessageType::MsgHeartbeat),
    (9, MessageType::MsgHeartbeatResponse),
    (14, MessageType::MsgTimeoutNow),
    (15, MessageType::MsgReadIndex),
    (16, MessageType::MsgReadIndexResp),
    (17, MessageType::MsgRequestPreVote),
    (18, MessageType::MsgRequestPreVoteResponse),
];

/// A message between members.
#[derive(Clone, PartialEq)]
pub struct Message(pub(crate) eraftpb::Message);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(message) = self;
        write!(f, "{:?}({} -> {}, term {})", message.get_msg_type(), message.from, message.to, message.term)
    }
}

impl Message {
    /// Whether a member may take this from another.
    pub(crate) fn is_between_members(&self) -> bool {
        TYPES.iter().any(|(_, kind)| *kind == self.0.get_msg_type())
    }

    /// Whether a member could have said this to one whose log ends at `last`.
    pub(crate) fn is_sound(&self, last: u64) -> bool {
        let Self(m) = self;
        // Without a term it would count as this member's own; a forwarded read alone has none.
        let is_of_a_term = match m.get_msg_type() {
            MessageType::MsgReadIndex => m.term == 0,
            _ => (1..NUMBER_MAX).contains(&m.term),
        };
        is_of_a_term && self.is_between_members() && self.says_what_can_be(last)
    }

    fn says_what_can_be(&self, last: u64) -> bool {
        let Self(m) = self;
        match m.get_msg_type() {
            MessageType::MsgAppend => {
                let rises = |pair: &[Entry]| {
                    pair[0].index.checked_add(1) == Some(pair[1].index) && pair[0].term <= pair[1].term
                };
                let follows = |first: &Entry| m.index.checked_add(1) == Some(first.index) && m.log_term <= first.term;
                m.log_term <= m.term
                    && m.entries.first().is_none_or(follows)
                    && m.entries.windows(2).all(rises)
                    && m.entries.last().is_none_or(|last| last.term <= m.term)
            }
            // A log that is shorter than what it once acknowledged was replaced by hand.
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => m.commit <= last,
            // No member asks for a snapshot by a number.
            MessageType::MsgAppendResponse => {
                [m.index, m.reject_hint, m.commit].into_iter().all(|index| index <= last) && m.request_snapshot == 0
            }
            // All stand with the same right.
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                m.priority == 0 && m.deprecated_priority == 0
            }
            MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => m.entries.len() == 1,
            MessageType::MsgSnapshot => {
                let metadata = m.get_snapshot().get_metadata();
                let state = metadata.get_conf_state();
                (1..NUMBER_MAX).contains(&metadata.index)
                    && (1..=m.term).contains(&metadata.term)
                    && !state.auto_leave
                    && Membership::from_raft(state).is_sound()
            }
            _ => true,
        }
    }

    /// Where the snapshot stands that it describes, if it does: the state travels beside.
    pub fn snapshot_mark(&self) -> Option<SnapshotMark> {
        let metadata = self.0.get_snapshot().get_metadata();
        self.is_snapshot().then_some(SnapshotMark { index: metadata.index, term: metadata.term })
    }

    pub(crate) fn is_snapshot(&self) -> bool {
        self.0.get_msg_type() == MessageType::MsgSnapshot
    }

    /// Whether it asks this member to stand for election at once.
    pub(crate) fn asks_to_lead(&self) -> bool {
        self.0.get_msg_type() == MessageType::MsgTimeoutNow
    }

    /// Whether it answers a request for a vote.
    pub(crate) fn is_vote(&self) -> bool {
        matches!(self.0.get_msg_type(), MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse)
    }

    /// The bytes that travel, with a format version.
    pub fn encode(&self) -> Vec<u8> {
        let Self(m) = self;
        let mut w = Writer::default();
        w.byte(FORMAT);
        let known = TYPES.iter().find(|(_, kind)| *kind == m.get_msg_type());
        w.byte(known.expect("members exchange no local messages").0);
        for number in [m.to, m.from, m.term, m.log_term, m.index, m.commit, m.commit_term, m.request_snapshot] {
            w.number(number);
        }
        w.byte(m.reject.into());
        w.number(m.reject_hint);
        w.number(m.deprecated_priority);
        w.signed(m.priority);
        w.bytes(&m.context);
        w.list(m.get_entries(), write_entry);
        w.option(m.snapshot.as_ref(), write_snapshot);
        w.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let r = &mut Reader::new(bytes);
        r.version(FORMAT)?;
        let mut m = eraftpb::Message::default();
        let number = r.byte()?;
        let known = TYPES.iter().find(|(known, _)| *known == number);
        m.set_msg_type(known.ok_or_else(|| format!("{number} is no message between members"))?.1);
        m.to = r.number()?;
        m.from = r.number()?;
        m.term = r.number()?;
        m.log_term = r.number()?;
        m.index = r.number()?;
        m.commit = r.number()?;
        m.commit_term = r.number()?;
        m.request_snapshot = r.number()?;
        m.reject = read_flag(r)?;
        m.reject_hint = r.number()?;
        m.deprecated_priority = r.number()?;
        m.priority = r.signed()?;
        m.context = read_bytes(r)?;
        m.set_entries(r.list(read_entry)?.into());
        m.snapshot = r.option(read_snapshot)?.into();
        r.finish()?;
        Ok(Self(m))
    }
}

fn write_entry(w: &mut Writer, entry: &Entry) {
    let LogEntry { index, term, kind, data } = from_raft(entry);
    w.byte(kind.number());
    w.number(term);
    w.number(index);
    w.bytes(&data);
}

fn read_entry(r: &mut Reader<'_>) -> Result<Entry, Damage> {
    let number = r.byte()?;
    let kind = EntryKind::from_number(number).ok_or_else(|| format!("{number} is no kind of entry"))?;
    let entry = LogEntry { kind, term: r.number()?, index: r.number()?, data: read_bytes(r)? };
    Ok(to_raft(&entry))
}

/// An entry as the log and peers have it. The raft crate wants its own encoding of membership changes in an entry that is
/// proposed; ours is in the context, and it alone leaves the member, so that no parser of that crate reads what peers send.
pub(crate) fn from_raft(entry: &Entry) -> LogEntry {
    let (kind, data) = match entry.get_entry_type() {
        EntryType::EntryNormal => (EntryKind::Normal, &entry.data),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => (EntryKind::Membership, &entry.context),
    };
    LogEntry { index: entry.index, term: entry.term, kind, data: data.clone() }
}

pub(crate) fn to_raft(entry: &LogEntry) -> Entry {
    let mut raft = Entry { index: entry.index, term: entry.term, ..Entry::default() };
    match entry.kind {
        EntryKind::Normal => raft.data = entry.data.clone(),
        EntryKind::Membership => {
            raft.set_entry_type(EntryType::EntryConfChangeV2);
            raft.context = entry.data.clone();
        }
    }
    raft
}

fn write_snapshot(w: &mut Writer, snapshot: &Snapshot) {
    let metadata = snapshot.get_metadata();
    w.number(metadata.index);
    w.number(metadata.term);
    let members = metadata.get_conf_state();
    for ids in [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next] {
        w.list(ids, |w, id| w.number(*id));
    }
    w.byte(members.auto_leave.into());
    w.bytes(&snapshot.data);
}

fn read_snapshot(r: &mut Reader<'_>) -> Result<Snapshot, Damage> {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = r.number()?;
    metadata.term = r.number()?;
    metadata.set_conf_state(ConfState {
        voters: r.list(Reader::number)?,
        learners: r.list(Reader::number)?,
        voters_outgoing: r.list(Reader::number)?,
        learners_next: r.list(Reader::number)?,
        auto_leave: read_flag(r)?,
        ..ConfState::default()
    });
    snapshot.data = read_bytes(r)?;
    Ok(snapshot)
}

fn read_flag(r: &mut Reader<'_>) -> Result<bool, Damage> {
    match r.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{other} is neither yes nor no").into()),
    }
}

fn read_bytes(r: &mut Reader<'_>) -> Result<Bytes, Damage> {
    // A copy of its own: an entry must not keep the whole message in memory.
    r.bytes().map(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use coracle_base::Rng;

    use super::*;

    /// A message with something in every field.
    fn message(kind: MessageType) -> Message {
        let data = Bytes::from_static(b"data");
        let entry = |index, kind| to_raft(&LogEntry { index, term: 7, kind, data: data.clone() });
        let entries = vec![entry(300, EntryKind::Membership), entry(301, EntryKind::Normal)];
        let mut snapshot = Snapshot { data: Bytes::from_static(b"descriptor"), ..Snapshot::default() };
        snapshot.mut_metadata().index = 200;
        snapshot.mut_metadata().term = 6;
        let mut members = ConfState { voters: vec![1, 2], learners: vec![3], auto_leave: true, ..ConfState::default() };
        members.voters_outgoing = vec![4];
        members.learners_next = vec![4];
        snapshot.mut_metadata().set_conf_state(members);
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term, m.log_term, m.index) = (1, 2, 7, 6, 299);
        (m.commit, m.commit_term, m.request_snapshot, m.reject_hint) = (298, 6, 5, 4);
        (m.reject, m.deprecated_priority, m.priority) = (true, 1, -1);
        m.context = Bytes::from_static(b"read");
        m.set_entries(entries.into());
        m.set_snapshot(snapshot);
        Message(m)
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for (_, kind) in TYPES {
            let message = message(kind);
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        let empty = Message({
            let mut m = eraftpb::Message::default();
            m.set_msg_type(MessageType::MsgHeartbeat);
            m
        });
        assert_eq!(Message::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn a_damaged_message_is_an_error_or_another_message() {
        let good = message(MessageType::MsgAppend).encode();
        for length in 0..good.len() {
            assert!(Message::decode(&good[..length]).is_err(), "{length} bytes");
        }
        let mut rng = Rng::seeded(1);
        for _ in 0..2000 {
            let mut bad = good.clone();
            bad[rng.below(good.len() as u64) as usize] = rng.next_u64() as u8;
            let _ = Message::decode(&bad);
        }
    }

    #[test]
    fn what_is_local_to_a_member_is_not_taken_from_another() {
        let mut bytes = message(MessageType::MsgAppend).encode();
        for local in [0, 1, 2, 10, 11, 12, 13, 19] {
            bytes[1] = local;
            let error = Message::decode(&bytes).unwrap_err();
            assert_eq!(error.to_string(), format!("{local} is no message between members"));
        }
    }
}
