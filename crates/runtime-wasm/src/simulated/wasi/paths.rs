//! Files and folders by path, below a folder that is open.

use wasmtime::{Caller, Linker};

use super::files::{APPEND, RIGHT_READ, RIGHT_WRITE, described, put_stat};
use super::{Answer, Errno, Guest, MODULE, Ram, call};
use crate::simulated::folder::{Entry, File, Folder, resolve};
use crate::simulated::guest::{Descriptor, OpenFile};

/// `oflags`.
const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;

type G<'a> = Caller<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "path_open",
        |mut caller: G<'_>,
         fd: u32,
         _lookup: u32,
         path: u32,
         len: u32,
         open: u32,
         rights: u64,
         _inheriting: u64,
         flags: u32,
         at: u32|
         -> Answer {
            call(&mut caller, |ram, guest| {
                let (place, read_only) = place(ram, guest, fd, path, len)?;
                let wanted = Wanted {
                    open,
                    readable: rights & RIGHT_READ != 0,
                    writable: rights & RIGHT_WRITE != 0,
                    append: flags & u32::from(APPEND) != 0,
                    read_only,
                };
                let opened = wanted.open(place)?;
                let number = guest.descriptors.open(opened)?;
                ram.put_u32(at, number)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_filestat_get",
        |mut caller: G<'_>, fd: u32, _lookup: u32, path: u32, len: u32, at: u32| -> Answer {
            call(&mut caller, |ram, guest| {
                let (place, _) = place(ram, guest, fd, path, len)?;
                put_stat(ram, at, described(&place.folder.find(&place.path)?))
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_readlink",
        |mut caller: G<'_>, fd: u32, path: u32, len: u32, _to: u32, _room: u32, _used: u32| -> Answer {
            call(&mut caller, |ram, guest| {
                let (place, _) = place(ram, guest, fd, path, len)?;
                place.folder.find(&place.path)?;
                // There are no links in memory.
                Err(Errno::INVAL)
            })
        },
    )?;
    changes(linker)
}

fn changes(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "path_create_directory", |mut caller: G<'_>, fd: u32, path: u32, len: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let place = writable(ram, guest, fd, path, len)?;
            place.folder.create_folder(&place.path)
        })
    })?;
    linker.func_wrap(MODULE, "path_unlink_file", |mut caller: G<'_>, fd: u32, path: u32, len: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let place = writable(ram, guest, fd, path, len)?;
            place.folder.remove_file(&place.path)
        })
    })?;
    linker.func_wrap(MODULE, "path_remove_directory", |mut caller: G<'_>, fd: u32, path: u32, len: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let place = writable(ram, guest, fd, path, len)?;
            place.folder.remove_folder(&place.path)
        })
    })?;
    linker.func_wrap(
        MODULE,
        "path_rename",
        |mut caller: G<'_>, fd: u32, path: u32, len: u32, to_fd: u32, to_path: u32, to_len: u32| -> Answer {
            call(&mut caller, |ram, guest| {
                let from = writable(ram, guest, fd, path, len)?;
                let to = writable(ram, guest, to_fd, to_path, to_len)?;
                if !from.folder.is(&to.folder) {
                    return Err(Errno::XDEV);
                }
                from.folder.rename(&from.path, &to.path)
            })
        },
    )?;
    Ok(())
}

/// Where a path leads.
struct Place {
    folder: Folder,
    path: String,
}

/// The place of a path below an open folder, and whether it may only be read there.
fn place(ram: &Ram<'_>, guest: &Guest, fd: u32, path: u32, len: u32) -> Result<(Place, bool), Errno> {
    let (folder, base, read_only) = guest.descriptors.folder(fd)?;
    let path = resolve(&base, &ram.text(path, len)?)?;
    Ok((Place { folder, path }, read_only))
}

fn writable(ram: &Ram<'_>, guest: &Guest, fd: u32, path: u32, len: u32) -> Result<Place, Errno> {
    match place(ram, guest, fd, path, len)? {
        (_, true) => Err(Errno::PERM),
        (place, false) => Ok(place),
    }
}

/// How something is to be opened.
struct Wanted {
    /// `oflags`.
    open: u32,
    readable: bool,
    writable: bool,
    append: bool,
    read_only: bool,
}

impl Wanted {
    fn has(&self, flag: u32) -> bool {
        self.open & flag != 0
    }

    fn open(&self, Place { folder, path }: Place) -> Result<Descriptor, Errno> {
        match folder.find(&path) {
            Ok(_) if self.has(CREATE) && self.has(EXCLUSIVE) => Err(Errno::EXIST),
            Ok(Entry::Folder(_)) if self.has(CREATE) || self.has(TRUNCATE) => Err(Errno::ISDIR),
            Ok(Entry::Folder(_)) => Ok(Descriptor::Folder { folder, path, read_only: self.read_only, preopen: None }),
            Ok(Entry::File(_)) if self.has(DIRECTORY) => Err(Errno::NOTDIR),
            Ok(Entry::File(file)) => self.opened(folder, file),
            Err(Errno::NOENT) if self.has(CREATE) && !self.has(DIRECTORY) => {
                if self.read_only {
                    return Err(Errno::PERM);
                }
                let file = folder.create(&path)?;
                self.opened(folder, file)
            }
            Err(error) => Err(error),
        }
    }

    fn opened(&self, folder: Folder, file: File) -> Result<Descriptor, Errno> {
        let truncate = self.has(TRUNCATE);
        // A guest that asks for every right gets those that there are; one that asks to cut the file must be told.
        if self.read_only && (truncate || self.append) {
            return Err(Errno::PERM);
        }
        if truncate {
            folder.resize(&file, 0)?;
        }
        let (readable, writable) = (self.readable, self.writable && !self.read_only);
        Ok(Descriptor::File(OpenFile { folder, file, offset: 0, append: self.append, readable, writable }))
    }
}
