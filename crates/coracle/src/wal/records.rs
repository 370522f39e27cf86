//! What the records of the log's file say: the head that it begins with, and batches. Each is sealed for its place.
//!
//! Nothing here knows of files, members' threads or snapshots.

use bytes::Bytes;
use coracle_base::wire::{Damage, Reader, Writer};
use coracle_raft::{EntryKind, HardState, LogEntry, MemberId, Membership, SnapshotMark, SnapshotPointer, WalBatch};

/// What a log is and holds before its first batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Whose log it is.
    pub(super) member: Option<MemberId>,
    /// What the member may not forget; none before it was ever started.
    pub(super) hard_state: Option<HardState>,
    /// The snapshot that the state is loaded from.
    pub(super) snapshot: SnapshotPointer,
    /// The entry before the first.
    pub(super) base: SnapshotMark,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.option(self.member, |w, member| w.number(member.0));
        w.option(self.hard_state, |w, state| put_state(w, &state));
        put_pointer(&mut w, &self.snapshot);
        put_mark(&mut w, self.base);
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let r = &mut Reader::new(bytes);
        let head = Self {
            member: r.option(|r| r.number().map(MemberId))?,
            hard_state: r.option(state)?,
            snapshot: pointer(r)?,
            base: mark(r)?,
        };
        r.finish()?;
        Ok(head)
    }
}

/// The bytes of batches that are written together.
pub(super) fn encode(batches: &[WalBatch]) -> Vec<u8> {
    let mut w = Writer::default();
    w.list(batches, |w, batch| {
        w.byte(batch.restart.into());
        w.list(&batch.entries, |w, entry| {
            w.number(entry.index);
            w.number(entry.term);
            w.byte(entry.kind.number());
            w.bytes(&entry.data);
        });
        w.option(batch.hard_state, |w, state| put_state(w, &state));
        w.option(batch.snapshot.as_ref(), put_pointer);
        w.option(batch.compact_to, Writer::number);
    });
    w.finish()
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<WalBatch>, Damage> {
    let r = &mut Reader::new(bytes);
    let batches = r.list(|r| {
        Ok(WalBatch {
            restart: r.byte()? != 0,
            entries: r.list(entry)?,
            hard_state: r.option(state)?,
            snapshot: r.option(pointer)?,
            compact_to: r.option(Reader::number)?,
        })
    })?;
    r.finish()?;
    Ok(batches)
}

fn entry(r: &mut Reader<'_>) -> Result<LogEntry, Damage> {
    let (index, term) = (r.number()?, r.number()?);
    let kind = EntryKind::from_number(r.byte()?).ok_or("an entry is of no known kind")?;
    Ok(LogEntry { index, term, kind, data: Bytes::copy_from_slice(r.bytes()?) })
}

fn put_state(w: &mut Writer, state: &HardState) {
    for number in [state.term, state.vote, state.commit] {
        w.number(number);
    }
}

fn state(r: &mut Reader<'_>) -> Result<HardState, Damage> {
    Ok(HardState { term: r.number()?, vote: r.number()?, commit: r.number()? })
}

fn put_mark(w: &mut Writer, mark: SnapshotMark) {
    w.number(mark.index);
    w.number(mark.term);
}

fn mark(r: &mut Reader<'_>) -> Result<SnapshotMark, Damage> {
    Ok(SnapshotMark { index: r.number()?, term: r.number()? })
}

fn put_pointer(w: &mut Writer, pointer: &SnapshotPointer) {
    put_mark(w, pointer.mark);
    w.bytes(&pointer.membership.encode());
}

fn pointer(r: &mut Reader<'_>) -> Result<SnapshotPointer, Damage> {
    Ok(SnapshotPointer { mark: mark(r)?, membership: Membership::decode(r.bytes()?)? })
}
