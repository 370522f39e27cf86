//! A cluster's data directory, and the file of keys without which nothing in it can be read.
//!
//! The file of keys lies elsewhere where the program has a place for it; the directory names it. Who takes the directory alone, in a
//! backup or with a stolen disk that held no more, has nothing.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use coracle_raft::MemberId;

use crate::node::private_file;
use crate::seal::Sealer;
use crate::tls::random_token;
use crate::wal::Life;
use crate::{Error, ErrorKind};

/// The file that says where the keys are.
const POINTER: &str = "key-file";
/// The keys' file where there is no other place for it.
const BESIDE: &str = "data.key";
/// A file that every directory of a cluster has.
pub(crate) const MARK: &str = "ca.key";

/// The private keys that a directory has, sealed.
const PRIVATE_KEYS: [&str; 4] = [MARK, "peer-ca.key", "sa.key", "member.key"];

/// A data directory that can be read.
#[derive(Clone, Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    sealer: Sealer,
}

impl DataDirectory {
    /// The directory, made when it is not there. The keys of a new one are put into `key_directory`, or beside the data.
    pub(crate) fn open(path: &Path, key_directory: Option<&Path>) -> Result<Self, Error> {
        private_directory(path).map_err(|source| Error::file("create", path, source))?;
        let is_new = !path.join(MARK).exists();
        let key_file = match key_file(path)? {
            Some(file) => file,
            None if !is_new => {
                let message = format!("{} does not say where its keys are: {POINTER} is missing", path.display());
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            None => {
                let file = match key_directory {
                    Some(directory) => directory.join(format!("{}.key", &random_token()?[..16])),
                    None => PathBuf::from(BESIDE),
                };
                write_private(&path.join(POINTER), &file.to_string_lossy())?;
                path.join(file)
            }
        };
        let sealer = Sealer::open_file(&key_file, is_new)?;
        Ok(Self { path: path.to_owned(), sealer })
    }

    /// A folder of it, with the same keys.
    pub(crate) fn folder(&self, name: &str) -> Self {
        Self { path: self.path.join(name), sealer: self.sealer.clone() }
    }

    /// What a member keeps in it: the directory itself, or a folder in it where it has several of them.
    pub(crate) fn of_member(&self, id: MemberId, members: u64) -> Self {
        if members == 1 { self.clone() } else { self.folder(&format!("member-{}", id.0)) }
    }

    /// Whether it was a cluster's before.
    pub(crate) fn life(&self) -> Life {
        if self.path.join(MARK).exists() { Life::Known } else { Life::New }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The keys.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// A file of the directory, opened; `None` when there is none. It was sealed for its place in the directory.
    pub(crate) fn read(&self, file: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(file);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", &path, error)),
        };
        let cannot = |source| Error::new(ErrorKind::Corrupt, format!("cannot open {}", path.display())).because(source);
        self.sealer.open(file, &sealed).map(Some).map_err(cannot)
    }

    /// Replaces a file of the directory as a whole, sealed and durable.
    pub(crate) fn write(&self, file: &str, plain: &[u8]) -> std::io::Result<()> {
        self.replace(file, &self.sealer.seal(file, plain))
    }

    /// Replaces a file that holds nothing secret, as a whole and durable.
    pub(crate) fn write_plain(&self, file: &str, text: &[u8]) -> Result<(), Error> {
        self.replace(file, text).map_err(|source| Error::file("write", &self.path.join(file), source))
    }

    fn replace(&self, file: &str, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.path.join(file);
        let folder = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder)?;
        let unfinished = path.with_extension("unfinished");
        let mut out = private_file(&unfinished)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(folder)?.sync_all()
    }

    /// The text of a sealed file that a cluster has from its first moment: made in a new directory, and missed in any other.
    pub(crate) fn kept_from_birth(
        &self,
        file: &str,
        make: impl FnOnce() -> Result<String, Error>,
    ) -> Result<String, Error> {
        let life = self.life();
        self.kept(file, || match life {
            Life::New => make(),
            Life::Known => {
                let message = format!("{} is missing: put it back from its copy", self.path.join(file).display());
                Err(Error::new(ErrorKind::Corrupt, message))
            }
        })
    }

    /// The text of a sealed file; made when there is none.
    pub(crate) fn kept(&self, file: &str, make: impl FnOnce() -> Result<String, Error>) -> Result<String, Error> {
        if let Some(bytes) = self.read(file)? {
            let damaged = |_| Error::new(ErrorKind::Corrupt, format!("{} is no text", self.path.join(file).display()));
            return String::from_utf8(bytes).map_err(damaged);
        }
        let new = make()?;
        self.write(file, new.as_bytes()).map_err(|source| Error::file("write", &self.path.join(file), source))?;
        Ok(new)
    }
}

