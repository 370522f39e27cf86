//! The files of a pod: folders that containers mount, and those of the containers themselves (termination message, hosts, resolver).
//!
//! Volumes of given files change as a kubelet changes them: what a container sees are links through `..data`, and `..data` is renamed to
//! a new folder in one step, so a reader sees all of the old contents or all of the new.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use coracle_node::runtime::{ContainerSpec, Mount, Propagation, Sandbox, StorageUse, VolumeFile, VolumeSource};

/// The most of a termination message that is read: Kubernetes' own bound.
const TERMINATION_MESSAGE_MAX: u64 = 4_096;
/// The link through which given files are seen, and what its next target is called until it is renamed.
const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_next";

/// Something in a container's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mounted {
    /// A path of the node.
    Path { host: PathBuf, path: String, read_only: bool, propagation: Propagation },
    /// A volume of Docker's, or the part of it that this path in it leads to.
    Volume { name: String, part: Option<String>, path: String, read_only: bool },
}

/// Where a volume of a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A folder that containers write to.
    Folder(PathBuf),
    /// A folder of given files: mounts are read-only.
    Given(PathBuf),
    /// A path of the node.
    Host(PathBuf),
    /// In memory: a volume of Docker's.
    Memory(Memory),
}

impl Place {
    /// The volume of Docker's that it is.
    pub(crate) fn memory(&self) -> Option<&Memory> {
        if let Self::Memory(memory) = self { Some(memory) } else { None }
    }
}

/// A volume of Docker's in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) name: String,
    /// Where the Engine has it mounted, where this process sees that.
    pub(crate) folder: Option<PathBuf>,
    /// The Engine mounts parts of volumes.
    pub(crate) has_parts: bool,
}

/// The folder of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodDir(pub(crate) PathBuf);

impl PodDir {
    /// Makes the folder, the hosts file and the resolver's.
    pub(crate) fn create(&self, sandbox: &Sandbox) -> Result<(), String> {
        private_dir(&self.0).map_err(at("make", &self.0))?;
        let files = [("hosts", hosts(sandbox)), ("resolv.conf", resolver(sandbox))];
        for (name, text) in files {
            let path = self.0.join(name);
            // In place: containers have the file itself mounted.
            fs::write(&path, text).map_err(at("write", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(at("write", &path))?;
        }
        Ok(())
    }

    /// Removes the folder with everything in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// What the pod has in its volumes; what containers wrote elsewhere is Docker's.
    pub(crate) fn used(&self) -> StorageUse {
        let volumes = fs::read_dir(self.0.join("volumes")).into_iter().flatten().flatten();
        let size =
            |volume: fs::DirEntry| (volume.file_name().to_string_lossy().into_owned(), size_below(&volume.path()));
        StorageUse { volumes: volumes.map(size).collect(), ..StorageUse::default() }
    }

    /// Makes a volume, or replaces what is in it; `None`: it is one that Docker keeps in memory.
    pub(crate) fn write_volume(&self, name: &str, source: &VolumeSource, group: Option<u32>) -> Result<Place, String> {
        let folder = self.0.join("volumes").join(one_component(name)?);
        match source {
            VolumeSource::EmptyDir { .. } => {
                if !folder.is_dir() {
                    fs::create_dir_all(&folder).map_err(at("make", &folder))?;
                    own(&folder, group, 0o777)?;
                }
                Ok(Place::Folder(folder))
            }
            VolumeSource::Files(files) => {
                replace_files(&folder, files, group)?;
                Ok(Place::Given(folder))
            }
            VolumeSource::HostPath { path, expects } => {
                host_path(Path::new(path), expects)?;
                Ok(Place::Host(path.into()))
            }
        }
    }

    /// The files of a container, and where it sees what it mounts.
    pub(crate) fn prepare(
        &self,
        spec: &ContainerSpec,
        place_of: impl Fn(&str) -> Option<Place>,
    ) -> Result<Vec<Mounted>, String> {
        let message = self.termination_message_path(spec)?;
        if let Some(parent) = message.parent() {
            private_dir(parent).map_err(at("make", parent))?;
        }
        fs::write(&message, b"").map_err(at("write", &message))?;
        // Whoever the container runs as may write it.
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).map_err(at("write", &message))?;
        let is_mounted = |path: &str| spec.mounts.iter().any(|mount| same_path(&mount.path, path));
        let own = |host: PathBuf, path: &str, read_only| Mounted::Path {
            host,
            path: path.to_owned(),
            read_only,
            propagation: Propagation::None,
        };
        let mut mounted = Vec::new();
        for (file, path) in [("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")] {
            if !is_mounted(path) {
                mounted.push(own(self.0.join(file), path, spec.security.read_only_root));
            }
        }
        for mount in &spec.mounts {
            let place = place_of(&mount.volume).ok_or_else(|| format!("volume {:?} is not there", mount.volume))?;
            mounted.push(resolve(mount, place)?);
        }
        if !is_mounted(&spec.termination_message_path) {
            mounted.push(own(message, &spec.termination_message_path, false));
        }
        Ok(mounted)
    }

    fn container(&self, spec_container: &str, instance: u32) -> Result<PathBuf, String> {
        let name = one_component(spec_container)?;
        Ok(self.0.join("containers").join(format!("{}-{instance}", name.display())))
    }

    fn termination_message_path(&self, spec: &ContainerSpec) -> Result<PathBuf, String> {
        Ok(self.container(&spec.id.container, spec.id.instance)?.join("termination-message"))
    }

    /// What an instance left as its termination message.
    pub(crate) fn termination_message(&self, container: &str, instance: u32) -> Option<String> {
        let path = self.container(container, instance).ok()?.join("termination-message");
        let mut bytes = Vec::new();
        fs::File::open(path).ok()?.take(TERMINATION_MESSAGE_MAX).read_to_end(&mut bytes).ok()?;
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Removes an instance's own files.
    pub(crate) fn remove_container(&self, container: &str, instance: u32) {
        if let Ok(path) = self.container(container, instance)
            && let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "an ended container's files stay until its pod goes");
        }
    }
}

