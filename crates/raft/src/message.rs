//! Messages between members, and their encoding: our own, so that the `raft` crate and its protobuf types stay inside.

use std::fmt;

use bytes::Bytes;
use coracle_base::wire::{Damage, Reader, Writer};
use raft::eraftpb::{self, ConfState, Entry, EntryType, MessageType, Snapshot};

const FORMAT: u8 = 1;

/// Every type by its number. What is local to a member is not among them, nor what forwards a proposal: no peer sends that.
const TYPES: [(u8, MessageType); 13] = [
    (3, MessageType::MsgAppend),
    (4, MessageType::MsgAppendResponse),
    (5, MessageType::MsgRequestVote),
    (6, MessageType::MsgRequestVoteResponse),
    (7, MessageType::MsgSnapshot),
    (8, MessageType::MsgHeartbeat),
    (9, MessageType::MsgHeartbeatResponse),
    (13, MessageType::MsgTransferLeader),
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
    w.byte(match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    });
    w.number(entry.term);
    w.number(entry.index);
    w.bytes(&entry.data);
    w.bytes(&entry.context);
}

fn read_entry(r: &mut Reader<'_>) -> Result<Entry, Damage> {
    let mut entry = Entry::default();
    entry.set_entry_type(match r.byte()? {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        other => return Err(format!("{other} is no type of entry").into()),
    });
    entry.term = r.number()?;
    entry.index = r.number()?;
    entry.data = read_bytes(r)?;
    entry.context = read_bytes(r)?;
    Ok(entry)
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
        let mut entry = Entry::default();
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        entry.term = 7;
        entry.index = 300;
        entry.data = Bytes::from_static(b"data");
        entry.context = Bytes::from_static(b"context");
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
        m.set_entries(vec![entry.clone(), entry].into());
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
        for local in [0, 1, 2, 10, 11, 12, 19] {
            bytes[1] = local;
            let error = Message::decode(&bytes).unwrap_err();
            assert_eq!(error.to_string(), format!("{local} is no message between members"));
        }
    }
}
