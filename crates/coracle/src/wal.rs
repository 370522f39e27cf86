//! The log on disk: one file, one fsync for all batches that wait, on a thread of its own.
//!
//! What is answered as durable is durable. Snapshots are files beside it, written whole,
//! synced, renamed, and only then named in the log. Everything is sealed, and bound to its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use coracle_raft::{EntryKind, HardState, MemberId, PersistId, Restored, SnapshotMark, SnapshotPointer, WalBatch};
use coracle_store::{Entry, Store, StoreOptions, View};
use tokio::sync::oneshot;

use crate::brain::Message;
use crate::data_directory::{DataDirectory, MARK};
use crate::{Error, ErrorKind};

mod file;
mod records;

pub(crate) use file::LogFile;
use file::{Contents, FORMAT, ReadError};
use records::Head;

/// The log's file.
pub(crate) const LOG: &str = "raft.log";
/// Where snapshots are.
const SNAPSHOTS: &str = "snapshots";
/// How many batches are committed together at most.
const BATCHES_PER_COMMIT: usize = 256;

/// The state at an index, to be saved.
#[derive(Debug)]
pub(crate) struct Saving {
    /// The index of the last entry in it.
    pub(crate) index: u64,
    /// Its term.
    pub(crate) term: u64,
    /// The state.
    pub(crate) view: View,
}

/// The log's thread, and another that saves snapshots: a large state takes seconds, which no write waits for. The queues are bounded
/// by the brain, which has few batches and one snapshot on their way.
#[derive(Debug)]
pub(crate) struct Wal {
    directory: DataDirectory,
    batches: Sender<(PersistId, WalBatch)>,
    snapshots: Sender<Saving>,
    done: [oneshot::Receiver<()>; 2],
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
    pub(crate) log: LogFile,
    /// Whose log it is.
    pub(crate) member: Option<MemberId>,
    pub(crate) store: Option<Store>,
    pub(crate) raft: Option<Restored>,
}

impl Wal {
    /// Starts the threads; they tell the brain what is durable.
    pub(crate) fn start(
        directory: DataDirectory,
        mut log: LogFile,
        brain: tokio::sync::mpsc::Sender<Message>,
    ) -> Result<Self, Error> {
        let ((batches, to_write), (snapshots, to_save)) = (channel(), channel());
        let (writer, saver, told) = (directory.clone(), directory.clone(), brain.clone());
        let written = thread("coracle-wal", move || {
            run(&writer, &mut log, &to_write, &brain);
            drop(log);
        })?;
        let saved = thread("coracle-snapshots", move || save(&saver, &to_save, &told))?;
        Ok(Self { directory, batches, snapshots, done: [written, saved] })
    }

    /// Hands over a batch. When the thread is gone, because the disk failed, it is dropped and nothing is answered any more.
    pub(crate) fn write(&self, id: PersistId, batch: WalBatch) {
        let _ = self.batches.send((id, batch));
    }

    /// Hands over a state.
    pub(crate) fn save(&self, saving: Saving) {
        let _ = self.snapshots.send(saving);
    }

    /// The snapshots beside the log.
    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots { directory: self.directory.clone() }
    }

    /// Writes what is queued, and closes the file. A snapshot that is being saved is waited for: the next start may save another.
    pub(crate) async fn close(self) {
        drop((self.batches, self.snapshots));
        for done in self.done {
            let _ = done.await;
        }
    }
}

/// Starts a thread, and tells when it ends.
fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<oneshot::Receiver<()>, Error> {
    let (finished, done) = oneshot::channel();
    let work = move || {
        work();
        let _ = finished.send(());
    };
    let started = std::thread::Builder::new().name(name.into()).spawn(work);
    let failed =
        |source| Error::new(ErrorKind::DataDirectory, format!("cannot start the thread {name}")).because(source);
    started.map(|_| done).map_err(failed)
}

/// Takes the log's file, which one process at a time may do.
pub(crate) fn lock(directory: &DataDirectory) -> Result<LogFile, Error> {
    let path = directory.path().join(LOG);
    let locked = LogFile::lock(&path).map_err(|source| Error::file("open", &path, source))?;
    locked.ok_or_else(|| {
        let message = format!("{} is in use by another process", directory.path().display());
        Error::new(ErrorKind::DataDirectory, message)
    })
}

/// Everything in a log; `None` when it has nothing.
fn contents(log: &mut LogFile, directory: &DataDirectory) -> Result<Option<Contents>, Error> {
    let path = directory.path().join(LOG);
    log.read(directory.sealer()).map_err(|source| match source {
        ReadError::Format(format) => {
            let age = if format > FORMAT { "a newer" } else { "an unreleased" };
            let message = format!("{} was written by {age} version of Coracle (format {format})", path.display());
            Error::new(ErrorKind::Corrupt, message)
        }
        ReadError::Io(source) => Error::file("read", &path, source),
        ReadError::Damaged(_) => {
            Error::new(ErrorKind::Corrupt, format!("cannot read {}", path.display())).because(source)
        }
    })
}

