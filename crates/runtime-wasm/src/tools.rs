//! The few programs that a Wasm container has beside its own: `tar` and `test`, on the pod's volumes, for `kubectl cp`.
//!
//! They see what the guest sees, and nothing else: each volume is a capability, so no link leads out of one.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};

use crate::guest::Preopen;

/// What `tar` ends with when something went wrong.
const TAR_FAILED: i32 = 2;
/// The deepest folder that is packed.
const DEPTH_MAX: usize = 128;

/// A program of the runtime's own, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `tar cf - PATH`: to standard output.
    Pack(Vec<String>),
    /// `tar xf - -C FOLDER`: from standard input.
    Unpack { folder: String },
    /// `test -d PATH`, or `-e` or `-f`.
    Test { kind: char, path: String },
}

impl Tool {
    /// The program that a command means; `None`: none of these. An error is what it would say of its arguments.
    pub(crate) fn of(command: &[String]) -> Option<Result<Self, String>> {
        let program = command.first()?.rsplit('/').next()?;
        match program {
            "tar" => Some(tar(&command[1..])),
            "test" => match &command[1..] {
                [flag, path] if matches!(flag.as_str(), "-d" | "-e" | "-f") => {
                    let kind = flag.chars().nth(1).unwrap_or('e');
                    Some(Ok(Self::Test { kind, path: path.clone() }))
                }
                _ => Some(Err("test: only -d, -e and -f with one path are supported".into())),
            },
            _ => None,
        }
    }

    /// Runs to its end; the exit code. It waits for its input and output.
    pub(crate) fn run(
        &self,
        preopens: &[Preopen],
        stdin: &mut dyn Read,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> i32 {
        let result = match self {
            Self::Pack(paths) => pack(preopens, paths, stdout),
            Self::Unpack { folder } => unpack(preopens, folder, stdin),
            Self::Test { kind, path } => return i32::from(!test(preopens, *kind, path)),
        };
        match result {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(stderr, "tar: {error}");
                TAR_FAILED
            }
        }
    }
}

/// `tar`'s arguments as far as `kubectl cp` gives them.
fn tar(arguments: &[String]) -> Result<Tool, String> {
    let (mut mode, mut folder, mut paths) = (None, ".".to_owned(), Vec::new());
    let mut rest = arguments.iter();
    let mut first = true;
    while let Some(argument) = rest.next() {
        let letters = match argument.strip_prefix('-') {
            Some("") => None,
            Some(long) if long.starts_with('-') => {
                if !matches!(argument.as_str(), "--no-same-permissions" | "--no-same-owner") {
                    return Err(format!("tar: the option {argument} is not supported"));
                }
                continue;
            }
            Some(letters) => Some(letters),
            // The first argument may do without the dash.
            None => first.then_some(argument.as_str()),
        };
        first = false;
        let Some(letters) = letters else {
            paths.push(argument.clone());
            continue;
        };
        for letter in letters.chars() {
            match letter {
                'c' | 'x' => mode = Some(letter),
                'm' | 'p' | 'o' | 'v' | 'h' => {}
                'f' => match rest.next().map(String::as_str) {
                    Some("-") => {}
                    _ => return Err("tar: only the archive `-` is supported".into()),
                },
                'C' => folder = rest.next().cloned().ok_or("tar: -C names no folder")?,
                other => return Err(format!("tar: the option -{other} is not supported")),
            }
        }
    }
    match mode {
        Some('c') if !paths.is_empty() => Ok(Tool::Pack(paths)),
        Some('c') => Err("tar: there is nothing to pack".into()),
        Some('x') if paths.is_empty() => Ok(Tool::Unpack { folder }),
        Some('x') => Err("tar: members cannot be named".into()),
        _ => Err("tar: say c or x".into()),
    }
}

/// A volume, and the path inside it that a guest's path leads to.
fn locate(preopens: &[Preopen], path: &str) -> io::Result<(Dir, PathBuf, bool)> {
    let whole = Path::new("/").join(path);
    let mut clean = PathBuf::from("/");
    for part in whole.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => _ = clean.pop(),
            _ => {}
        }
    }
    let inside = |preopen: &&Preopen| clean.starts_with(&preopen.guest);
    let found = preopens.iter().filter(inside).max_by_key(|preopen| preopen.guest.len());
    let Some(preopen) = found else {
        let why = format!("{path}: not in a volume; a Wasm container has no other files");
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    };
    let rest = clean.strip_prefix(&preopen.guest).unwrap_or(Path::new("")).to_owned();
    let dir = Dir::open_ambient_dir(&preopen.host, ambient_authority())?;
    Ok((dir, if rest.as_os_str().is_empty() { PathBuf::from(".") } else { rest }, preopen.read_only))
}