/// A mount, with its `subPath` followed.
fn resolve(mount: &Mount, place: Place) -> Result<Mounted, String> {
    let (host, given) = match place {
        Place::Memory(memory) => return resolve_memory(mount, memory),
        Place::Folder(path) | Place::Host(path) => (path, false),
        Place::Given(path) => (path, true),
    };
    let host = match &mount.sub_path {
        Some(sub_path) => inside(&host, sub_path, given)?,
        None => host,
    };
    let (path, propagation) = (mount.path.clone(), mount.propagation);
    Ok(Mounted::Path { host, path, read_only: mount.read_only || given, propagation })
}

/// The same for a volume in memory.
fn resolve_memory(mount: &Mount, memory: Memory) -> Result<Mounted, String> {
    // Docker takes nothing less for what lies in its own folder.
    let propagation = match mount.propagation {
        Propagation::None => Propagation::HostToContainer,
        more => more,
    };
    let (path, read_only) = (mount.path.clone(), mount.read_only);
    let Some(sub_path) = &mount.sub_path else {
        return Ok(Mounted::Volume { name: memory.name, part: None, path, read_only });
    };
    match memory.folder {
        Some(folder) => Ok(Mounted::Path { host: inside(&folder, sub_path, false)?, path, read_only, propagation }),
        None if memory.has_parts => {
            let part = Some(relative(sub_path)?.to_string_lossy().into_owned());
            Ok(Mounted::Volume { name: memory.name, part, path, read_only })
        }
        None => Err(format!(
            "subPath of the volume {:?} in memory takes Docker Engine 26 or later, or a node that runs as root beside its Engine",
            mount.volume
        )),
    }
}

/// A path inside a volume, made as a folder where it is missing. Containers may have put links there: it has to lie inside all the same.
fn inside(root: &Path, sub_path: &str, given: bool) -> Result<PathBuf, String> {
    let failed = |error: io::Error| format!("failed to prepare subPath {sub_path:?}: {error}");
    let root = fs::canonicalize(root).map_err(failed)?;
    let path = root.join(relative(sub_path)?);
    let known = path.ancestors().find_map(|part| fs::canonicalize(part).ok());
    if !known.is_some_and(|part| part.starts_with(&root)) {
        return Err(format!("subPath {sub_path:?} is outside of its volume"));
    }
    if !path.exists() && !given {
        fs::create_dir_all(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(failed)?;
    }
    fs::canonicalize(&path).map_err(failed)
}

/// The kubelet's checks of `hostPath.type`.
fn host_path(path: &Path, expects: &str) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt as _;

    let shown = path.display();
    let kind = || fs::metadata(path).map(|found| found.file_type()).ok();
    let check = |is: bool, what: &str| {
        if is { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not a {what}")) }
    };
    match expects {
        "DirectoryOrCreate" if kind().is_none() => fs::create_dir_all(path).map_err(at("make", path)),
        "FileOrCreate" if kind().is_none() => fs::write(path, b"").map_err(at("make", path)),
        "Directory" | "DirectoryOrCreate" => check(kind().is_some_and(|kind| kind.is_dir()), "directory"),
        "File" | "FileOrCreate" => check(kind().is_some_and(|kind| kind.is_file()), "file"),
        "Socket" => check(kind().is_some_and(|kind| kind.is_socket()), "socket file"),
        "CharDevice" => check(kind().is_some_and(|kind| kind.is_char_device()), "character device"),
        "BlockDevice" => check(kind().is_some_and(|kind| kind.is_block_device()), "block device"),
        // Docker mounts only what is there; engines without Kubernetes make a folder, and so do kubelets.
        _ if kind().is_none() => fs::create_dir_all(path).map_err(at("make", path)),
        _ => Ok(()),
    }
}

/// Puts exactly these files into a volume, in one step for who reads them.
fn replace_files(folder: &Path, files: &[VolumeFile], group: Option<u32>) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(at("make", folder))?;
    own(folder, group, 0o755)?;
    let current = fs::read_link(folder.join(DATA)).ok();
    if current.as_ref().is_some_and(|current| is_same(&folder.join(current), files)) {
        return Ok(());
    }
    let next = next_name(current.as_deref());
    let fresh = folder.join(&next);
    fs::remove_dir_all(&fresh)
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(at("clear", &fresh))?;
    fs::create_dir(&fresh).map_err(at("make", &fresh))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).map_err(at("make", &fresh))?;
    for file in files {
        write_file(&fresh, file, group)?;
    }
    let (link, data) = (folder.join(DATA_NEXT), folder.join(DATA));
    let _ = fs::remove_file(&link);
    symlink(&next, &link).map_err(at("make", &link))?;
    fs::rename(&link, &data).map_err(at("replace", &data))?;
    let names: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    show(folder, &names)?;
    if let Some(old) = current {
        let old = folder.join(old);
        fs::remove_dir_all(&old).map_err(at("remove", &old))?;
    }
    Ok(())
}

