//! What is open: reading, writing, where in it, and what it is.

use wasmtime::{Caller, Linker};

use super::{Answer, Errno, Guest, MODULE, Ram, call};
use crate::simulated::folder::Entry;
use crate::simulated::guest::Descriptor;

/// `filetype`: what a descriptor is.
const UNKNOWN: u8 = 0;
const DIRECTORY: u8 = 3;
const REGULAR_FILE: u8 = 4;
/// `rights`: everything that a version of WASI 0.1 knows, and its parts that tell readable from writable.
const RIGHTS_ALL: u64 = (1 << 29) - 1;
pub(super) const RIGHT_READ: u64 = 1 << 1;
pub(super) const RIGHT_WRITE: u64 = 1 << 6;
/// `fdflags::append`.
pub(super) const APPEND: u16 = 1;
/// Bytes of a `dirent`.
const ENTRY_BYTES: usize = 24;
/// The number of a folder's own preopen type.
const PREOPEN_DIRECTORY: u32 = 0;

type G<'a> = Caller<'a, Guest>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    streams(linker)?;
    positions(linker)?;
    descriptions(linker)
}

fn streams(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "fd_read", |mut caller: G<'_>, fd: u32, at: u32, count: u32, done: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let read = match guest.descriptors.get(fd)? {
                Descriptor::Input => 0,
                Descriptor::Output(_) => return Err(Errno::BADF),
                _ => {
                    let offset = guest.descriptors.file(fd)?.offset;
                    let read = read_at(ram, guest, fd, (at, count), offset)?;
                    guest.descriptors.file(fd)?.offset = offset + u64::from(read);
                    read
                }
            };
            ram.put_u32(done, read)
        })
    })?;
    linker.func_wrap(
        MODULE,
        "fd_pread",
        |mut caller: G<'_>, fd: u32, at: u32, count: u32, offset: u64, done: u32| -> Answer {
            call(&mut caller, |ram, guest| {
                let read = read_at(ram, guest, fd, (at, count), offset)?;
                ram.put_u32(done, read)
            })
        },
    )?;
    linker.func_wrap(MODULE, "fd_write", |mut caller: G<'_>, fd: u32, at: u32, count: u32, done: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let written = match guest.descriptors.get(fd)? {
                Descriptor::Input => return Err(Errno::BADF),
                Descriptor::Output(stream) => {
                    let (stream, bytes) = (*stream, gather(ram, at, count)?);
                    let written = bytes.len() as u32;
                    guest.ledger().output.push((stream, bytes));
                    written
                }
                _ => {
                    let open = guest.descriptors.file(fd)?;
                    let offset = if open.append { open.file.len() } else { open.offset };
                    let written = write_at(ram, guest, fd, (at, count), offset)?;
                    guest.descriptors.file(fd)?.offset = offset + u64::from(written);
                    written
                }
            };
            ram.put_u32(done, written)
        })
    })?;
    linker.func_wrap(
        MODULE,
        "fd_pwrite",
        |mut caller: G<'_>, fd: u32, at: u32, count: u32, offset: u64, done: u32| -> Answer {
            call(&mut caller, |ram, guest| {
                let written = write_at(ram, guest, fd, (at, count), offset)?;
                ram.put_u32(done, written)
            })
        },
    )?;
    Ok(())
}

fn read_at(ram: &mut Ram<'_>, guest: &mut Guest, fd: u32, (at, count): (u32, u32), offset: u64) -> Result<u32, Errno> {
    let pieces = ram.pieces(at, count)?;
    let open = guest.descriptors.file(fd)?;
    if !open.readable {
        return Err(Errno::BADF);
    }
    let mut read = 0_u32;
    for (start, len) in pieces {
        let got = open.file.read(offset.saturating_add(u64::from(read)), ram.bytes_mut(start, len)?) as u32;
        read = read.checked_add(got).ok_or(Errno::INVAL)?;
        if got < len {
            break;
        }
    }
    Ok(read)
}