/// Seals everything with the newest key.
pub(crate) fn reseal(directory: &DataDirectory, log: &mut LogFile) -> Result<(), Error> {
    let Some(contents) = contents(log, directory)? else { return Ok(()) };
    log.reseal(directory.sealer(), contents).map_err(|source| {
        let message = format!("cannot seal {} anew", directory.path().join(LOG).display());
        Error::new(ErrorKind::DataDirectory, message).because(source)
    })
}

/// Makes sure that a directory has the log of a member: made for one that is `new`, and there for any other.
pub(crate) fn prepare(directory: &DataDirectory, member: MemberId, life: Life) -> Result<(), Error> {
    let path = directory.path().join(LOG);
    if life == Life::Known && !path.exists() {
        let message = format!("{} is missing: put it back from its copy", path.display());
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    let mut log = lock(directory)?;
    let contents = contents(&mut log, directory)?;
    match life {
        Life::New if contents.as_ref().is_some_and(|contents| contents.head.hard_state.is_some()) => {
            let keys = directory.path().join(MARK);
            let message = format!(
                "{} has a log, but its keys are missing: put {} back from its copy",
                directory.path().display(),
                keys.display()
            );
            Err(Error::new(ErrorKind::Corrupt, message))
        }
        Life::Known if contents.is_none() => {
            Err(Error::new(ErrorKind::Corrupt, format!("{} is empty: put it back from its copy", path.display())))
        }
        Life::Known => Ok(()),
        Life::New => {
            let begun = log.begin(directory.sealer(), Head { member: Some(member), ..Head::default() });
            begun.map_err(|source| Error::file("write", &path, source))
        }
    }
}

/// Lets a log that no member uses begin behind a state: the snapshot is written first, then a log that names it takes the place of
/// what was there before.
pub(crate) fn begin_anew(
    directory: &DataDirectory,
    log: &mut LogFile,
    pointer: SnapshotPointer,
    state: &View,
) -> Result<(), Error> {
    let SnapshotMark { index, term } = pointer.mark;
    let file = directory.path().join(snapshot_file(index));
    save_snapshot(directory, index, state).map_err(|source| Error::file("write", &file, source))?;
    let member = pointer.membership.voters.first().copied();
    let hard_state = Some(HardState { term, vote: 0, commit: index });
    let head = Head { member, hard_state, base: pointer.mark, snapshot: pointer };
    let begun = log.begin(directory.sealer(), head);
    begun.map_err(|source| Error::file("write", &directory.path().join(LOG), source))
}

/// Opens the log of a data directory, which is that of this member or, without one, of any, and reads what it holds.
pub(crate) fn open(
    directory: &DataDirectory,
    member: Option<MemberId>,
    options: &StoreOptions,
) -> Result<Found, Error> {
    let path = directory.path().join(LOG);
    let corrupt = |what: String| Error::new(ErrorKind::Corrupt, format!("{} {what}", path.display()));
    let mut log = lock(directory)?;
    let Some(Contents { head, log: raft }) = contents(&mut log, directory)? else {
        return Ok(Found { log, member: None, store: None, raft: None });
    };
    if let (Some(asked), Some(found)) = (member, head.member)
        && asked != found
    {
        let message = format!("is the log of member {}, not of member {}: directories were mixed up", found.0, asked.0);
        return Err(corrupt(message));
    }
    let member = head.member;
    if head.hard_state.is_none() {
        return Ok(Found { log, member, store: None, raft: None });
    }
    raft.check().map_err(|why| corrupt("is damaged".into()).because(why))?;
    for entry in raft.entries.iter().filter(|entry| entry.kind == EntryKind::Normal && !entry.data.is_empty()) {
        Entry::check_version(&entry.data)
            .map_err(|source| corrupt(format!("has entry {} of another version", entry.index)).because(source))?;
    }
    let store = match raft.snapshot.mark.index {
        0 => None,
        index => Some(load_snapshot(directory, index, options)?),
    };
    Ok(Found { log, member, store, raft: Some(raft) })
}

fn run(
    directory: &DataDirectory,
    log: &mut LogFile,
    queue: &Receiver<(PersistId, WalBatch)>,
    brain: &tokio::sync::mpsc::Sender<Message>,
) {
    while let Ok((mut last, batch)) = queue.recv() {
        let mut batches = vec![batch];
        while batches.len() < BATCHES_PER_COMMIT
            && let Ok((id, batch)) = queue.try_recv()
        {
            last = id;
            batches.push(batch);
        }
        if let Err(error) = log.commit(directory.sealer(), &batches) {
            // Nothing that follows may be called durable: the thread ends, and every write waits in vain.
            let why = format!("{} cannot be written: {error}", directory.path().join(LOG).display());
            let _ = brain.blocking_send(Message::Failed(why));
            return;
        }
        let _ = brain.blocking_send(Message::Persisted(last));
    }
}

fn save(directory: &DataDirectory, queue: &Receiver<Saving>, brain: &tokio::sync::mpsc::Sender<Message>) {
    while let Ok(Saving { index, term, view }) = queue.recv() {
        let told = match save_snapshot(directory, index, &view) {
            Ok(()) => Message::SnapshotSaved { index, term },
            Err(error) => {
                tracing::error!(%error, "a snapshot cannot be saved; the log grows until the next try");
                Message::SnapshotFailed
            }
        };
        let _ = brain.blocking_send(told);
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
