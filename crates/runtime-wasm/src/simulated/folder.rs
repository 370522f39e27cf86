//! Folders in memory: the volumes of simulated pods.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_node::runtime::VolumeFile;

use super::errno::Errno;

/// The most bytes of a folder that guests write to and that has no limit of its own.
pub(super) const FOLDER_BYTES_MAX: u64 = 64 << 20;
/// The most files and folders in a folder.
const ENTRIES_MAX: usize = 10_000;

/// A folder with everything in it; clones are the same folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(Arc<Mutex<Tree>>);

/// By path from the root, without slashes at its ends: a folder stands before what is in it.
#[derive(Debug)]
struct Tree {
    entries: BTreeMap<String, Entry>,
    bytes: u64,
    bytes_max: u64,
    next_inode: u64,
}

/// What a path leads to.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A folder and its number.
    Folder(u64),
    /// A file.
    File(File),
}

/// A file; it stays readable for who has it open when it is replaced or removed.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) inode: u64,
    contents: Arc<Mutex<Vec<u8>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl File {
    pub(super) fn len(&self) -> u64 {
        locked(&self.contents).len() as u64
    }

    /// Copies out what lies at an offset; answers how much that was.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let contents = locked(&self.contents);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.len());
        let count = into.len().min(contents.len() - start);
        into[..count].copy_from_slice(&contents[start..start + count]);
        count
    }

    /// At most so many bytes from its beginning.
    pub(super) fn head(&self, limit: usize) -> Vec<u8> {
        let contents = locked(&self.contents);
        contents[..contents.len().min(limit)].to_vec()
    }
}

impl Folder {
    /// An empty one that may come to hold so many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(Tree { entries: BTreeMap::new(), bytes: 0, bytes_max, next_inode: 2 })))
    }

    /// Whether both are the same folder.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Makes these files all that is in it. Who has one open sees what it held.
    pub(super) fn replace(&self, files: &[VolumeFile]) {
        let mut tree = locked(&self.0);
        tree.entries.clear();
        tree.bytes = 0;
        for file in files {
            for (end, _) in file.path.match_indices('/') {
                let inode = tree.inode();
                tree.entries.entry(file.path[..end].to_owned()).or_insert(Entry::Folder(inode));
            }
            let inode = tree.inode();
            let contents = Arc::new(Mutex::new(file.contents.to_vec()));
            tree.entries.insert(file.path.clone(), Entry::File(File { inode, contents }));
        }
    }

    /// What a path leads to; the empty path is the folder itself.
    pub(super) fn find(&self, path: &str) -> Result<Entry, Errno> {
        let tree = locked(&self.0);
        if path.is_empty() {
            return Ok(Entry::Folder(1));
        }
        tree.parent_is_there(path)?;
        tree.entries.get(path).cloned().ok_or(Errno::NOENT)
    }

    /// The names in a folder, each with what it is.
    pub(super) fn list(&self, path: &str) -> Result<Vec<(String, Entry)>, Errno> {
        match self.find(path)? {
            Entry::File(_) => Err(Errno::NOTDIR),
            Entry::Folder(_) => {
                let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
                let tree = locked(&self.0);
                let below = tree.entries.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix));
                let direct = below.filter(|(name, _)| !name[prefix.len()..].contains('/'));
                Ok(direct.map(|(name, entry)| (name[prefix.len()..].to_owned(), entry.clone())).collect())
            }
        }
    }

    /// Makes an empty file where nothing is.
    pub(super) fn create(&self, path: &str) -> Result<File, Errno> {
        let mut tree = locked(&self.0);
        tree.has_room(path)?;
        let file = File { inode: tree.inode(), contents: Arc::default() };
        tree.entries.insert(path.to_owned(), Entry::File(file.clone()));
        Ok(file)
    }

    /// Makes an empty folder where nothing is.
    pub(super) fn create_folder(&self, path: &str) -> Result<(), Errno> {
        let mut tree = locked(&self.0);
        tree.has_room(path)?;
        let inode = tree.inode();
        tree.entries.insert(path.to_owned(), Entry::Folder(inode));
        Ok(())
    }

    /// Makes a path's folders, all that are missing.
    pub(super) fn create_folders(&self, path: &str) -> Result<(), Errno> {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for end in ends.filter(|end| *end > 0) {
            match self.create_folder(&path[..end]) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn remove_file(&self, path: &str) -> Result<(), Errno> {
        let Entry::File(file) = self.find(path)? else { return Err(Errno::ISDIR) };
        let mut tree = locked(&self.0);
        tree.bytes = tree.bytes.saturating_sub(file.len());
        tree.entries.remove(path);
        Ok(())
    }

    pub(super) fn remove_folder(&self, path: &str) -> Result<(), Errno> {
        if path.is_empty() {
            return Err(Errno::INVAL);
        }
        if !self.list(path)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        locked(&self.0).entries.remove(path);
        Ok(())
    }

    /// Moves a file or a folder; a file, or an empty folder, that is there is replaced by its like.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        let moved = self.find(from)?;
        if from.is_empty() || to.is_empty() || to.starts_with(&format!("{from}/")) {
            return Err(Errno::INVAL);
        }
        if from == to {
            return Ok(());
        }
        match (&moved, self.find(to)) {
            (_, Err(Errno::NOENT)) => {}
            (_, Err(error)) => return Err(error),
            (Entry::File(_), Ok(Entry::File(_))) => self.remove_file(to)?,
            (Entry::Folder(_), Ok(Entry::Folder(_))) => self.remove_folder(to)?,
            (Entry::File(_), Ok(Entry::Folder(_))) => return Err(Errno::ISDIR),
            (Entry::Folder(_), Ok(Entry::File(_))) => return Err(Errno::NOTDIR),
        }
        let mut tree = locked(&self.0);
        tree.parent_is_there(to)?;
        let prefix = format!("{from}/");
        let inside = tree.entries.keys().filter(|path| *path == from || path.starts_with(&prefix));
        for path in inside.cloned().collect::<Vec<_>>() {
            if let Some(entry) = tree.entries.remove(&path) {
                tree.entries.insert(format!("{to}{}", &path[from.len()..]), entry);
            }
        }
        Ok(())
    }

    /// Writes at an offset; what lies between the file's end and there becomes zeros. All of it, or nothing.
    pub(super) fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        if end > file.len() {
            self.resize(file, end)?;
        }
        let start = usize::try_from(offset).map_err(|_| Errno::FBIG)?;
        locked(&file.contents)[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    /// Cuts a file, or fills it up with zeros.
    pub(super) fn resize(&self, file: &File, len: u64) -> Result<(), Errno> {
        let mut tree = locked(&self.0);
        let before = file.len();
        let total = tree.bytes.saturating_sub(before).saturating_add(len);
        if len > before && total > tree.bytes_max {
            return Err(Errno::NOSPC);
        }
        tree.bytes = total;
        locked(&file.contents).resize(usize::try_from(len).map_err(|_| Errno::FBIG)?, 0);
        Ok(())
    }
}

impl Tree {
    fn inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.next_inode - 1
    }

    fn parent_is_there(&self, path: &str) -> Result<(), Errno> {
        let Some((parent, _)) = path.rsplit_once('/') else { return Ok(()) };
        match self.entries.get(parent) {
            Some(Entry::Folder(_)) => Ok(()),
            Some(Entry::File(_)) => Err(Errno::NOTDIR),
            None => {
                self.parent_is_there(parent)?;
                Err(Errno::NOENT)
            }
        }
    }

    fn has_room(&self, path: &str) -> Result<(), Errno> {
        self.parent_is_there(path)?;
        if path.is_empty() || self.entries.contains_key(path) {
            return Err(Errno::EXIST);
        }
        if self.entries.len() < ENTRIES_MAX { Ok(()) } else { Err(Errno::NOSPC) }
    }
}