/// The file that holds the keys of a data directory, if the directory says so.
pub(crate) fn key_file(directory: &Path) -> Result<Option<PathBuf>, Error> {
    let pointer = directory.join(POINTER);
    match fs::read_to_string(&pointer) {
        Ok(text) => Ok(Some(directory.join(text.trim()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", &pointer, error)),
    }
}

/// Makes a new key to a data directory, seals everything with it, and forgets the keys before. The cluster must not run.
///
/// # Errors
///
/// When the directory is none of a cluster's, is in use, or cannot be read or written. Nothing is lost then: the new key and the old
/// ones stay in the file until everything is sealed anew, and it can be tried again.
pub fn rotate_keys(directory: &Path) -> Result<(), Error> {
    if !directory.join(MARK).exists() {
        let message = format!("{} is no data directory of a cluster", directory.display());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let mut directory = DataDirectory::open(directory, None)?;
    let folders = member_folders(&directory.path)?;
    let logs = folders.iter().map(|folder| Ok((folder, crate::wal::lock(&directory.folder(folder))?)));
    let logs = logs.collect::<Result<Vec<_>, Error>>()?;
    directory.sealer.rotate()?;
    reseal(&directory, &PRIVATE_KEYS.map(str::to_owned))?;
    for (folder, mut log) in logs {
        let member = directory.folder(folder);
        crate::wal::reseal(&member, &mut log)?;
        reseal(&member, &sealed_files(&member.path)?)?;
    }
    directory.sealer.forget_older()
}

/// The folders of a cluster's members that have a log: the directory itself where it has one member.
pub(crate) fn member_folders(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(directory).map_err(|source| Error::file("read", directory, source))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let has_log = |name: &String| name.starts_with("member-") && directory.join(name).join(crate::wal::LOG).exists();
    let members: Vec<String> = names.filter(has_log).collect();
    Ok(if members.is_empty() { vec![String::new()] } else { members })
}

/// Seals files anew that are sealed as a whole.
fn reseal(directory: &DataDirectory, files: &[String]) -> Result<(), Error> {
    for file in files {
        if let Some(plain) = directory.read(file)? {
            let path = directory.path.join(file);
            directory.write(file, &plain).map_err(|source| Error::file("write", &path, source))?;
        }
    }
    Ok(())
}

/// The snapshots and checkpoints of a member, as their paths in its folder.
fn sealed_files(directory: &Path) -> Result<Vec<String>, Error> {
    let mut files = Vec::new();
    for (folder, inner) in [("snapshots", ""), ("nodes", "/checkpoint")] {
        let path = directory.join(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file("read", &path, error)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        files.extend(names.filter(|name| !name.ends_with(".unfinished")).map(|name| format!("{folder}/{name}{inner}")));
    }
    Ok(files)
}

/// Deletes a cluster's data directory and its keys, and nothing that is no such directory.
///
/// # Errors
///
/// When the directory is none of a cluster's, or cannot be deleted.
pub fn delete_data(directory: &Path) -> Result<(), Error> {
    if !directory.join(MARK).exists() {
        let message = format!("{} is not deleted: it is no data directory of a cluster", directory.display());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let key_file = key_file(directory)?;
    fs::remove_dir_all(directory).map_err(|source| Error::file("delete", directory, source))?;
    match key_file.map(|file| (fs::remove_file(&file), file)) {
        Some((Err(error), file)) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("delete", &file, error))
        }
        _ => Ok(()),
    }
}

/// A directory that only this user may enter.
pub(crate) fn private_directory(directory: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Writes a file that only this user may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let mut file = private_file(path).map_err(|source| Error::file("create", path, source))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| Error::file("write", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_with_the_keys_and_not_without() {
        let folder = tempfile::tempdir().unwrap();
        let (data, keys) = (folder.path().join("data"), folder.path().join("keys"));
        let directory = DataDirectory::open(&data, Some(&keys)).unwrap();
        directory.write(MARK, b"secret").unwrap();
        let bytes = fs::read(data.join(MARK)).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
        let again = DataDirectory::open(&data, None).unwrap();
        assert_eq!(again.read(MARK).unwrap().unwrap(), b"secret");
        fs::rename(&keys, folder.path().join("elsewhere")).unwrap();
        let error = DataDirectory::open(&data, Some(&keys)).unwrap_err();
        assert!(error.to_string().ends_with("is missing: put it back from its copy"), "{error}");
    }

    #[test]
    fn a_file_of_another_place_is_not_taken_for_this_one() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), None).unwrap();
        directory.write("a", b"text").unwrap();
        fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        let error = directory.read("b").unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open {}", folder.path().join("b").display()));
    }

    #[test]
    fn deleting_the_data_deletes_its_keys_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (data, keys) = (folder.path().join("data"), folder.path().join("keys"));
        let directory = DataDirectory::open(&data, Some(&keys)).unwrap();
        let error = delete_data(&data).unwrap_err();
        assert!(error.to_string().ends_with("it is no data directory of a cluster"), "{error}");
        directory.write(MARK, b"secret").unwrap();
        delete_data(&data).unwrap();
        assert!(!data.exists());
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 0);
    }
}
