//! The log on disk: one redb file, one fsync a commit, on a thread of its own.
//!
//! What is answered as durable is durable: redb commits with `fdatasync`. Snapshots are files beside it, written whole,
//! synced, renamed, and only then named in the log. What entries and snapshots hold is sealed; indexes, terms and kinds are not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use coracle_raft::{
    EntryKind, HardState, LogEntry, Membership, PersistId, Restored, SnapshotMark, SnapshotPointer, WalBatch,
};
use coracle_store::{Store, StoreOptions, View};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::brain::Message;
use crate::data_directory::{DataDirectory, private_directory};
use crate::node::private_file;
use crate::seal::Sealer;
use crate::{Error, ErrorKind};

/// The layout of the file; any other is refused. The first had no kinds of entries and no members,
/// the second was not sealed.
const FORMAT: u64 = 3;
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// The log's file.
pub(crate) const LOG: &str = "log.redb";
/// Where snapshots are.
const SNAPSHOTS: &str = "snapshots";
/// How many batches are committed together at most.
const BATCHES_PER_COMMIT: usize = 256;

/// What the log's thread is asked for.
#[derive(Debug)]
pub(crate) enum Job {
    /// Make a batch durable.
    Write(PersistId, WalBatch),
    /// Save the state at an index.
    Snapshot {
        /// The index of the last entry in it.
        index: u64,
        /// Its term.
        term: u64,
        /// The state.
        view: View,
    },
}

/// The log's thread. Its queue is bounded by the brain, which has few batches on their way.
#[derive(Debug)]
pub(crate) struct Wal {
    directory: DataDirectory,
    jobs: Sender<Job>,
    done: tokio::sync::oneshot::Receiver<()>,
}

/// The snapshots of a log, as other members get and give them.
#[derive(Debug)]
pub(crate) struct Snapshots {
    directory: DataDirectory,
}

impl Snapshots {
    /// The snapshot of this index, if it is there and whole.
    pub(crate) fn read(&self, index: u64) -> Option<Bytes> {
        self.directory.read(&snapshot_file(index)).ok().flatten().map(Bytes::from)
    }

    /// Keeps a snapshot that another member sent. It counts when the log names it.
    pub(crate) fn write(&self, index: u64, state: &[u8]) -> std::io::Result<()> {
        self.directory.write(&snapshot_file(index), state)
    }
}

/// What was found at start.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) database: Database,
    pub(crate) store: Option<Store>,
    pub(crate) raft: Option<Restored>,
}

impl Wal {
    /// Starts the thread; it tells the brain what is durable.
    pub(crate) fn start(
        directory: DataDirectory,
        database: Database,
        brain: tokio::sync::mpsc::Sender<Message>,
    ) -> Result<Self, Error> {
        let (jobs, queue) = channel();
        let writer = directory.clone();
        let (finished, done) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("coracle-wal".into())
            .spawn(move || {
                run(&writer, &database, &queue, &brain);
                drop(database);
                let _ = finished.send(());
            })
            .map_err(|source| Error::new(ErrorKind::DataDirectory, "cannot start the log's thread").because(source))?;
        Ok(Self { directory, jobs, done })
    }

    /// Hands over a job. When the thread is gone, because the disk failed, the job is dropped and nothing is answered any more.
    pub(crate) fn send(&self, job: Job) {
        let _ = self.jobs.send(job);
    }

    /// The snapshots beside the log.
    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots { directory: self.directory.clone() }
    }

    /// Writes what is queued, and closes the file.
    pub(crate) async fn close(self) {
        drop(self.jobs);
        let _ = self.done.await;
    }
}

/// Opens the log's file, which one process at a time may do.
pub(crate) fn lock(directory: &DataDirectory) -> Result<Database, Error> {
    let path = directory.path().join(LOG);
    private_directory(directory.path()).map_err(|source| Error::file("create", directory.path(), source))?;
    if !path.exists() {
        private_file(&path).map_err(|source| Error::file("create", &path, source))?;
    }
    Database::create(&path).map_err(|source| match source {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            Error::new(ErrorKind::DataDirectory, format!("{} is in use by another process", directory.path().display()))
        }
        other => Error::new(ErrorKind::DataDirectory, format!("cannot open {}", path.display())).because(other),
    })
}