fn write_at(ram: &Ram<'_>, guest: &mut Guest, fd: u32, (at, count): (u32, u32), offset: u64) -> Result<u32, Errno> {
    let bytes = gather(ram, at, count)?;
    let open = guest.descriptors.file(fd)?;
    if !open.writable {
        return Err(Errno::BADF);
    }
    open.folder.write(&open.file, offset, &bytes)?;
    Ok(bytes.len() as u32)
}

/// The bytes of a write. What a guest has in memory may be written from many times over: no more than that at once.
fn gather(ram: &Ram<'_>, at: u32, count: u32) -> Result<Vec<u8>, Errno> {
    let pieces = ram.pieces(at, count)?;
    let total: u64 = pieces.iter().map(|(_, len)| u64::from(*len)).sum();
    if total > ram.0.len() as u64 {
        return Err(Errno::INVAL);
    }
    let mut bytes = Vec::with_capacity(total as usize);
    for (start, len) in pieces {
        bytes.extend_from_slice(ram.bytes(start, len)?);
    }
    Ok(bytes)
}

fn positions(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "fd_seek", |mut caller: G<'_>, fd: u32, by: i64, from: u32, at: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let open = guest.descriptors.file(fd)?;
            let base = match from {
                0 => 0,
                1 => open.offset,
                2 => open.file.len(),
                _ => return Err(Errno::INVAL),
            };
            open.offset = base.checked_add_signed(by).ok_or(Errno::INVAL)?;
            let offset = open.offset;
            ram.put_u64(at, offset)
        })
    })?;
    linker.func_wrap(MODULE, "fd_tell", |mut caller: G<'_>, fd: u32, at: u32| -> Answer {
        call(&mut caller, |ram, guest| ram.put_u64(at, guest.descriptors.file(fd)?.offset))
    })?;
    // Memory is as durable as it gets.
    for name in ["fd_sync", "fd_datasync"] {
        linker.func_wrap(MODULE, name, |mut caller: G<'_>, fd: u32| -> Answer {
            call(&mut caller, |_, guest| guest.descriptors.get(fd).map(drop))
        })?;
    }
    linker.func_wrap(MODULE, "fd_advise", |mut caller: G<'_>, fd: u32, _: u64, _: u64, _: u32| -> Answer {
        call(&mut caller, |_, guest| guest.descriptors.file(fd).map(drop))
    })?;
    linker.func_wrap(MODULE, "fd_close", |mut caller: G<'_>, fd: u32| -> Answer {
        call(&mut caller, |_, guest| guest.descriptors.close(fd))
    })?;
    linker.func_wrap(MODULE, "fd_renumber", |mut caller: G<'_>, from: u32, to: u32| -> Answer {
        call(&mut caller, |_, guest| guest.descriptors.renumber(from, to))
    })?;
    linker.func_wrap(MODULE, "fd_filestat_set_size", |mut caller: G<'_>, fd: u32, len: u64| -> Answer {
        call(&mut caller, |_, guest| {
            let open = guest.descriptors.file(fd)?;
            if !open.writable {
                return Err(Errno::BADF);
            }
            open.folder.resize(&open.file, len)
        })
    })?;
    Ok(())
}

