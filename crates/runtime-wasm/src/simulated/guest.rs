//! What belongs to one simulated guest: its arguments, its open files, its randomness, its memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_base::Rng;
use coracle_node::runtime::LogStream;

use super::errno::Errno;
use super::folder::{File, Folder};
use super::ledger::Ledger;
use crate::account::InstanceMemory;

/// The most files and folders that a guest may have open.
const DESCRIPTORS_MAX: usize = 1_024;

/// The state of an instance.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) args: Vec<String>,
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) rng: Rng,
    pub(super) descriptors: Descriptors,
    pub(super) memory: InstanceMemory,
    pub(super) ledger: Arc<Mutex<Ledger>>,
}

impl Guest {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A folder that a guest sees from its start.
#[derive(Clone, Debug)]
pub(super) struct Preopen {
    /// The folder it lies in, and where in it.
    pub(super) folder: Folder,
    pub(super) path: String,
    /// Where the guest sees it.
    pub(super) guest: String,
    pub(super) read_only: bool,
}

/// Something open.
#[derive(Clone, Debug)]
pub(super) enum Descriptor {
    /// Standard input: at its end, as `stdin: false` has it.
    Input,
    /// Standard output or error.
    Output(LogStream),
    /// A folder; `preopen`: its name, where it was open from the start.
    Folder { folder: Folder, path: String, read_only: bool, preopen: Option<String> },
    /// A file.
    File(OpenFile),
}

/// An open file.
#[derive(Clone, Debug)]
pub(super) struct OpenFile {
    pub(super) folder: Folder,
    pub(super) file: File,
    pub(super) offset: u64,
    pub(super) append: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// What a guest has open, by number: 0 to 2 are its input, output and errors, preopened folders follow.
#[derive(Debug)]
pub(super) struct Descriptors(BTreeMap<u32, Descriptor>);

impl Descriptors {
    pub(super) fn new(preopens: Vec<Preopen>) -> Self {
        let standard =
            [Descriptor::Input, Descriptor::Output(LogStream::Stdout), Descriptor::Output(LogStream::Stderr)];
        let folders = preopens.into_iter().map(|Preopen { folder, path, guest, read_only }| Descriptor::Folder {
            folder,
            path,
            read_only,
            preopen: Some(guest),
        });
        Self((0..).zip(standard.into_iter().chain(folders)).collect())
    }

    pub(super) fn get(&self, number: u32) -> Result<&Descriptor, Errno> {
        self.0.get(&number).ok_or(Errno::BADF)
    }

    pub(super) fn file(&mut self, number: u32) -> Result<&mut OpenFile, Errno> {
        match self.0.get_mut(&number) {
            Some(Descriptor::File(file)) => Ok(file),
            // As in production: a folder is not open as a file.
            Some(Descriptor::Folder { .. }) | None => Err(Errno::BADF),
            Some(Descriptor::Input | Descriptor::Output(_)) => Err(Errno::SPIPE),
        }
    }

    /// An open folder: which one, where in it, and whether it is only read.
    pub(super) fn folder(&self, number: u32) -> Result<(Folder, String, bool), Errno> {
        match self.get(number)? {
            Descriptor::Folder { folder, path, read_only, .. } => Ok((folder.clone(), path.clone(), *read_only)),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Takes the lowest free number.
    pub(super) fn open(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        if self.0.len() >= DESCRIPTORS_MAX {
            return Err(Errno::MFILE);
        }
        let number = (0..=DESCRIPTORS_MAX as u32).find(|number| !self.0.contains_key(number)).ok_or(Errno::MFILE)?;
        self.0.insert(number, descriptor);
        Ok(number)
    }

    pub(super) fn close(&mut self, number: u32) -> Result<(), Errno> {
        self.0.remove(&number).map(drop).ok_or(Errno::BADF)
    }

    /// Gives an open descriptor the number of another one, which is closed.
    pub(super) fn renumber(&mut self, from: u32, to: u32) -> Result<(), Errno> {
        self.get(to)?;
        let moved = self.0.remove(&from).ok_or(Errno::BADF)?;
        self.0.insert(to, moved);
        Ok(())
    }
}
