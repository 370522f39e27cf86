//! Volumes and the other files of a pod: folders below the pod's own, opened for guests as preopens.
//!
//! WASI gives guests folders, never single files. What Kubernetes mounts as a file (a `subPath` of a ConfigMap, the
//! termination message) is put into a folder made for the container, which the guest sees in the file's parent's place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use coracle_node::runtime::{ContainerSpec, Mount, StorageUse, VolumeFile, VolumeSource};

use crate::files;
use crate::guest::Preopen;

/// The most of a termination message that is read: Kubernetes' own bound.
pub(crate) const TERMINATION_MESSAGE_MAX: u64 = 4_096;

/// The folder of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodDir(pub(crate) PathBuf);

/// The files of a container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) preopens: Vec<Preopen>,
    /// Where the termination message will be.
    pub(crate) termination_message: PathBuf,
}

impl PodDir {
    pub(crate) fn create(&self) -> io::Result<()> {
        files::create_private_dir(&self.0)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        files::remove_dir(&self.0)
    }

    /// Makes a volume or replaces what is in it.
    pub(crate) fn write_volume(&self, volume: &str, source: &VolumeSource) -> Result<(), String> {
        let name = one_component(volume)?;
        match source {
            // The limit is the agent's to watch: a folder has none of its own.
            VolumeSource::EmptyDir { size_limit: _, in_memory: _ } => {
                fs::create_dir_all(self.scratch().join(name)).map_err(|error| error.to_string())
            }
            VolumeSource::HostPath { path, .. } => {
                Err(format!("a WebAssembly pod sees nothing of the node, as {path}"))
            }
            VolumeSource::Files(contents) => replace_files(&self.given().join(name), contents),
        }
    }

    /// Volumes that guests write to.
    fn scratch(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// Volumes whose files come from the cluster: guests only read them, whatever the mount says.
    fn given(&self) -> PathBuf {
        self.0.join("files")
    }

    fn container(&self, spec: &ContainerSpec) -> Result<PathBuf, String> {
        let name = one_component(&spec.id.container)?;
        Ok(self.0.join("containers").join(format!("{}-{}", name.display(), spec.id.instance)))
    }

    /// Finds or makes everything that a container mounts.
    pub(crate) fn prepare(&self, spec: &ContainerSpec) -> Result<Prepared, String> {
        let own = self.container(spec)?;
        files::create_private_dir(&own).map_err(|error| format!("make the container's folder: {error}"))?;
        // Links are followed once here, so that paths can be compared.
        let given = fs::canonicalize(&self.0).unwrap_or_else(|_| self.0.clone()).join("files");
        let mut preopens: Vec<Preopen> = Vec::new();
        let own = fs::canonicalize(&own).map_err(|error| format!("find the container's folder: {error}"))?;
        let mut made = Made { own, dirs: BTreeMap::new() };
        for mount in &spec.mounts {
            match self.mounted(mount)? {
                Mounted::Dir(host) => {
                    let read_only = mount.read_only || host.starts_with(&given);
                    preopens.push(Preopen { host, guest: mount.path.clone(), read_only });
                }
                Mounted::File(host) => {
                    let target = made.place(&mount.path)?;
                    fs::copy(&host, &target).map_err(|error| format!("mount {}: {error}", mount.path))?;
                }
            }
        }
        let termination_message = if let Some(path) = mounted_above(&preopens, &spec.termination_message_path) {
            path
        } else {
            let path = made.place(&spec.termination_message_path)?;
            fs::write(&path, b"").map_err(|error| format!("make the termination message: {error}"))?;
            path
        };
        for (guest, host) in made.dirs {
            if preopens.iter().any(|preopen| preopen.guest.trim_end_matches('/') == guest.trim_end_matches('/')) {
                return Err(format!("cannot put a file into {guest}, where a volume is mounted"));
            }
            preopens.push(Preopen { host, guest, read_only: false });
        }
        Ok(Prepared { preopens, termination_message })
    }

    /// What the pod has on the disk: what it wrote, not what the cluster gave it.
    pub(crate) fn used(&self) -> StorageUse {
        let mut used = StorageUse::default();
        for (name, bytes) in sizes_in(&self.scratch()) {
            used.volumes.insert(name, bytes);
        }
        for (name, bytes) in sizes_in(&self.0.join("containers")) {
            // A folder is of one instance: `name-0`.
            let container = name.rsplit_once('-').map_or(name.as_str(), |(container, _)| container);
            *used.containers.entry(container.to_owned()).or_default() += bytes;
        }
        used
    }

    fn mounted(&self, mount: &Mount) -> Result<Mounted, String> {
        let name = one_component(&mount.volume)?;
        let found = [self.given(), self.scratch()].into_iter().map(|dir| dir.join(name)).find(|dir| dir.is_dir());
        let root = found.and_then(|dir| fs::canonicalize(dir).ok());
        let root = root.ok_or_else(|| format!("volume {:?} is not there", mount.volume))?;
        let Some(sub_path) = mount.sub_path.as_deref().filter(|path| !path.is_empty()) else {
            return Ok(Mounted::Dir(root));
        };
        let path = root.join(relative(sub_path)?);
        // Guests may have put links into the volume: what is mounted, or made, has to lie inside all the same.
        let inside = path.ancestors().find_map(|part| fs::canonicalize(part).ok());
        if !inside.is_some_and(|part| part.starts_with(&root)) {
            return Err(format!("subPath {sub_path:?} is outside of its volume"));
        }
        let failed = |error: io::Error| format!("mount subPath {sub_path:?}: {error}");
        if !path.exists() {
            fs::create_dir_all(&path).map_err(failed)?;
        }
        let real = fs::canonicalize(&path).map_err(failed)?;
        Ok(if real.is_dir() { Mounted::Dir(real) } else { Mounted::File(real) })
    }
}

enum Mounted {
    Dir(PathBuf),
    File(PathBuf),
}

/// Folders made for single files of a container, by where the guest sees them.
struct Made {
    own: PathBuf,
    dirs: BTreeMap<String, PathBuf>,
}

impl Made {
    /// Where to put the file that the guest is to see at a path.
    fn place(&mut self, guest_path: &str) -> Result<PathBuf, String> {
        let path = Path::new(guest_path);
        let name = path.file_name().ok_or_else(|| format!("{guest_path:?} is no path of a file"))?;
        let parent = path.parent().map_or_else(|| "/".to_owned(), |parent| parent.to_string_lossy().into_owned());
        let next = self.own.join(self.dirs.len().to_string());
        let dir = self.dirs.entry(parent).or_insert(next);
        files::create_private_dir(dir).map_err(|error| format!("make {}: {error}", dir.display()))?;
        Ok(dir.join(name))
    }
}

/// What each entry of a folder takes up on the disk.
fn sizes_in(dir: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), size_below(&entry.path()))).collect()
}

