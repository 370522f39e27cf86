//! Backups: one file from which a cluster begins again, on the same machine or a new one.
//!
//! A file is a head that anybody can read (the version, when it was saved, how it is protected) and sealed pieces: the cluster's
//! authority and keys, the place in the log, and the state, which has a checksum of its own. Each piece is bound to the head, its
//! number, and whether it is the last, so that nothing can be changed, left out, cut off or mixed unnoticed. Whoever holds the key of
//! a backup holds the cluster.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coracle_api::ObjectKey;
use coracle_api::resources::NAMESPACES;
use coracle_base::Timestamp;
use coracle_base::wire::{Damage, Reader, Writer};
use coracle_store::View;
use sha2::{Digest as _, Sha256};

use crate::node::private_file;
use crate::seal::{OpenError, SALT, Sealer, hexadecimal, random};
use crate::{Error, ErrorKind};

mod restore;

pub use restore::{BackupSummary, inspect_backup, restore_backup};

const MAGIC: &[u8; 8] = b"corback\0";
/// The layout of the file; a newer one is refused.
const FORMAT: u8 = 1;
/// How much of the contents one piece seals.
const PIECE_BYTES: usize = 1 << 20;
/// How much longer than that a sealed piece can be.
const PIECE_OVERHEAD: usize = 1 << 10;
/// The longest head: a few short texts.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The shortest passphrase that is taken, in bytes.
const PASSPHRASE_MIN: usize = 8;

/// What opens a backup.
#[derive(Clone)]
#[non_exhaustive]
pub enum BackupKey {
    /// The file of keys to the data of the cluster that was saved, or a copy of it.
    File(PathBuf),
    /// The passphrase that the backup was saved with.
    Passphrase(String),
    /// The file of keys where it was when the backup was saved: on the same machine it may still be there.
    Found,
}

impl std::fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Passphrase(_) => f.write_str("Passphrase"),
            Self::Found => f.write_str("Found"),
        }
    }
}

/// What anybody can read of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    saved_at: Timestamp,
    /// The version of Coracle that saved it.
    version: String,
    /// The uid of the namespace `kube-system`, by which clusters are told apart.
    cluster: String,
    protection: Protection,
    /// Random: pieces of two backups cannot be mixed.
    id: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Protection {
    /// By the keys of a file: where it was.
    KeyFile(String),
    /// By a key that is derived from a passphrase and this salt.
    Passphrase([u8; SALT]),
}

/// What is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The last entry that is in the state.
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// The files of the data directory by which the cluster proves itself, by name.
    pub(crate) identity: Vec<(String, String)>,
    /// The state, as the store encodes it.
    pub(crate) state: Bytes,
}

/// What a running member makes backups from.
#[derive(Clone, Debug)]
pub(crate) struct BackupSource {
    /// The files by which the cluster proves itself.
    pub(crate) identity: Vec<(String, String)>,
    /// The keys to the data; none when the cluster is in memory.
    pub(crate) sealer: Option<Sealer>,
}

impl BackupSource {
    /// A backup of a state, in pieces.
    pub(crate) fn save(
        &self,
        view: &View,
        (index, term): (u64, u64),
        saved_at: Timestamp,
        passphrase: Option<&str>,
    ) -> Result<Pieces, Error> {
        let mut id = [0; 16];
        random(&mut id)?;
        let (protection, sealer) = match (passphrase, &self.sealer) {
            (Some(passphrase), _) => {
                if passphrase.len() < PASSPHRASE_MIN {
                    let message = format!("a passphrase has at least {PASSPHRASE_MIN} bytes");
                    return Err(Error::new(ErrorKind::Invalid, message));
                }
                let mut salt = [0; SALT];
                random(&mut salt)?;
                (Protection::Passphrase(salt), Sealer::of_passphrase(passphrase, &salt))
            }
            (None, Some(sealer)) => (Protection::KeyFile(sealer.path().display().to_string()), sealer.clone()),
            (None, None) => {
                let message = "a cluster in memory has no key to seal a backup with: give a passphrase";
                return Err(Error::new(ErrorKind::Invalid, message));
            }
        };
        let kube_system = view.object(&ObjectKey::new(NAMESPACES, "", "kube-system"));
        let head = Head {
            saved_at,
            version: env!("CARGO_PKG_VERSION").into(),
            cluster: kube_system
                .and_then(|it| it.metadata().uid.clone())
                .map(|uid| uid.0.to_string())
                .unwrap_or_default(),
            protection,
            id,
        };
        let contents = Contents { index, term, identity: self.identity.clone(), state: view.snapshot().into() };
        Ok(Pieces::new(&head, contents, sealer))
    }
}

/// A backup as it is written: the head, then sealed pieces, each with its length and whether it is the last.
#[derive(Debug)]
pub(crate) struct Pieces {
    head: Option<Bytes>,
    binding: String,
    plain: Bytes,
    number: u64,
    sealer: Sealer,
}