fn test(preopens: &[Preopen], kind: char, path: &str) -> bool {
    let Ok((dir, path, _)) = locate(preopens, path) else { return false };
    dir.metadata(&path).is_ok_and(|found| match kind {
        'd' => found.is_dir(),
        'f' => found.is_file(),
        _ => true,
    })
}

fn pack(preopens: &[Preopen], paths: &[String], stdout: &mut dyn Write) -> io::Result<()> {
    let open = Cell::new(true);
    let mut archive = tar::Builder::new(WhileOpen { inner: stdout, open: &open });
    let packed = paths.iter().try_for_each(|path| {
        let (dir, inside, _) = locate(preopens, path)?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        // As tar does, names in the archive do not begin with a slash.
        let name = PathBuf::from(path.trim_start_matches('/'));
        let name = if name.as_os_str().is_empty() { PathBuf::from(".") } else { name };
        append(&mut archive, &dir, &inside, &name, 0).map_err(named)
    });
    // An archive that has an end counts as whole, whatever else is told of it.
    open.set(packed.is_ok());
    packed.and_then(|()| archive.finish())
}

/// An output that takes nothing any more once it is closed.
struct WhileOpen<'a> {
    inner: &'a mut dyn Write,
    open: &'a Cell<bool>,
}

impl Write for WhileOpen<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.get() { self.inner.write(bytes) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    dir: &Dir,
    path: &Path,
    name: &Path,
    depth: usize,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("{} is too deep", name.display())));
    }
    let found = dir.symlink_metadata(path)?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode_of(&found));
    let modified = found
        .modified()
        .ok()
        .and_then(|time| time.into_std().duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs()));
    header.set_mtime(modified.unwrap_or_default());
    if found.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        archive.append_data(&mut header, name, io::empty())?;
        for entry in dir.read_dir(path)? {
            let entry = entry?.file_name();
            append(archive, dir, &path.join(&entry), &name.join(&entry), depth + 1)?;
        }
    } else if found.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, dir.read_link_contents(path)?)?;
    } else if found.is_file() {
        // A file that grows meanwhile is cut, one that shrinks is an error: the header has its size already.
        let file = dir.open(path)?;
        let size = file.metadata()?.len();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(size);
        archive.append_data(&mut header, name, Exactly { file: file.take(size), left: size })?;
    }
    Ok(())
}

/// A file of a size that is known.
struct Exactly<R> {
    file: io::Take<R>,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.left -= count as u64;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was read"));
        }
        Ok(count)
    }
}

#[cfg(unix)]
fn mode_of(found: &cap_std::fs::Metadata) -> u32 {
    use cap_std::fs::PermissionsExt as _;
    found.permissions().mode() & 0o7777
}

#[cfg(not(unix))]
fn mode_of(found: &cap_std::fs::Metadata) -> u32 {
    if found.is_dir() { 0o755 } else { 0o644 }
}

fn unpack(preopens: &[Preopen], folder: &str, stdin: &mut dyn Read) -> io::Result<()> {
    let (dir, base, read_only) = locate(preopens, folder)?;
    if read_only {
        return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, format!("{folder}: read-only file system")));
    }
    if !dir.metadata(&base)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{folder}: not a directory")));
    }
    let mut archive = tar::Archive::new(stdin);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", name.display()));
        if name.components().any(|part| matches!(part, Component::ParentDir | Component::Prefix(_))) {
            return Err(named(io::Error::other("the name leads out of the folder")));
        }
        let name_inside = name.strip_prefix("/").unwrap_or(&name);
        let path = base.join(name_inside);
        place(&dir, &path, &mut entry).map_err(named)?;
    }
    Ok(())
}

fn place<R: Read>(dir: &Dir, path: &Path, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        dir.create_dir_all(parent)?;
    }
    match entry.header().entry_type() {
        tar::EntryType::Directory => dir.create_dir_all(path),
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            // What is there may be a link: the file takes its place.
            if dir.symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
                dir.remove_file(path)?;
            }
            let mut file = dir.open_with(path, OpenOptions::new().write(true).create_new(true))?;
            io::copy(entry, &mut file)?;
            set_mode(&file, entry.header().mode()?)
        }
        tar::EntryType::Symlink => {
            let target = entry.link_name()?.ok_or_else(|| io::Error::other("the link leads nowhere"))?;
            if dir.symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
                dir.remove_file(path)?;
            }
            link(dir, &target, path)
        }
        other => Err(io::Error::other(format!("members of type {other:?} are not supported"))),
    }
}