/// Seals every entry with the newest key.
pub(crate) fn reseal(directory: &DataDirectory, database: &Database) -> Result<(), Error> {
    let sealer = directory.sealer();
    let failed = |source: redb::Error| {
        let message = format!("cannot seal {} anew", directory.path().join(LOG).display());
        Error::new(ErrorKind::Corrupt, message).because(source)
    };
    let entries = read(database, sealer).map_err(failed)?.entries;
    commit(database, sealer, &[WalBatch { entries, ..WalBatch::default() }]).map_err(failed)
}

/// Lets a log that no member uses begin behind a state: the snapshot is written first, then one commit names it and gives up
/// everything before.
pub(crate) fn begin_anew(
    directory: &DataDirectory,
    database: &Database,
    pointer: SnapshotPointer,
    state: &View,
) -> Result<(), Error> {
    let SnapshotMark { index, term } = pointer.mark;
    let file = directory.path().join(snapshot_file(index));
    save_snapshot(directory, index, state).map_err(|source| Error::file("write", &file, source))?;
    let hard_state = Some(HardState { term, vote: 0, commit: index });
    let batch = WalBatch { restart: true, snapshot: Some(pointer), hard_state, ..WalBatch::default() };
    commit(database, directory.sealer(), &[batch]).map_err(|source| {
        let message = format!("cannot write {}", directory.path().join(LOG).display());
        Error::new(ErrorKind::DataDirectory, message).because(source)
    })
}