fn descriptions(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "fd_fdstat_get", |mut caller: G<'_>, fd: u32, at: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let (kind, flags, rights) = match guest.descriptors.get(fd)? {
                Descriptor::Input => (UNKNOWN, 0, RIGHT_READ),
                Descriptor::Output(_) => (UNKNOWN, 0, RIGHT_WRITE),
                Descriptor::Folder { .. } => (DIRECTORY, 0, RIGHTS_ALL),
                Descriptor::File(open) => {
                    let without = if open.readable { 0 } else { RIGHT_READ };
                    let rights = RIGHTS_ALL & !without & !(if open.writable { 0 } else { RIGHT_WRITE });
                    (REGULAR_FILE, if open.append { APPEND } else { 0 }, rights)
                }
            };
            let mut stat = [0; 24];
            stat[0] = kind;
            stat[2..4].copy_from_slice(&flags.to_le_bytes());
            stat[8..16].copy_from_slice(&rights.to_le_bytes());
            stat[16..24].copy_from_slice(&rights.to_le_bytes());
            ram.put(at, &stat)
        })
    })?;
    linker.func_wrap(MODULE, "fd_fdstat_set_flags", |mut caller: G<'_>, fd: u32, flags: u32| -> Answer {
        call(&mut caller, |_, guest| {
            guest.descriptors.file(fd)?.append = flags & u32::from(APPEND) != 0;
            Ok(())
        })
    })?;
    linker.func_wrap(MODULE, "fd_filestat_get", |mut caller: G<'_>, fd: u32, at: u32| -> Answer {
        call(&mut caller, |ram, guest| match guest.descriptors.get(fd)? {
            Descriptor::Input | Descriptor::Output(_) => put_stat(ram, at, (UNKNOWN, 0, 0)),
            Descriptor::Folder { folder, path, .. } => put_stat(ram, at, described(&folder.find(path)?)),
            Descriptor::File(open) => put_stat(ram, at, described(&Entry::File(open.file.clone()))),
        })
    })?;
    linker.func_wrap(MODULE, "fd_prestat_get", |mut caller: G<'_>, fd: u32, at: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let len = preopen(guest, fd)?.len() as u32;
            ram.put_u32(at, PREOPEN_DIRECTORY)?;
            ram.put_u32(at.checked_add(4).ok_or(Errno::FAULT)?, len)
        })
    })?;
    linker.func_wrap(MODULE, "fd_prestat_dir_name", |mut caller: G<'_>, fd: u32, at: u32, len: u32| -> Answer {
        call(&mut caller, |ram, guest| {
            let name = preopen(guest, fd)?.as_bytes();
            if name.len() > len as usize {
                return Err(Errno::NAMETOOLONG);
            }
            ram.put(at, name)
        })
    })?;
    linker.func_wrap(
        MODULE,
        "fd_readdir",
        |mut caller: G<'_>, fd: u32, at: u32, len: u32, cookie: u64, used: u32| -> Answer {
            call(&mut caller, |ram, guest| {
                let (folder, path, _) = guest.descriptors.folder(fd)?;
                let own = ([".", ".."]).map(|name| (name.to_owned(), Entry::Folder(1)));
                let entries = own.into_iter().chain(folder.list(&path)?);
                let mut bytes = Vec::new();
                for (index, (name, entry)) in (0_u64..).zip(entries) {
                    if index >= cookie && bytes.len() < len as usize {
                        put_entry(&mut bytes, index + 1, &name, &entry);
                    }
                }
                // An entry that does not fit is cut: the guest asks again with more room.
                bytes.truncate(len as usize);
                ram.put(at, &bytes)?;
                ram.put_u32(used, bytes.len() as u32)
            })
        },
    )?;
    Ok(())
}

fn preopen(guest: &Guest, fd: u32) -> Result<&str, Errno> {
    match guest.descriptors.get(fd)? {
        Descriptor::Folder { preopen: Some(name), .. } => Ok(name),
        _ => Err(Errno::BADF),
    }
}

fn put_entry(bytes: &mut Vec<u8>, next: u64, name: &str, entry: &Entry) {
    let (kind, inode, _) = described(entry);
    let mut head = [0; ENTRY_BYTES];
    head[..8].copy_from_slice(&next.to_le_bytes());
    head[8..16].copy_from_slice(&inode.to_le_bytes());
    head[16..20].copy_from_slice(&(name.len() as u32).to_le_bytes());
    head[20] = kind;
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(name.as_bytes());
}

/// What an entry is: its type, number and size.
pub(super) fn described(entry: &Entry) -> (u8, u64, u64) {
    match entry {
        Entry::Folder(inode) => (DIRECTORY, *inode, 0),
        Entry::File(file) => (REGULAR_FILE, file.inode, file.len()),
    }
}

/// Writes a `filestat`. Files in memory have no times.
pub(super) fn put_stat(ram: &mut Ram<'_>, at: u32, (kind, inode, size): (u8, u64, u64)) -> Result<(), Errno> {
    let mut stat = [0; 64];
    stat[8..16].copy_from_slice(&inode.to_le_bytes());
    stat[16] = kind;
    stat[24] = 1;
    stat[32..40].copy_from_slice(&size.to_le_bytes());
    ram.put(at, &stat)
}