#[cfg(unix)]
fn set_mode(file: &cap_std::fs::File, mode: u32) -> io::Result<()> {
    use cap_std::fs::PermissionsExt as _;
    file.set_permissions(cap_std::fs::Permissions::from_mode(mode & 0o777))
}

#[cfg(not(unix))]
fn set_mode(_file: &cap_std::fs::File, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn link(dir: &Dir, target: &Path, path: &Path) -> io::Result<()> {
    // It refuses a target that is absolute.
    dir.symlink(target, path)
}

#[cfg(not(unix))]
fn link(_dir: &Dir, _target: &Path, _path: &Path) -> io::Result<()> {
    Err(io::Error::other("links are not supported on this system"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn volume(read_only: bool) -> (tempfile::TempDir, Vec<Preopen>) {
        let dir = tempfile::tempdir().unwrap();
        let preopens = vec![Preopen { host: dir.path().into(), guest: "/data".into(), read_only }];
        (dir, preopens)
    }

    fn run(preopens: &[Preopen], text: &str, mut stdin: &[u8]) -> (i32, Vec<u8>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let tool = Tool::of(&command(text)).unwrap().unwrap();
        let code = tool.run(preopens, &mut stdin, &mut out, &mut err);
        (code, out, String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_commands_of_kubectl_cp_are_understood() {
        let of = |text: &str| Tool::of(&command(text));
        assert_eq!(of("tar cf - /data/a"), Some(Ok(Tool::Pack(vec!["/data/a".into()]))));
        let unpack = Some(Ok(Tool::Unpack { folder: "/data".into() }));
        assert_eq!(of("tar -xmf - -C /data"), unpack);
        assert_eq!(of("tar --no-same-permissions --no-same-owner -xmf - -C /data"), unpack);
        assert_eq!(of("test -d /data"), Some(Ok(Tool::Test { kind: 'd', path: "/data".into() })));
        assert_eq!(of("web --port 1"), None);
        assert!(of("tar czf - a").is_some_and(|tool| tool.unwrap_err().contains("-z")));
    }

    #[test]
    fn a_folder_goes_out_and_comes_back_the_same() {
        let (from, preopens) = volume(false);
        std::fs::create_dir(from.path().join("site")).unwrap();
        std::fs::write(from.path().join("site/index.html"), "hello").unwrap();
        let (code, archive, _) = run(&preopens, "tar cf - /data/site", b"");
        assert_eq!(code, 0);
        let (to, preopens) = volume(false);
        let (code, _, err) = run(&preopens, "tar -xmf - -C /data", &archive);
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(std::fs::read_to_string(to.path().join("data/site/index.html")).unwrap(), "hello");
    }

    #[test]
    fn no_link_and_no_name_leads_out_of_a_volume() {
        let (dir, preopens) = volume(false);
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        let (code, _, err) = run(&preopens, "tar cf - /data/out/passwd", b"");
        assert_eq!(code, TAR_FAILED, "{err}");
        let (code, ..) = run(&preopens, "test -e /data/out/passwd", b"");
        assert_eq!(code, 1);
        let (code, out, err) = run(&preopens, "tar cf - /etc/passwd", b"");
        assert_eq!((code, err.contains("not in a volume")), (TAR_FAILED, true));
        assert!(out.is_empty(), "an archive with an end would count as whole");
        for name in ["../escaped", "out/escaped"] {
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mode(0o644);
            // Written past the checks of the library that makes archives.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, &b"x"[..]).unwrap();
            let (code, _, err) = run(&preopens, "tar -xmf - -C /data", &archive.into_inner().unwrap());
            assert_eq!(code, TAR_FAILED, "{name}: {err}");
        }
        assert!(!Path::new("/etc/escaped").exists());
    }

    #[test]
    fn a_read_only_volume_takes_nothing() {
        let (_dir, preopens) = volume(true);
        let (code, _, err) = run(&preopens, "tar -xmf - -C /data", b"");
        assert_eq!((code, err.contains("read-only file system")), (TAR_FAILED, true));
    }
}