/// What a file, or a folder with all that is in it, takes up on the disk. Links are not followed, and what goes away meanwhile counts for nothing.
fn size_below(path: &Path) -> u64 {
    let (mut total, mut waiting) = (0, vec![path.to_owned()]);
    while let Some(path) = waiting.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        total += on_disk(&found);
        if found.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    total
}

/// A file with holes takes up less than its length.
#[cfg(unix)]
fn on_disk(found: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    found.blocks() * 512
}

#[cfg(not(unix))]
fn on_disk(found: &fs::Metadata) -> u64 {
    found.len()
}

/// The host's path of a guest's path, if it is in a mount.
fn mounted_above(preopens: &[Preopen], guest_path: &str) -> Option<PathBuf> {
    let inside = |preopen: &&Preopen| Path::new(guest_path).starts_with(&preopen.guest);
    let mount = preopens.iter().filter(inside).max_by_key(|preopen| preopen.guest.len())?;
    let rest = Path::new(guest_path).strip_prefix(&mount.guest).ok()?;
    Some(mount.host.join(relative(rest.to_str()?).ok()?))
}

/// What a container left as its termination message.
pub(crate) fn termination_message(path: &Path) -> Option<String> {
    // A guest may have put anything in its place, or links on the way there: only a plain file where it is expected is
    // read. The folders above the mount are of this crate's making and were resolved before.
    if fs::canonicalize(path).ok()? != path || !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(TERMINATION_MESSAGE_MAX).read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes each file whole or not at all, then removes those that are not among them. The folder stays the same one,
/// so a guest that has it open sees the new contents.
fn replace_files(dir: &Path, contents: &[VolumeFile]) -> Result<(), String> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("write {path}: {error}")
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let mut wanted = BTreeSet::new();
    for file in contents {
        let path = dir.join(relative(&file.path)?);
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent).map_err(failed(parent))?;
        // Not made durable for its own sake: the agent writes it again after a restart. A rename is what matters.
        if fs::read(&path).ok().as_deref() != Some(&*file.contents) {
            files::write_atomically(&path, &file.contents, file.mode).map_err(failed(&path))?;
        }
        wanted.insert(path);
    }
    remove_unwanted(dir, &wanted).map_err(failed(dir))
}

fn remove_unwanted(dir: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if wanted.contains(&path) {
            continue;
        }
        let holds_wanted = wanted.iter().any(|wanted| wanted.starts_with(&path));
        match fs::symlink_metadata(&path)?.is_dir() {
            true if holds_wanted => remove_unwanted(&path, wanted)?,
            true => fs::remove_dir_all(&path)?,
            false => fs::remove_file(&path)?,
        }
    }
    Ok(())
}

/// A name that is one part of a path.
pub(crate) fn one_component(name: &str) -> Result<&Path, String> {
    let path = relative(name)?;
    if path.components().count() == 1 { Ok(path) } else { Err(format!("{name:?} is no name")) }
}

/// A path without a root and without `..`.
fn relative(path: &str) -> Result<&Path, String> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if inside && !path.is_empty() { Ok(Path::new(path)) } else { Err(format!("{path:?} is no path inside a volume")) }
}

#[cfg(test)]
mod tests;