/// The other of two names, so that what is shown is never written to.
fn next_name(current: Option<&Path>) -> String {
    if current == Some(Path::new("..0")) { "..1".into() } else { "..0".into() }
}

fn write_file(fresh: &Path, file: &VolumeFile, group: Option<u32>) -> Result<(), String> {
    let path = fresh.join(relative(&file.path)?);
    if let Some(parent) = path.parent().filter(|parent| *parent != fresh) {
        fs::create_dir_all(parent).map_err(at("make", parent))?;
    }
    let mut options = fs::OpenOptions::new();
    let mut opened = options.write(true).create_new(true).mode(0o600).open(&path).map_err(at("write", &path))?;
    opened.write_all(&file.contents).map_err(at("write", &path))?;
    // Who is of the pod's group reads it, whatever the volume's mode.
    let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(at("write", &path))?;
    match group {
        Some(group) => std::os::unix::fs::chown(&path, None, Some(group)).map_err(at("give away", &path)),
        None => Ok(()),
    }
}

/// Makes a link through `..data` for each name, and removes those of names that are no more.
fn show(folder: &Path, names: &BTreeSet<&str>) -> Result<(), String> {
    for name in names {
        let (link, target) = (folder.join(name), Path::new(DATA).join(name));
        if fs::read_link(&link).ok().as_deref() != Some(&target) {
            let _ = fs::remove_file(&link);
            symlink(&target, &link).map_err(at("make", &link))?;
        }
    }
    for entry in fs::read_dir(folder).map_err(at("read", folder))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !names.contains(&*name) {
            fs::remove_file(entry.path()).map_err(at("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Whether a folder has exactly these files.
fn is_same(folder: &Path, files: &[VolumeFile]) -> bool {
    let same = |file: &VolumeFile| fs::read(folder.join(&file.path)).is_ok_and(|found| found == file.contents);
    files.iter().all(same) && count(folder) == files.len()
}

fn count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

/// Sets who may use a folder of a volume; one of a group is inherited by what is made in it.
fn own(folder: &Path, group: Option<u32>, mode: u32) -> Result<(), String> {
    let mode = if group.is_some() { mode | 0o2070 } else { mode };
    if let Some(group) = group {
        std::os::unix::fs::chown(folder, None, Some(group)).map_err(at("give away", folder))?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(at("make", folder))
}

/// `/etc/hosts` of a pod.
fn hosts(sandbox: &Sandbox) -> String {
    if sandbox.namespaces.host_network {
        let own = fs::read_to_string("/etc/hosts").unwrap_or_default();
        return format!("# Kubernetes-managed hosts file (host network).\n{own}{}", aliases(sandbox));
    }
    let mut text =
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::0\tip6-localnet\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
    let _ = writeln!(text, "{}\t{}", sandbox.address, sandbox.hostname);
    text + &aliases(sandbox)
}

fn aliases(sandbox: &Sandbox) -> String {
    if sandbox.hosts.is_empty() {
        return String::new();
    }
    let lines = sandbox.hosts.iter().map(|alias| format!("{}\t{}\n", alias.address, alias.names.join("\t")));
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

/// `/etc/resolv.conf` of a pod.
fn resolver(sandbox: &Sandbox) -> String {
    let resolver = &sandbox.resolver;
    let mut text = String::new();
    if !resolver.searches.is_empty() {
        let _ = writeln!(text, "search {}", resolver.searches.join(" "));
    }
    resolver.nameservers.iter().for_each(|server| _ = writeln!(text, "nameserver {server}"));
    if !resolver.options.is_empty() {
        let _ = writeln!(text, "options {}", resolver.options.join(" "));
    }
    text
}

/// Makes a folder that only its owner reads, and those above it.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What a folder takes up on the disk with all that is in it. Links are not followed, and what goes away meanwhile counts for nothing.
fn size_below(path: &Path) -> u64 {
    let (mut total, mut waiting) = (0, vec![path.to_owned()]);
    while let Some(path) = waiting.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        total += found.blocks() * 512;
        if found.is_dir() {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    total
}

fn at(what: &str, path: &Path) -> impl FnOnce(io::Error) -> String + use<> {
    let text = format!("cannot {what} {}", path.display());
    move |error| format!("{text}: {error}")
}

fn same_path(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
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
