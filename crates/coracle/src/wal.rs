//! The log on disk: one redb file, one fsync a commit, on a thread of its own.
//!
//! What is answered as durable is durable: redb commits with `fdatasync`. Snapshots are files beside it, written whole,
//! synced, renamed, and only then named in the log. Everything but
//! indexes, terms and kinds of entries is sealed; and because a sealed text is bound to its place, these cannot be changed unnoticed.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use coracle_raft::{EntryKind, HardState, MemberId, PersistId, Restored, SnapshotMark, SnapshotPointer, WalBatch};
use coracle_store::{Entry, Store, StoreOptions, View};
use redb::Database;

use crate::brain::Message;
use crate::data_directory::{DataDirectory, MARK, private_directory};
use crate::node::private_file;
use crate::{Error, ErrorKind};

mod records;

use records::{Contents, FORMAT, begin, commit, read, reseal_all};

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

/// Whether a directory was a cluster's before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It gets its keys in this start, or did not get so far in the one before.
    New,
    /// It has them.
    Known,
}

/// What was found at start.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) database: Database,
    /// Whose log it is.
    pub(crate) member: Option<MemberId>,
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
    undamaged(&path, || {
        Database::create(&path).map_err(|source| match source {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                let message = format!("{} is in use by another process", directory.path().display());
                Error::new(ErrorKind::DataDirectory, message)
            }
            other => Error::new(ErrorKind::DataDirectory, format!("cannot open {}", path.display())).because(other),
        })
    })
}

/// Reads a log that may be damaged: redb checks its own pages when it wrote them not in order only, and panics on some that make no
/// sense.
fn undamaged<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let read = std::panic::catch_unwind(AssertUnwindSafe(read));
    read.unwrap_or_else(|_| Err(Error::new(ErrorKind::Corrupt, format!("{} is damaged", path.display()))))
}

/// Everything in a log.
fn contents(database: &Database, directory: &DataDirectory) -> Result<Contents, Error> {
    let path = directory.path().join(LOG);
    undamaged(&path, || {
        let unreadable = || Error::new(ErrorKind::Corrupt, format!("cannot read {}", path.display()));
        read(database, directory.sealer()).map_err(|source| unreadable().because(source))
    })
}

/// Seals everything with the newest key.
pub(crate) fn reseal(directory: &DataDirectory, database: &Database) -> Result<(), Error> {
    let sealer = directory.sealer();
    let failed = |source: redb::Error| {
        let message = format!("cannot seal {} anew", directory.path().join(LOG).display());
        Error::new(ErrorKind::Corrupt, message).because(source)
    };
    let contents = contents(database, directory)?;
    reseal_all(database, sealer, contents).map_err(failed)
}

/// Makes sure that a directory has the log of a member: made for one that is `new`, and there for any other.
pub(crate) fn prepare(directory: &DataDirectory, member: MemberId, life: Life) -> Result<(), Error> {
    let path = directory.path().join(LOG);
    if life == Life::Known && !path.exists() {
        let message = format!("{} is missing: put it back from its copy", path.display());
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    let database = lock(directory)?;
    let contents = contents(&database, directory)?;
    match life {
        Life::New if contents.hard_state.is_some() => {
            let keys = directory.path().join(MARK);
            let message = format!(
                "{} has a log, but its keys are missing: put {} back from its copy",
                directory.path().display(),
                keys.display()
            );
            Err(Error::new(ErrorKind::Corrupt, message))
        }
        Life::Known if contents.format == 0 => {
            Err(Error::new(ErrorKind::Corrupt, format!("{} is empty: put it back from its copy", path.display())))
        }
        Life::Known => Ok(()),
        Life::New => {
            let begun = begin(&database, directory.sealer(), member);
            begun.map_err(|source| {
                Error::new(ErrorKind::DataDirectory, format!("cannot write {}", path.display())).because(source)
            })
        }
    }
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
    let member = pointer.membership.voters.first().copied().expect("a group that begins has a voter");
    let batch = WalBatch { restart: true, snapshot: Some(pointer), hard_state, ..WalBatch::default() };
    let begun =
        begin(database, directory.sealer(), member).and_then(|()| commit(database, directory.sealer(), &[batch]));
    begun.map_err(|source| {
        let message = format!("cannot write {}", directory.path().join(LOG).display());
        Error::new(ErrorKind::DataDirectory, message).because(source)
    })
}

/// Opens the log of a data directory, which is that of this member or, without one, of any, and reads what it holds.
pub(crate) fn open(
    directory: &DataDirectory,
    member: Option<MemberId>,
    options: &StoreOptions,
) -> Result<Found, Error> {
    let path = directory.path().join(LOG);
    let corrupt = |what: String| Error::new(ErrorKind::Corrupt, format!("{} {what}", path.display()));
    let database = lock(directory)?;
    let contents = contents(&database, directory)?;
    if contents.format != FORMAT && contents.format != 0 {
        let age = if contents.format > FORMAT { "a newer" } else { "an unreleased" };
        return Err(corrupt(format!("was written by {age} version of Coracle (format {})", contents.format)));
    }
    if let (Some(asked), Some(found)) = (member, contents.member)
        && asked != found
    {
        let message = format!("is the log of member {}, not of member {}: directories were mixed up", found.0, asked.0);
        return Err(corrupt(message));
    }
    let member = contents.member;
    let Some(hard_state) = contents.hard_state else { return Ok(Found { database, member, store: None, raft: None }) };
    let Contents { snapshot, base, entries, .. } = contents;
    let raft = Restored { hard_state, snapshot, base, entries };
    raft.check().map_err(|why| corrupt("is damaged".into()).because(why))?;
    for entry in raft.entries.iter().filter(|entry| entry.kind == EntryKind::Normal && !entry.data.is_empty()) {
        Entry::check_version(&entry.data)
            .map_err(|source| corrupt(format!("has entry {} of another version", entry.index)).because(source))?;
    }
    let store = match raft.snapshot.mark.index {
        0 => None,
        index => Some(load_snapshot(directory, index, options)?),
    };
    Ok(Found { database, member, store, raft: Some(raft) })
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
                    let why = format!("{} cannot be written: {error}", directory.path().join(LOG).display());
                    let _ = brain.blocking_send(Message::Failed(why));
                    return;
                }
                let _ = brain.blocking_send(Message::Persisted(last));
            }
            Job::Snapshot { index, term, view } => match save_snapshot(directory, index, &view) {
                Ok(()) => {
                    let _ = brain.blocking_send(Message::SnapshotSaved { index, term });
                }
                Err(error) => {
                    tracing::error!(%error, "a snapshot cannot be saved; the log grows until the next try");
                    let _ = brain.blocking_send(Message::SnapshotFailed);
                }
            },
        }
    }
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
mod tests;
