//! A simulated pod: its sandbox, and its volumes in memory.

use std::collections::BTreeMap;

use coracle_node::runtime::{ContainerSpec, Mount, Sandbox, VolumeSource};

use super::folder::{Entry, FOLDER_BYTES_MAX, File, Folder, resolve};
use super::guest::Preopen;

/// The folders that a container sees, and the file of its termination message.
pub(super) type Prepared = (Vec<Preopen>, (Folder, String));

/// A pod.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) sandbox: Sandbox,
    volumes: BTreeMap<String, Volume>,
}

#[derive(Debug)]
struct Volume {
    folder: Folder,
    /// Its files come from the cluster: guests only read them, whatever the mount says.
    given: bool,
}

impl Pod {
    pub(super) fn new(sandbox: Sandbox) -> Self {
        Self { sandbox, volumes: BTreeMap::new() }
    }

    /// Makes a volume or replaces what is in it.
    pub(super) fn write_volume(&mut self, name: &str, source: &VolumeSource) {
        match source {
            VolumeSource::EmptyDir { size_limit, in_memory: _ } => {
                let limit = size_limit.unwrap_or(FOLDER_BYTES_MAX).min(FOLDER_BYTES_MAX);
                let empty = || Volume { folder: Folder::new(limit), given: false };
                self.volumes.entry(name.to_owned()).or_insert_with(empty);
            }
            VolumeSource::Files(files) => {
                let empty = || Volume { folder: Folder::new(FOLDER_BYTES_MAX), given: true };
                self.volumes.entry(name.to_owned()).or_insert_with(empty).folder.replace(files);
            }
            // The agent gives none to a runtime without a host; a container that mounts it finds no such volume.
            VolumeSource::HostPath { .. } => {}
        }
    }

    /// Finds or makes everything that a container mounts. WASI gives guests folders, never single files: what is mounted as a
    /// file is put into a folder of the container's own.
    pub(super) fn prepare(&self, spec: &ContainerSpec) -> Result<Prepared, String> {
        let mut preopens: Vec<Preopen> = Vec::new();
        let mut made: BTreeMap<String, Folder> = BTreeMap::new();
        for mount in &spec.mounts {
            match self.mounted(mount)? {
                Mounted::Folder(preopen) => preopens.push(preopen),
                Mounted::File(file) => {
                    let (folder, name) = place(&mut made, &mount.path)?;
                    let copied = folder.create(&name).and_then(|copy| folder.write(&copy, 0, &file.head(usize::MAX)));
                    copied.map_err(|_| format!("mount {}: it cannot be copied", mount.path))?;
                }
            }
        }
        let message = if let Some(there) = mounted_above(&preopens, &spec.termination_message_path) {
            there
        } else {
            let (folder, name) = place(&mut made, &spec.termination_message_path)?;
            folder.create(&name).map_err(|_| format!("make the termination message: {name} is there already"))?;
            (folder, name)
        };
        for (guest, folder) in made {
            if preopens.iter().any(|preopen| preopen.guest.trim_end_matches('/') == guest.trim_end_matches('/')) {
                return Err(format!("cannot put a file into {guest}, where a volume is mounted"));
            }
            preopens.push(Preopen { folder, path: String::new(), guest, read_only: false });
        }
        Ok((preopens, message))
    }

    fn mounted(&self, mount: &Mount) -> Result<Mounted, String> {
        let volume = self.volumes.get(&mount.volume);
        let volume = volume.ok_or_else(|| format!("volume {:?} is not there", mount.volume))?;
        let sub_path = mount.sub_path.as_deref().filter(|path| !path.is_empty());
        let outside = |path: &str| format!("subPath {path:?} is outside of its volume");
        let path = match sub_path {
            Some(path) => resolve("", path).map_err(|_| outside(path))?,
            None => String::new(),
        };
        if let Ok(Entry::File(file)) = volume.folder.find(&path) {
            return Ok(Mounted::File(file));
        }
        volume.folder.create_folders(&path).map_err(|_| format!("mount subPath {path:?}: it cannot be made"))?;
        let read_only = mount.read_only || volume.given;
        let (folder, guest) = (volume.folder.clone(), mount.path.clone());
        Ok(Mounted::Folder(Preopen { folder, path, guest, read_only }))
    }
}

enum Mounted {
    Folder(Preopen),
    File(File),
}

/// The folder, made for a container, in which it is to see a file, and the file's name there.
fn place(made: &mut BTreeMap<String, Folder>, guest_path: &str) -> Result<(Folder, String), String> {
    let (parent, name) = guest_path.rsplit_once('/').unwrap_or(("", guest_path));
    if matches!(name, "" | "." | "..") {
        return Err(format!("{guest_path:?} is no path of a file"));
    }
    let parent = if parent.is_empty() { "/" } else { parent };
    let folder = made.entry(parent.to_owned()).or_insert_with(|| Folder::new(FOLDER_BYTES_MAX));
    Ok((folder.clone(), name.to_owned()))
}

/// The folder and path of a guest's path, if it is in a mount.
fn mounted_above(preopens: &[Preopen], guest_path: &str) -> Option<(Folder, String)> {
    let rest = |preopen: &Preopen| {
        let below = guest_path.strip_prefix(preopen.guest.trim_end_matches('/'))?;
        below.strip_prefix('/').map(str::to_owned)
    };
    let inside = preopens.iter().filter_map(|preopen| Some((preopen, rest(preopen)?)));
    let (mount, rest) = inside.max_by_key(|(preopen, _)| preopen.guest.len())?;
    Some((mount.folder.clone(), resolve(&mount.path, &rest).ok()?))
}