impl Pieces {
    fn new(head: &Head, contents: Contents, sealer: Sealer) -> Self {
        let head = head.encode();
        Self { binding: binding(&head), head: Some(head.into()), plain: contents.encode().into(), number: 0, sealer }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        if self.plain.is_empty() {
            return None;
        }
        let piece = self.plain.split_to(self.plain.len().min(PIECE_BYTES));
        let last = self.plain.is_empty();
        let sealed = self.sealer.seal(&purpose(&self.binding, self.number, last), &piece);
        self.number += 1;
        let mut framed = vec![last.into()];
        framed.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
        framed.extend_from_slice(&sealed);
        Some(framed.into())
    }
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.signed(self.saved_at.as_nanos());
        w.text(&self.version);
        w.text(&self.cluster);
        match &self.protection {
            Protection::KeyFile(path) => {
                w.byte(0);
                w.text(path);
            }
            Protection::Passphrase(salt) => {
                w.byte(1);
                w.raw(salt);
            }
        }
        w.raw(&self.id);
        let fields = w.finish();
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.byte(FORMAT);
        w.bytes(&fields);
        w.finish()
    }

    /// The head of a file, its bytes, and what is behind it.
    fn decode(file: &[u8]) -> Result<(Self, &[u8], &[u8]), Damage> {
        let Some(behind_magic) = file.strip_prefix(MAGIC) else { return Err("it is no backup of a cluster".into()) };
        let mut outer = Reader::new(behind_magic);
        match outer.byte()? {
            FORMAT => {}
            newer if newer > FORMAT => {
                return Err(format!("it was saved by a newer version of Coracle (format {newer})").into());
            }
            other => return Err(format!("it has no format that ever was: {other}").into()),
        }
        let fields = outer.bytes()?;
        if fields.len() > HEAD_BYTES_MAX {
            return Err("its head is too long".into());
        }
        let r = &mut Reader::new(fields);
        let (saved_at, version, cluster) =
            (Timestamp::from_nanos(r.signed()?), r.text()?.to_owned(), r.text()?.to_owned());
        let protection = match r.byte()? {
            0 => Protection::KeyFile(r.text()?.to_owned()),
            1 => Protection::Passphrase(r.array()?),
            other => return Err(format!("it is protected in a way that this version does not know: {other}").into()),
        };
        let head = Self { saved_at, version, cluster, protection, id: r.array()? };
        r.finish()?;
        let (bytes, rest) = file.split_at(file.len() - outer.rest().len());
        Ok((head, bytes, rest))
    }

    /// The keys that the backup was sealed with.
    fn sealer(&self, key: &BackupKey) -> Result<Sealer, Error> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        match (&self.protection, key) {
            (Protection::Passphrase(salt), BackupKey::Passphrase(passphrase)) => {
                Ok(Sealer::of_passphrase(passphrase, salt))
            }
            (Protection::Passphrase(_), _) => invalid("the backup is sealed with a passphrase: give it".into()),
            (Protection::KeyFile(path), BackupKey::Passphrase(_)) => {
                invalid(format!("the backup is sealed with the cluster's keys, not a passphrase: they were in {path}"))
            }
            (Protection::KeyFile(_), BackupKey::File(file)) => Sealer::open_file(file, false),
            (Protection::KeyFile(path), BackupKey::Found) => {
                let file = PathBuf::from(path);
                if !file.exists() {
                    return invalid(format!(
                        "the backup is sealed with the cluster's keys, which were in {path}: name a copy of that file"
                    ));
                }
                Sealer::open_file(&file, false)
            }
        }
    }
}

impl Contents {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.number(self.index);
        w.number(self.term);
        w.list(&self.identity, |w, (name, text)| {
            w.text(name);
            w.text(text);
        });
        w.bytes(&self.state);
        w.finish()
    }

    fn decode(plain: &[u8]) -> Result<Self, Damage> {
        let r = &mut Reader::new(plain);
        let contents = Self {
            index: r.number()?,
            term: r.number()?,
            identity: r.list(|r| Ok((r.text()?.to_owned(), r.text()?.to_owned())))?,
            state: Bytes::copy_from_slice(r.bytes()?),
        };
        r.finish()?;
        Ok(contents)
    }
}

/// Writes a backup into a new file, durable; nothing is left of one that could not be written whole.
pub(crate) fn write(file: &Path, pieces: Pieces) -> Result<(), Error> {
    let failed = |source| Error::file("write", file, source);
    if file.exists() {
        return Err(Error::new(ErrorKind::Invalid, format!("{} is there already", file.display())));
    }
    let unfinished = file.with_extension("unfinished");
    let written = (|| {
        let mut out = private_file(&unfinished)?;
        for piece in pieces {
            out.write_all(&piece)?;
        }
        out.sync_all()?;
        fs::rename(&unfinished, file)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written.map_err(failed)
}

/// Why a backup cannot be opened.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0}")]
    Damage(#[from] Damage),
    #[error("it ends early: piece {0} is missing or incomplete")]
    Truncated(u64),
    #[error("piece {number} cannot be opened")]
    Sealed { number: u64, source: OpenError },
    #[error("{0} bytes follow its end")]
    Longer(usize),
}

/// What a file holds behind its head.
fn open_contents(head: &[u8], mut rest: &[u8], sealer: &Sealer) -> Result<Contents, Unreadable> {
    let binding = binding(head);
    let mut plain = Vec::with_capacity(rest.len());
    for number in 0.. {
        let (flag, after) = rest.split_first().ok_or(Unreadable::Truncated(number))?;
        let (length, after) = after.split_first_chunk().ok_or(Unreadable::Truncated(number))?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > PIECE_BYTES + PIECE_OVERHEAD {
            return Err(Damage::from(format!("piece {number} is said to have {length} bytes")).into());
        }
        let (sealed, after) = after.split_at_checked(length).ok_or(Unreadable::Truncated(number))?;
        let last = *flag == 1;
        let opened = sealer.open(&purpose(&binding, number, last), sealed);
        plain.extend_from_slice(&opened.map_err(|source| Unreadable::Sealed { number, source })?);
        rest = after;
        if last {
            break;
        }
    }
    if !rest.is_empty() {
        return Err(Unreadable::Longer(rest.len()));
    }
    Ok(Contents::decode(&plain)?)
}

/// What ties pieces to their head.
fn binding(head: &[u8]) -> String {
    hexadecimal(&Sha256::digest(head))
}

fn purpose(binding: &str, number: u64, last: bool) -> String {
    format!("backup {binding} {number}{}", if last { " last" } else { "" })
}

#[cfg(test)]
mod tests;