/// Opens the log of a data directory, and reads what it holds.
pub(crate) fn open(directory: &DataDirectory, options: &StoreOptions) -> Result<Found, Error> {
    let path = directory.path().join(LOG);
    let database = lock(directory)?;
    let corrupt =
        |source: redb::Error| Error::new(ErrorKind::Corrupt, format!("cannot read {}", path.display())).because(source);
    let contents = read(&database, directory.sealer()).map_err(corrupt)?;
    if contents.format != FORMAT && contents.format != 0 {
        let age = if contents.format > FORMAT { "a newer" } else { "an unreleased" };
        let message =
            format!("{} was written by {age} version of Coracle (format {})", path.display(), contents.format);
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    if contents.hard_state.is_none() {
        return Ok(Found { database, store: None, raft: None });
    }
    let store = match contents.snapshot.mark.index {
        0 => None,
        index => Some(load_snapshot(directory, index, options)?),
    };
    check(&contents, &path)?;
    let raft = Restored {
        hard_state: contents.hard_state.unwrap_or_default(),
        snapshot: contents.snapshot,
        base: contents.base,
        entries: contents.entries,
    };
    Ok(Found { database, store, raft: Some(raft) })
}

#[derive(Debug, Default)]
struct Contents {
    format: u64,
    hard_state: Option<HardState>,
    snapshot: SnapshotPointer,
    base: SnapshotMark,
    entries: Vec<LogEntry>,
}

fn read(database: &Database, sealer: &Sealer) -> Result<Contents, redb::Error> {
    let mut contents = Contents::default();
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(contents),
        Err(error) => return Err(error.into()),
    };
    let numbers = |name: &str| -> Result<Option<Vec<u64>>, redb::Error> {
        Ok(meta.get(name)?.map(|value| value.value().chunks_exact(8).map(big_endian).collect()))
    };
    contents.format = numbers("format")?.and_then(|n| n.first().copied()).unwrap_or(0);
    if let Some([term, vote, commit]) = numbers("hard-state")?.as_deref() {
        contents.hard_state = Some(HardState { term: *term, vote: *vote, commit: *commit });
    }
    if contents.format != FORMAT {
        return Ok(contents);
    }
    if let Some(bytes) = meta.get("membership")? {
        contents.snapshot.membership = Membership::decode(bytes.value()).map_err(damaged)?;
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

fn damaged(what: impl std::fmt::Display) -> redb::Error {
    redb::Error::Corrupted(what.to_string())
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

/// A log with a gap must not reach consensus, which would panic on it.
fn check(contents: &Contents, path: &Path) -> Result<(), Error> {
    let mut expected = contents.base.index + 1;
    for entry in &contents.entries {
        if entry.index != expected {
            let message = format!("{} has entry {} where {expected} should be", path.display(), entry.index);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        expected += 1;
    }
    let committed = contents.hard_state.unwrap_or_default().commit.max(contents.snapshot.mark.index);
    if committed >= expected {
        let message = format!("{} ends before entry {committed}, which was committed", path.display());
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(())
}

fn run(
    directory: &DataDirectory,
    database: &Database,
    queue: &Receiver<Job>,
    brain: &tokio::sync::mpsc::Sender<Message>,
) {
    let mut held = None;
    while let Some(job) = held.take().or_else(|| queue.recv().ok()) {
        match job {
            Job::Write(first, batch) => {
                let (mut last, mut batches) = (first, vec![batch]);
                while batches.len() < BATCHES_PER_COMMIT {
                    match queue.try_recv() {
                        Ok(Job::Write(id, batch)) => {
                            last = id;
                            batches.push(batch);
                        }
                        Ok(other) => {
                            held = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                if let Err(error) = commit(database, directory.sealer(), &batches) {
                    // Nothing that follows may be called durable: the thread ends, and every write waits in vain.
                    tracing::error!(%error, "the log cannot be written; no write is answered any more");
                    return;
                }
                let _ = brain.blocking_send(Message::Persisted(last));
            }
            Job::Snapshot { index, term, view } => match save_snapshot(directory, index, &view) {
                Ok(()) => {
                    let _ = brain.blocking_send(Message::SnapshotSaved { index, term });
                }
                Err(error) => tracing::error!(%error, "a snapshot cannot be saved; the log keeps growing"),
            },
        }
    }
}

fn commit(database: &Database, sealer: &Sealer, batches: &[WalBatch]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT.to_be_bytes().as_slice())?;
        for batch in batches {
            if let Some(pointer) = &batch.snapshot {
                let mark = numbers(&[pointer.mark.index, pointer.mark.term]);
                meta.insert("snapshot", mark.as_slice())?;
                meta.insert("membership", pointer.membership.encode().as_slice())?;
                if batch.restart {
                    entries.retain(|_, _| false)?;
                    meta.insert("base", mark.as_slice())?;
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
                meta.insert("hard-state", numbers(&[state.term, state.vote, state.commit]).as_slice())?;
            }
            if let Some(index) = batch.compact_to.filter(|index| *index > 0) {
                let term = entries.get(index)?.map(|value| big_endian(&value.value()[..8]));
                if let Some(term) = term {
                    meta.insert("base", numbers(&[index, term]).as_slice())?;
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

fn snapshot_file(index: u64) -> String {
    format!("{SNAPSHOTS}/{index:020}.snapshot")
}

/// Sealed as a whole: written beside, synced, renamed, and the folder synced.
fn save_snapshot(directory: &DataDirectory, index: u64, view: &View) -> std::io::Result<()> {
    let file = snapshot_file(index);
    directory.write(&file, &view.snapshot())?;
    remove_older(&directory.path().join(SNAPSHOTS), &directory.path().join(file))
}

/// The one before is kept too: the log names it until the next commit.
fn remove_older(folder: &Path, newest: &Path) -> std::io::Result<()> {
    let mut others: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path != newest && path.extension().is_some_and(|extension| extension == "snapshot"))
        .collect();
    others.sort();
    others.pop();
    others.iter().try_for_each(fs::remove_file)
}

fn load_snapshot(directory: &DataDirectory, index: u64, options: &StoreOptions) -> Result<Store, Error> {
    let file = snapshot_file(index);
    let corrupt =
        |what: &str| Error::new(ErrorKind::Corrupt, format!("{} is {what}", directory.path().join(&file).display()));
    let bytes = directory.read(&file)?.ok_or_else(|| corrupt("missing"))?;
    Store::restore(options.clone(), &bytes).map_err(|source| corrupt("damaged").because(source))
}

#[cfg(test)]
mod tests {
    use coracle_raft::MemberId;

    use super::*;

    fn directory() -> (tempfile::TempDir, DataDirectory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), None).unwrap();
        (folder, directory)
    }

    fn entry(index: u64, data: &'static str) -> LogEntry {
        LogEntry { index, term: 1, data: Bytes::from_static(data.as_bytes()), ..LogEntry::default() }
    }

    fn batch(entries: Vec<LogEntry>) -> WalBatch {
        let commit = entries.last().map_or(0, |entry| entry.index);
        WalBatch { entries, hard_state: Some(HardState { term: 1, vote: 1, commit }), ..WalBatch::default() }
    }

    #[test]
    fn what_was_committed_is_found_again() {
        let (_folder, directory) = directory();
        let found = open(&directory, &StoreOptions::default()).unwrap();
        assert!(found.raft.is_none());
        commit(
            &found.database,
            directory.sealer(),
            &[batch(vec![entry(1, "a"), entry(2, "b")]), batch(vec![entry(2, "c"), entry(3, "d")])],
        )
        .unwrap();
        drop(found);
        let found = open(&directory, &StoreOptions::default()).unwrap();
        assert_eq!(found.raft.unwrap().entries, [entry(1, "a"), entry(2, "c"), entry(3, "d")]);
    }

    #[test]
    fn a_log_comes_to_what_its_batches_say() {
        let (_folder, directory) = directory();
        let found = open(&directory, &StoreOptions::default()).unwrap();
        let mark = SnapshotMark { index: 7, term: 2 };
        let membership = Membership { learners: vec![MemberId(4)], ..Membership::of_voters(&[MemberId(1)]) };
        let change = LogEntry { kind: EntryKind::Membership, ..entry(4, "change") };
        let batches = [
            batch(vec![entry(1, "a"), entry(2, "b")]),
            batch(vec![entry(2, "c"), entry(3, "d"), change]),
            WalBatch { compact_to: Some(2), ..batch(Vec::new()) },
            WalBatch {
                restart: true,
                snapshot: Some(SnapshotPointer { mark, membership }),
                ..batch(vec![entry(8, "e"), entry(9, "f")])
            },
        ];
        let mut expected = Restored::default();
        save_snapshot(&directory, 7, &Store::new(StoreOptions::default()).view()).unwrap();
        let mut database = found.database;
        for batch in batches {
            commit(&database, directory.sealer(), std::slice::from_ref(&batch)).unwrap();
            expected.write(batch);
            expected.hard_state.commit = expected.hard_state.commit.max(expected.snapshot.mark.index);
            drop(database);
            let found = open(&directory, &StoreOptions::default()).unwrap();
            let mut raft = found.raft.unwrap();
            raft.hard_state.commit = raft.hard_state.commit.max(raft.snapshot.mark.index);
            assert_eq!(raft, expected);
            database = found.database;
        }
    }

    #[test]
    fn a_log_of_another_format_is_refused_with_a_sentence() {
        for (format, words) in [(1_u64, "an unreleased version"), (2, "an unreleased version"), (4, "a newer version")]
        {
            let (_folder, directory) = directory();
            let found = open(&directory, &StoreOptions::default()).unwrap();
            commit(&found.database, directory.sealer(), &[batch(vec![entry(1, "a")])]).unwrap();
            let transaction = found.database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("format", format.to_be_bytes().as_slice()).unwrap();
            transaction.commit().unwrap();
            drop(found);
            let error = open(&directory, &StoreOptions::default()).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_user_may_read_what_may_hold_secrets() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, directory) = directory();
        let _found = open(&directory, &StoreOptions::default()).unwrap();
        save_snapshot(&directory, 2, &Store::new(StoreOptions::default()).view()).unwrap();
        for path in [directory.path().join("log.redb"), directory.path().join(snapshot_file(2))] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
    }

    #[test]
    fn after_a_rotation_everything_is_read_with_the_new_key_alone() {
        let (folder, directory) = directory();
        let found = open(&directory, &StoreOptions::default()).unwrap();
        commit(&found.database, directory.sealer(), &[batch(vec![entry(1, "a"), entry(2, "b")])]).unwrap();
        save_snapshot(&directory, 1, &Store::new(StoreOptions::default()).view()).unwrap();
        directory.kept("ca.key", || Ok("secret".into())).unwrap();
        let in_use = crate::rotate_keys(folder.path()).unwrap_err();
        assert!(in_use.to_string().ends_with("is in use by another process"), "{in_use}");
        drop(found);
        crate::rotate_keys(folder.path()).unwrap();
        let rotated = DataDirectory::open(folder.path(), None).unwrap();
        let found = open(&rotated, &StoreOptions::default()).unwrap();
        assert_eq!(found.raft.unwrap().entries, [entry(1, "a"), entry(2, "b")]);
        load_snapshot(&rotated, 1, &StoreOptions::default()).unwrap();
        assert_eq!(rotated.read("ca.key").unwrap().unwrap(), b"secret");
        assert!(directory.read("ca.key").is_err(), "the old key opens nothing any more");
    }

    #[test]
    fn a_directory_in_use_is_said_to_be_so() {
        let (_folder, directory) = directory();
        let _found = open(&directory, &StoreOptions::default()).unwrap();
        let error = open(&directory, &StoreOptions::default()).unwrap_err();
        assert!(error.to_string().ends_with("is in use by another process"), "{error}");
    }

    #[test]
    fn a_snapshot_stands_for_the_log_before_it() {
        let (_folder, directory) = directory();
        let store = Store::new(StoreOptions::default());
        save_snapshot(&directory, 2, &store.view()).unwrap();
        let found = open(&directory, &StoreOptions::default()).unwrap();
        commit(&found.database, directory.sealer(), &[batch(vec![entry(1, "a"), entry(2, "b"), entry(3, "c")])])
            .unwrap();
        let mark = SnapshotMark { index: 2, term: 1 };
        let pointer = SnapshotPointer { mark, membership: Membership::of_voters(&[MemberId(1)]) };
        let compacted = WalBatch { snapshot: Some(pointer.clone()), compact_to: Some(2), ..WalBatch::default() };
        commit(&found.database, directory.sealer(), &[compacted]).unwrap();
        drop(found);
        let found = open(&directory, &StoreOptions::default()).unwrap();
        assert!(found.store.is_some());
        let raft = found.raft.unwrap();
        assert_eq!((raft.base, raft.snapshot, raft.entries), (mark, pointer, vec![entry(3, "c")]));
        let path = directory.path().join(snapshot_file(2));
        fs::write(&path, b"short").unwrap();
        let error = load_snapshot(&directory, 2, &StoreOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open {}", path.display()));
    }

    #[test]
    fn what_is_on_disk_tells_nothing_and_a_changed_entry_is_noticed() {
        let (_folder, directory) = directory();
        let found = open(&directory, &StoreOptions::default()).unwrap();
        commit(&found.database, directory.sealer(), &[batch(vec![entry(1, "a Secret")])]).unwrap();
        let transaction = found.database.begin_write().unwrap();
        {
            let mut entries = transaction.open_table(ENTRIES).unwrap();
            let mut value = entries.get(1).unwrap().unwrap().value().to_vec();
            assert!(!value.windows(8).any(|window| window == b"a Secret"));
            *value.last_mut().unwrap() ^= 1;
            entries.insert(1, value.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        drop(found);
        let error = open(&directory, &StoreOptions::default()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("entry 1 cannot be opened: it is damaged"), "{cause}");
    }
}