/// A path below a base, without `.`, `..` and empty parts. It must not lead out of the base, nor begin at a root.
pub(super) fn resolve(base: &str, path: &str) -> Result<String, Errno> {
    if path.starts_with('/') {
        return Err(Errno::PERM);
    }
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Err(Errno::PERM);
        }
    }
    let base = Some(base).filter(|base| !base.is_empty());
    Ok(base.into_iter().chain(parts).collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_does_not_lead_out_of_its_base() {
        assert_eq!(resolve("a/b", "c/./d/../e").unwrap(), "a/b/c/e");
        assert_eq!(resolve("", "x//y/").unwrap(), "x/y");
        assert_eq!(resolve("a", ".").unwrap(), "a");
        for path in ["..", "c/../..", "/etc"] {
            assert_eq!(resolve("a/b", path).unwrap_err(), Errno::PERM, "{path}");
        }
    }

    #[test]
    fn a_folder_holds_no_more_than_it_may() {
        let folder = Folder::new(10);
        let file = folder.create("a").unwrap();
        folder.write(&file, 0, b"12345678").unwrap();
        assert_eq!(folder.write(&file, 8, b"90a"), Err(Errno::NOSPC));
        assert_eq!(file.head(100), b"12345678");
        folder.remove_file("a").unwrap();
        let other = folder.create("b").unwrap();
        folder.write(&other, 2, b"12345678").unwrap();
        assert_eq!(other.head(100), b"\0\x0012345678");
    }

    #[test]
    fn folders_are_moved_with_what_is_in_them_and_removed_when_empty() {
        let folder = Folder::new(100);
        folder.create_folders("a/b").unwrap();
        let file = folder.create("a/b/c").unwrap();
        folder.write(&file, 0, b"x").unwrap();
        assert_eq!(folder.create("a/x/y").unwrap_err(), Errno::NOENT);
        assert_eq!(folder.create("a/b/c/d").unwrap_err(), Errno::NOTDIR);
        folder.rename("a", "z").unwrap();
        assert!(matches!(folder.find("z/b/c"), Ok(Entry::File(_))));
        assert_eq!(folder.find("a/b").unwrap_err(), Errno::NOENT);
        assert_eq!(folder.remove_folder("z/b"), Err(Errno::NOTEMPTY));
        folder.remove_file("z/b/c").unwrap();
        folder.remove_folder("z/b").unwrap();
        assert!(folder.list("z").unwrap().is_empty());
    }
}
