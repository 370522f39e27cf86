//! The rows of the log's file: entries by their index, and beside them what a member may not forget.
//!
//! Each is sealed for its place. Nothing here knows of members, threads or snapshots' files.

use bytes::Bytes;
use coracle_raft::{EntryKind, HardState, LogEntry, MemberId, Membership, SnapshotMark, SnapshotPointer, WalBatch};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::seal::Sealer;

/// The layout of the file; any other is refused. The first had no kinds of entries and no members, the second was not sealed, of
/// the third the entries alone were.
pub(super) const FORMAT: u64 = 4;
pub(super) const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The row of the layout's number: the only one that is not sealed.
const FORMAT_ROW: &str = "format";

/// What a log holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) format: u64,
    pub(super) member: Option<MemberId>,
    pub(super) hard_state: Option<HardState>,
    pub(super) snapshot: SnapshotPointer,
    pub(super) base: SnapshotMark,
    pub(super) entries: Vec<LogEntry>,
}

/// Everything in the log; of a log of another layout only which that is.
pub(super) fn read(database: &Database, sealer: &Sealer) -> Result<Contents, redb::Error> {
    let mut contents = Contents::default();
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(contents),
        Err(error) => return Err(error.into()),
    };
    contents.format = meta.get(FORMAT_ROW)?.map_or(0, |value| big_endian(value.value()));
    if contents.format != FORMAT {
        return Ok(contents);
    }
    let row = |name: &str| meta.get(name)?.map(|value| open_row(sealer, name, value.value())).transpose();
    let numbers = |name: &str| -> Result<Option<Vec<u64>>, redb::Error> {
        Ok(row(name)?.map(|value| value.chunks_exact(8).map(big_endian).collect()))
    };
    contents.member = numbers("member")?.and_then(|n| n.first().copied()).map(MemberId);
    if let Some([term, vote, commit]) = numbers("hard-state")?.as_deref() {
        contents.hard_state = Some(HardState { term: *term, vote: *vote, commit: *commit });
    }
    if let Some(bytes) = row("membership")? {
        contents.snapshot.membership = Membership::decode(&bytes).map_err(damaged)?;
    }
    for (name, mark) in [("snapshot", &mut contents.snapshot.mark), ("base", &mut contents.base)] {
        if let Some([index, term]) = numbers(name)?.as_deref() {
            *mark = SnapshotMark { index: *index, term: *term };
        }
    }
    let entries = transaction.open_table(ENTRIES)?;
    for row in entries.iter()? {
        let (index, value) = row?;
        contents.entries.push(read_entry(index.value(), value.value(), sealer)?);
    }
    Ok(contents)
}

/// Term, kind, and what the entry carries, sealed.
fn read_entry(index: u64, value: &[u8], sealer: &Sealer) -> Result<LogEntry, redb::Error> {
    let read = value.split_first_chunk::<8>().and_then(|(term, rest)| {
        let (kind, sealed) = rest.split_first()?;
        Some((u64::from_be_bytes(*term), EntryKind::from_number(*kind)?, sealed))
    });
    let (term, kind, sealed) = read.ok_or_else(|| damaged(format!("entry {index} has no term or no known kind")))?;
    let data = sealer.open(&place(index, term, kind), sealed);
    let data = data.map_err(|why| damaged(format!("entry {index} cannot be opened: {why}")))?;
    Ok(LogEntry { index, term, kind, data: Bytes::from(data) })
}

fn write_entry(entry: &LogEntry, sealer: &Sealer) -> Vec<u8> {
    let mut value = Vec::with_capacity(entry.data.len() + 64);
    value.extend_from_slice(&entry.term.to_be_bytes());
    value.push(entry.kind.number());
    value.extend_from_slice(&sealer.seal(&place(entry.index, entry.term, entry.kind), &entry.data));
    value
}

/// What an entry is sealed for: none can stand in for another.
fn place(index: u64, term: u64, kind: EntryKind) -> String {
    format!("entry {index} {term} {}", kind.number())
}

/// A row of what is no entry, opened: its name is what it was sealed for.
fn open_row(sealer: &Sealer, name: &str, sealed: &[u8]) -> Result<Vec<u8>, redb::Error> {
    sealer.open(&format!("log {name}"), sealed).map_err(|why| damaged(format!("{name} cannot be opened: {why}")))
}

fn put_row(
    meta: &mut redb::Table<'_, &'static str, &'static [u8]>,
    sealer: &Sealer,
    name: &str,
    plain: &[u8],
) -> Result<(), redb::Error> {
    meta.insert(name, sealer.seal(&format!("log {name}"), plain).as_slice())?;
    Ok(())
}

fn damaged(what: impl std::fmt::Display) -> redb::Error {
    redb::Error::Corrupted(what.to_string())
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

/// Makes a log that has nothing, for this member.
pub(super) fn begin(database: &Database, sealer: &Sealer, member: MemberId) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_ROW, FORMAT.to_be_bytes().as_slice())?;
        put_row(&mut meta, sealer, "member", &numbers(&[member.0]))?;
        transaction.open_table(ENTRIES)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Writes batches, in order and at once.
pub(super) fn commit(database: &Database, sealer: &Sealer, batches: &[WalBatch]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_ROW, FORMAT.to_be_bytes().as_slice())?;
        for batch in batches {
            if let Some(pointer) = &batch.snapshot {
                let mark = numbers(&[pointer.mark.index, pointer.mark.term]);
                put_row(&mut meta, sealer, "snapshot", &mark)?;
                put_row(&mut meta, sealer, "membership", &pointer.membership.encode())?;
                if batch.restart {
                    entries.retain(|_, _| false)?;
                    put_row(&mut meta, sealer, "base", &mark)?;
                }
            }
            if let Some(first) = batch.entries.first() {
                if entries.last()?.is_some_and(|(last, _)| last.value() >= first.index) {
                    entries.retain_in(first.index.., |_, _| false)?;
                }
                for entry in &batch.entries {
                    entries.insert(entry.index, write_entry(entry, sealer).as_slice())?;
                }
            }
            if let Some(state) = batch.hard_state {
                put_row(&mut meta, sealer, "hard-state", &numbers(&[state.term, state.vote, state.commit]))?;
            }
            if let Some(index) = batch.compact_to.filter(|index| *index > 0) {
                let term = entries.get(index)?.map(|value| big_endian(&value.value()[..8]));
                if let Some(term) = term {
                    put_row(&mut meta, sealer, "base", &numbers(&[index, term]))?;
                    entries.retain_in(..=index, |_, _| false)?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Seals every row with the newest key.
pub(super) fn reseal_all(database: &Database, sealer: &Sealer, contents: Contents) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let names: Vec<String> =
            meta.iter()?.map(|row| Ok(row?.0.value().to_owned())).collect::<Result<_, redb::StorageError>>()?;
        for name in names.iter().filter(|name| *name != FORMAT_ROW) {
            let plain = meta.get(name.as_str())?.map(|value| open_row(sealer, name, value.value())).transpose()?;
            put_row(&mut meta, sealer, name, &plain.unwrap_or_default())?;
        }
        let mut entries = transaction.open_table(ENTRIES)?;
        for entry in &contents.entries {
            entries.insert(entry.index, write_entry(entry, sealer).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}
