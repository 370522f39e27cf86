//! Reading backups: what is in one, and a data directory that begins with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use coracle_engine::{ClusterRecord, MemberRecord, found_anew};
use coracle_raft::{MemberId, Membership, SnapshotMark, SnapshotPointer};
use coracle_store::{Store, StoreOptions};

use super::{BackupKey, Contents, Head, Protection, open_contents};
use crate::data_directory::{DataDirectory, delete_data, key_file};
use crate::identity::Identity;
use crate::tls::random_token;
use crate::{Error, ErrorKind, wal};

/// What the only member of a cluster that was restored is called.
const FIRST: MemberId = MemberId(1);

/// What a backup holds. Everything in it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupSummary {
    /// The layout of the file.
    pub format: u8,
    /// When it was saved, RFC 3339.
    pub saved_at: String,
    /// The version of Coracle that saved it.
    pub version: String,
    /// The file of keys that it is sealed with, where that was; none for a passphrase.
    pub key_file: Option<PathBuf>,
    /// Which cluster: the uid of its namespace `kube-system`.
    pub cluster: String,
    /// Which life of the cluster: empty for the first, another text after each restore or recovery.
    pub incarnation: String,
    /// The state's revision: the `resourceVersion` of a list then.
    pub revision: u64,
    /// The index of the last entry of the log that is in the state.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The time of that entry, RFC 3339.
    pub time: String,
    /// How many objects there are, by resource (`deployments.apps`).
    pub objects: BTreeMap<String, usize>,
}

/// Says what is in a backup, and that all of it is whole.
///
/// # Errors
///
/// When the file cannot be read, is no backup, is of a newer version, is damaged or cut off, or the key does not open it.
pub fn inspect_backup(file: &Path, key: &BackupKey) -> Result<BackupSummary, Error> {
    read(file, key).map(|(summary, ..)| summary)
}

/// Makes a data directory in which the cluster of a backup begins again with one member: with the same authority, tokens and objects,
/// another incarnation, and a revision that no client has seen. The directory gets a key of its own, in `key_directory` or beside
/// the data; it appears whole or not at all.
///
/// # Errors
///
/// As [`inspect_backup`], and when the directory is there already and not empty, or cannot be written.
pub fn restore_backup(
    file: &Path,
    key: &BackupKey,
    directory: &Path,
    key_directory: Option<&Path>,
) -> Result<BackupSummary, Error> {
    let occupied = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        let message = format!("{} is not empty: restore into a directory that is not there yet", directory.display());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let (summary, contents, store) = read(file, key)?;
    let mut name = directory.as_os_str().to_owned();
    name.push(".unfinished");
    let unfinished = PathBuf::from(name);
    discard(&unfinished);
    let built = build(&unfinished, key_directory, &contents, store).and_then(|()| {
        fs::rename(&unfinished, directory).map_err(|source| Error::file("create", directory, source))?;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = fs::File::open(parent).and_then(|folder| folder.sync_all());
        synced.map_err(|source| Error::file("write", parent, source))
    });
    if built.is_err() {
        discard(&unfinished);
    }
    built.map(|()| summary)
}

fn build(at: &Path, key_directory: Option<&Path>, contents: &Contents, mut store: Store) -> Result<(), Error> {
    let directory = DataDirectory::open(at, key_directory)?;
    let mut log = wal::lock(&directory)?;
    let term = contents.term + 1;
    found_anew(&mut store, term, &MemberRecord::voter(FIRST), &random_token()?);
    let mark = SnapshotMark { index: contents.index + 1, term };
    let pointer = SnapshotPointer { mark, membership: Membership::of_voters(&[FIRST]) };
    wal::begin_anew(&directory, &mut log, pointer, &store.view())?;
    Identity::restore(&directory, &contents.identity)
}

/// Deletes what an interrupted restore left: the name is used for nothing else.
fn discard(unfinished: &Path) {
    let keys = key_file(unfinished).ok().flatten();
    if delete_data(unfinished).is_err() {
        let _ = fs::remove_dir_all(unfinished);
        if let Some(keys) = keys {
            let _ = fs::remove_file(keys);
        }
    }
}

/// Everything that a backup holds, checked.
fn read(file: &Path, key: &BackupKey) -> Result<(BackupSummary, Contents, Store), Error> {
    let bytes = fs::read(file).map_err(|source| Error::file("read", file, source))?;
    let unusable = || Error::new(ErrorKind::Corrupt, format!("{} cannot be used", file.display()));
    let (head, head_bytes, rest) = Head::decode(&bytes).map_err(|source| unusable().because(source))?;
    let sealer = head.sealer(key)?;
    let contents = open_contents(head_bytes, rest, &sealer).map_err(|source| unusable().because(source))?;
    let store = Store::restore(StoreOptions::default(), &contents.state);
    let store = store.map_err(|source| unusable().because(source))?;
    let view = store.view();
    let objects = view.resources().iter().map(|resource| (resource.to_string(), view.count(resource, None))).collect();
    let summary = BackupSummary {
        format: super::FORMAT,
        saved_at: head.saved_at.rfc3339(),
        version: head.version,
        key_file: match head.protection {
            Protection::KeyFile(path) => Some(path.into()),
            Protection::Passphrase(_) => None,
        },
        cluster: head.cluster,
        incarnation: ClusterRecord::of(&view).incarnation,
        revision: view.revision().0,
        index: contents.index,
        term: contents.term,
        time: view.time().rfc3339(),
        objects,
    };
    Ok((summary, contents, store))
}
