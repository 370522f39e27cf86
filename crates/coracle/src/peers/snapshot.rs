//! States on their way between machines: pieces with checksums, kept as they come, so that a connection that breaks costs one piece.
//!
//! Nothing is made of a state before all of it is here and is what its sender said.

use std::fs;
use std::io;

use bytes::Bytes;
use coracle_raft::{MemberId, SnapshotMark};
use serde::{Deserialize, Serialize};

use crate::data_directory::DataDirectory;
use crate::tls::fingerprint;

/// The folder of what is not complete.
const FOLDER: &str = "incoming";
/// How large a piece is.
pub(super) const PIECE_BYTES: usize = 4 << 20;
/// The largest state that is taken: memory holds it twice while it is read.
const STATE_BYTES_MAX: u64 = 4 << 30;

/// Which state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct StateId {
    pub(crate) mark: SnapshotMark,
    /// How many bytes it has.
    pub(crate) total: u64,
    /// The SHA-256 of them, in hexadecimal.
    pub(crate) digest: String,
}

impl StateId {
    pub(super) fn of(mark: SnapshotMark, state: &[u8]) -> Self {
        Self { mark, total: state.len() as u64, digest: fingerprint(state) }
    }

    /// Whether it names something that could be.
    pub(super) fn is_sound(&self) -> bool {
        let hexadecimal = |byte: u8| byte.is_ascii_hexdigit();
        self.total <= STATE_BYTES_MAX && self.digest.len() == 64 && self.digest.bytes().all(hexadecimal)
    }

    fn folder(&self, from: MemberId) -> String {
        format!("{FOLDER}/{}-{}-{}-{}", from.0, self.mark.term, self.mark.index, &self.digest[..16])
    }
}

/// States that others send.
#[derive(Debug)]
pub(crate) struct Incoming {
    directory: DataDirectory,
}

impl Incoming {
    /// Those that are kept in a member's directory.
    pub(crate) fn new(directory: DataDirectory) -> Self {
        Self { directory }
    }

    /// How many bytes of a state are here.
    pub(super) fn have(&self, from: MemberId, state: &StateId) -> io::Result<u64> {
        Ok(self.pieces(from, state)?.iter().map(|(_, length)| length).sum())
    }

    /// Keeps a piece that follows what is here; says how much there is then. Of other states nothing is kept any longer.
    pub(super) fn add(&self, from: MemberId, state: &StateId, offset: u64, piece: &[u8]) -> io::Result<u64> {
        let have = self.have(from, state)?;
        if offset != have || piece.is_empty() || have + piece.len() as u64 > state.total {
            return Ok(have);
        }
        if have == 0 {
            self.clear()?;
        }
        let after = have + piece.len() as u64;
        self.directory.write(&format!("{}/{have:020}-{after:020}", state.folder(from)), piece)?;
        Ok(after)
    }

    /// The whole state, which is then here no longer; an error when it is not what its sender said.
    pub(super) fn finish(&self, from: MemberId, state: &StateId) -> io::Result<Bytes> {
        let mut whole = Vec::new();
        for (piece, _) in self.pieces(from, state)? {
            let file = format!("{}/{piece}", state.folder(from));
            let bytes = self.directory.read(&file).map_err(io::Error::other)?;
            whole.extend_from_slice(&bytes.unwrap_or_default());
        }
        self.clear()?;
        if whole.len() as u64 == state.total && fingerprint(&whole) == state.digest {
            Ok(whole.into())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the state is not what its sender said"))
        }
    }

    /// The names and lengths of the pieces that follow each other from the first byte on.
    fn pieces(&self, from: MemberId, state: &StateId) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(self.directory.path().join(state.folder(from))) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        let (mut end, mut pieces) = (0, Vec::new());
        for name in names {
            let range = name.split_once('-').and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
            if let Some((start, after)) = range.filter(|(start, after)| *start == end && after > start) {
                pieces.push((name, after - start));
                end = after;
            }
        }
        Ok(pieces)
    }

    fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.directory.path().join(FOLDER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: MemberId = MemberId(2);

    #[test]
    fn a_state_is_put_together_from_pieces_even_after_a_break() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), None).unwrap();
        let bytes: Vec<u8> = (0..100_u8).collect();
        let state = StateId::of(SnapshotMark { index: 9, term: 2 }, &bytes);
        assert!(state.is_sound());
        let incoming = Incoming::new(directory.clone());
        assert_eq!(incoming.add(FROM, &state, 0, &bytes[..60]).unwrap(), 60);
        let incoming = Incoming::new(directory.clone());
        assert_eq!(incoming.have(FROM, &state).unwrap(), 60);
        assert_eq!(incoming.add(FROM, &state, 30, &bytes[30..]).unwrap(), 60, "a piece from elsewhere is not kept");
        assert_eq!(incoming.add(FROM, &state, 60, &[0; 41]).unwrap(), 60, "more than was said is not kept");
        assert_eq!(incoming.add(FROM, &state, 60, &bytes[60..]).unwrap(), 100);
        assert_eq!(incoming.finish(FROM, &state).unwrap(), bytes);
        assert_eq!(incoming.have(FROM, &state).unwrap(), 0);
        assert!(incoming.finish(FROM, &state).is_err(), "it is not here any more");
    }

    #[test]
    fn a_state_that_is_not_what_was_said_is_refused_and_another_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let incoming = Incoming::new(DataDirectory::open(folder.path(), None).unwrap());
        let mark = SnapshotMark { index: 9, term: 2 };
        let state = StateId::of(mark, b"right");
        incoming.add(FROM, &state, 0, b"wrong").unwrap();
        assert!(incoming.finish(FROM, &state).is_err());
        incoming.add(FROM, &state, 0, b"ri").unwrap();
        let other = StateId::of(mark, b"other");
        incoming.add(FROM, &other, 0, b"ot").unwrap();
        assert_eq!(incoming.have(FROM, &state).unwrap(), 0);
        let evil = StateId { digest: "../../../../../etc".into(), ..other };
        assert!(!evil.is_sound());
    }
}
