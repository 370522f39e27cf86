//! A cluster that lost its majority for good: one survivor becomes the whole of it.
//!
//! Nothing here runs a member; the directory is changed while no process uses it, and then started as usual.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_engine::{MemberRecord, Wants, found_anew};
use coracle_raft::{EntryKind, MemberId, Membership, Restored, SnapshotMark, SnapshotPointer};
use coracle_store::{Entry, Store, StoreOptions};

use crate::data_directory::{DataDirectory, MARK, member_folders};
use crate::tls::random_token;
use crate::{Error, ErrorKind, wal};

/// What became of a survivor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Which member it was.
    pub member: u64,
    /// The last entry of its log: what the cluster wrote behind it is lost.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The last entry that it knew to be decided. Entries between this and the last are kept: some may have been answered.
    pub commit: u64,
    /// The time of the last entry, RFC 3339: what was written later is lost.
    pub time: String,
    /// The revision that the cluster begins with.
    pub revision: u64,
    /// Where the data of the other members of the same directory lies now.
    pub aside: Option<PathBuf>,
    /// Members of the same directory whose data could not be read, and why.
    pub unreadable: Vec<String>,
}

/// One member's data.
struct Survivor {
    folder: String,
    id: MemberId,
    directory: DataDirectory,
    log: wal::LogFile,
    store: Option<Store>,
    raft: Restored,
}

/// Makes a one-member cluster of what a data directory holds: everything in its log is applied, every other member counts as removed,
/// the cluster gets another incarnation, and its revision jumps, so that clients list again. Where several members share the
/// directory the one with the newest log is taken, or `member`. The other members must never be started again with what they have:
/// they would go on as the cluster that this one was.
///
/// # Errors
///
/// When a process uses the directory, it is none of a cluster's, nothing in it can be read, or it cannot be written. It is as it was then.
pub fn recover(directory: &Path, member: Option<u64>) -> Result<Recovered, Error> {
    if !directory.join(MARK).exists() {
        let message = format!("{} is no data directory of a cluster", directory.display());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let whole = DataDirectory::open(directory, None)?;
    let (mut survivors, mut unreadable) = (Vec::new(), Vec::new());
    for folder in member_folders(directory)? {
        match read(&whole, &folder) {
            Ok(survivor) => survivors.push(survivor),
            Err(error) if error.kind() == ErrorKind::Corrupt && !folder.is_empty() => {
                unreadable.push(format!("{folder}: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(member) = member {
        survivors.retain(|survivor| survivor.id.0 == member);
    }
    let newest = survivors.into_iter().max_by_key(Survivor::last);
    let none = || Error::new(ErrorKind::Invalid, format!("{} has no member that could go on", directory.display()));
    let survivor = newest.ok_or_else(none)?;
    let folder = survivor.folder.clone();
    let mut recovered = found(survivor)?;
    if !folder.is_empty() {
        recovered.aside = move_up(directory, &folder, recovered.revision)?;
    }
    Ok(Recovered { unreadable, ..recovered })
}

fn read(whole: &DataDirectory, folder: &str) -> Result<Survivor, Error> {
    let directory = whole.folder(folder);
    let found = wal::open(&directory, None, &StoreOptions::default())?;
    let nothing = || Error::new(ErrorKind::Corrupt, format!("the log in {} has nothing", directory.path().display()));
    let (id, raft) = found.member.zip(found.raft).ok_or_else(nothing)?;
    Ok(Survivor { folder: folder.to_owned(), id, log: found.log, store: found.store, raft, directory })
}

impl Survivor {
    /// Term and index of the last entry: the log whose last entry has the highest is the newest (Raft, section 5.4.1).
    fn last(&self) -> (u64, u64) {
        let base = (self.raft.base.term, self.raft.base.index);
        self.raft.entries.last().map_or(base, |entry| (entry.term, entry.index))
    }
}

/// Applies all that the log has, and begins a log of one member behind it.
fn found(survivor: Survivor) -> Result<Recovered, Error> {
    let (last_term, index) = survivor.last();
    let survivor_shared = !survivor.folder.is_empty();
    let Survivor { directory, mut log, store, raft, id, .. } = survivor;
    let mut store = store.unwrap_or_else(|| Store::new(StoreOptions::default()));
    for entry in raft.entries.iter().filter(|entry| entry.index > raft.snapshot.mark.index) {
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            let unreadable = |source| {
                let message = format!("entry {} of {} cannot be applied", entry.index, directory.path().display());
                Error::new(ErrorKind::Corrupt, message).because(source)
            };
            store.apply(entry.term, &Entry::decode(&entry.data).map_err(unreadable)?);
        }
    }
    let time = store.view().time();
    // A directory that several members shared becomes that of one, which is the first. A machine's own member stays who it is.
    let first = if survivor_shared { MemberId(1) } else { id };
    let known = MemberRecord::find(&store.view(), id);
    let record =
        known.map_or(MemberRecord::voter(first), |known| MemberRecord { id: first, wants: Wants::Voter, ..known });
    let term = raft.hard_state.term.max(last_term) + 1;
    found_anew(&mut store, term, &record, &random_token()?);
    let mark = SnapshotMark { index: index + 1, term };
    let pointer = SnapshotPointer { mark, membership: Membership::of_voters(&[first]) };
    wal::begin_anew(&directory, &mut log, pointer, &store.view())?;
    Ok(Recovered {
        member: id.0,
        index,
        term: last_term,
        commit: raft.hard_state.commit.max(raft.snapshot.mark.index),
        time: time.rfc3339(),
        revision: store.view().revision().0,
        aside: None,
        unreadable: Vec::new(),
    })
}

/// Brings the survivor's data to where a cluster of one member has it, and puts the others' aside. It can be done again where it was
/// interrupted: the log comes last, and until then the directory is none that a cluster of one member takes.
fn move_up(directory: &Path, folder: &str, revision: u64) -> Result<Option<PathBuf>, Error> {
    let others: Vec<String> = member_folders(directory)?.into_iter().filter(|other| other != folder).collect();
    let aside = directory.join(format!("before-recovery-{revision}"));
    let renamed = |from: &Path, to: &Path| fs::rename(from, to).map_err(|source| Error::file("move", from, source));
    if !others.is_empty() {
        fs::create_dir_all(&aside).map_err(|source| Error::file("create", &aside, source))?;
    }
    for other in &others {
        renamed(&directory.join(other), &aside.join(other))?;
    }
    let from = directory.join(folder);
    let entries = fs::read_dir(&from).map_err(|source| Error::file("read", &from, source))?;
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort_by_key(|name| name == wal::LOG);
    for name in names {
        renamed(&from.join(&name), &directory.join(&name))?;
    }
    fs::remove_dir(&from).map_err(|source| Error::file("delete", &from, source))?;
    let synced = fs::File::open(directory).and_then(|folder| folder.sync_all());
    synced.map_err(|source| Error::file("write", directory, source))?;
    Ok((!others.is_empty()).then_some(aside))
}
