//! Which member a data directory is: its id and name, and whom it knew when it was last written.
//!
//! A plain file beside the log. It says nothing secret, and is read before anything of the log is.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use coracle_engine::MemberRecord;
use coracle_raft::MemberId;
use serde::{Deserialize, Serialize};

use crate::data_directory::DataDirectory;
use crate::{Error, ErrorKind};

const FILE: &str = "member.json";
const FORMAT: u32 = 1;

/// The place of a member in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Seat {
    format: u32,
    pub(crate) id: MemberId,
    /// The member's name, and its node's.
    pub(crate) name: String,
    /// Whether it joined a cluster that others had founded.
    pub(crate) joined: bool,
    /// The list of members as it was when this one joined: where it is first asked for a state.
    pub(crate) members: Vec<MemberRecord>,
    /// Where it listened last.
    #[serde(default)]
    pub(crate) listen: Option<SocketAddr>,
}

impl Seat {
    /// The seat of the member that founds a cluster.
    pub(crate) fn founder(name: String) -> Self {
        Self { format: FORMAT, id: MemberId(1), name, joined: false, members: Vec::new(), listen: None }
    }

    /// The seat of a member that joins.
    pub(crate) fn joined(id: MemberId, name: String, members: Vec<MemberRecord>) -> Self {
        Self { format: FORMAT, id, name, joined: true, members, listen: None }
    }

    /// The seat that a directory names, if it names one.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", &path, error)),
        };
        let damaged = |what: &str| Error::new(ErrorKind::Corrupt, format!("{} is {what}", path.display()));
        let version: Version = serde_json::from_slice(&text).map_err(|source| damaged("damaged").because(source))?;
        if version.format > FORMAT {
            return Err(damaged(&format!("of a newer version of Coracle (format {})", version.format)));
        }
        serde_json::from_slice(&text).map(Some).map_err(|source| damaged("damaged").because(source))
    }

    /// Keeps it.
    pub(crate) fn write(&self, directory: &DataDirectory) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        directory.write_plain(FILE, text.as_bytes())
    }
}

/// Where the member of a data directory listened last: there the others look for it.
///
/// # Errors
///
/// When the directory cannot be read, or says it in a way of a newer version.
pub fn last_address(directory: &Path) -> Result<Option<SocketAddr>, Error> {
    Ok(Seat::read(directory)?.and_then(|seat| seat.listen))
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_found_again_and_a_newer_or_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), None).unwrap();
        assert_eq!(Seat::read(directory.path()).unwrap(), None);
        let seat = Seat::joined(MemberId(3), "laptop".into(), Vec::new());
        seat.write(&directory).unwrap();
        assert_eq!(Seat::read(directory.path()).unwrap(), Some(seat));
        for (text, why) in [(r#"{"format": 2}"#, "newer version"), ("{", "damaged")] {
            fs::write(folder.path().join(FILE), text).unwrap();
            assert!(Seat::read(directory.path()).unwrap_err().to_string().contains(why));
        }
    }
}
