//! The log's file: records one after the other, each durable before the next is begun, and what is no longer needed left behind by
//! writing the rest anew.
//!
//! A record is framed by its length and that length's complement, begins at a multiple of eight bytes, and is sealed for its number, so
//! that none can be changed, moved or stand in for another. Behind the last one there are zeros, written ahead: a write that does not
//! make the file longer is durable sooner. A crash can leave the last record unfinished; it was never called durable, and is passed over.
//! Nothing here knows what a member does with its log.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use coracle_raft::{Restored, SnapshotMark, WalBatch};

use super::records::{self, Head};
use crate::data_directory::private_directory;
use crate::node::private_file;
use crate::seal::Sealer;

/// What the file begins with, before the number of its layout.
const MAGIC: [u8; 7] = *b"coracle";
/// The layout of the file; any other is refused. Those before were tables in another file.
pub(super) const FORMAT: u8 = 5;
/// Magic, layout, and the number of the head's record.
const PREAMBLE: usize = 16;
/// A record's length and its complement.
const FRAME: usize = 8;
/// Where records begin: a frame is never half in one of a disk's sectors.
const ALIGN: usize = 8;
/// What a disk writes as a whole.
const SECTOR: usize = 512;
/// How far ahead zeros are written.
const AHEAD: u64 = 4 << 20;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is damaged: what, and where.
    #[error("{0}")]
    Damaged(String),
    /// It is of another layout.
    #[error("its format is {0}")]
    Format(u8),
}

/// What a log holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) head: Head,
    pub(super) log: Restored,
}

/// What goes from one file to the next.
enum Kept<'a> {
    Nothing,
    /// The records that have a place, as they are.
    Records(File),
    /// A batch with everything.
    Batch(&'a WalBatch),
}

/// A record in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    offset: u64,
    /// The highest index of its entries; zero without any.
    last: u64,
}

/// The file, which one process at a time has.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    /// Held for as long as this lives; the log itself is replaced when it is written anew.
    _lock: File,
    out: Option<File>,
    head: Head,
    places: VecDeque<Place>,
    /// The number of the next record, where it goes, and how far zeros reach.
    next: u64,
    end: u64,
    ahead: u64,
    /// Terms of entries by the index from which they hold: what a new beginning is named with.
    terms: VecDeque<(u64, u64)>,
}

impl LogFile {
    /// Takes the file for this process; `None` when another one has it. It need not be there.
    pub(super) fn lock(path: &Path) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            private_directory(folder)?;
        }
        let name = path.with_extension("lock");
        let lock = match OpenOptions::new().write(true).open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => private_file(&name)?,
            opened => opened?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Some(Self {
            path: path.to_owned(),
            _lock: lock,
            out: None,
            head: Head::default(),
            places: VecDeque::new(),
            next: 1,
            end: 0,
            ahead: 0,
            terms: VecDeque::new(),
        }))
    }

    /// Everything in it; `None` when it is not there or has nothing. What is written from here on follows it.
    pub(super) fn read(&mut self, sealer: &Sealer) -> Result<Option<Contents>, ReadError> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let length = file.metadata()?.len();
        if length == 0 {
            return Ok(None);
        }
        let mut scan = Scan { input: BufReader::with_capacity(1 << 20, file), at: 0, length };
        let number = scan.preamble()?;
        let Some((_, sealed)) = scan.record()? else { return Err(damaged("it has no head")) };
        let head = open(sealer, &head_purpose(number), &sealed, "its head")?;
        let head = Head::decode(&head).map_err(|why| damaged(format!("its head cannot be read: {why}")))?;
        let mut log = Restored {
            hard_state: head.hard_state.unwrap_or_default(),
            snapshot: head.snapshot.clone(),
            base: head.base,
            entries: Vec::new(),
        };
        let mut has_state = head.hard_state.is_some();
        self.places.clear();
        self.terms = VecDeque::from([(head.base.index, head.base.term)]);
        self.head = head.clone();
        self.next = number + 1;
        while let Some((offset, sealed)) = scan.record()? {
            let what = format!("record {}", self.next);
            let plain = open(sealer, &purpose(self.next), &sealed, &what)?;
            let batches = records::decode(&plain).map_err(|why| damaged(format!("{what} cannot be read: {why}")))?;
            self.note(offset, &batches);
            for mut batch in batches {
                has_state |= batch.hard_state.is_some();
                let begins = batch.entries.first().map(|entry| entry.index);
                if !batch.restart && begins.is_some_and(|first| first <= log.base.index) {
                    // Of a record that was kept for its later entries. What it replaced goes, even where only earlier ones came.
                    log.entries.clear();
                    batch.entries.retain(|entry| entry.index > log.base.index);
                }
                log.write(batch);
            }
        }
        self.end = scan.at;
        let head = Head {
            member: head.member,
            hard_state: has_state.then_some(log.hard_state),
            snapshot: log.snapshot.clone(),
            base: log.base,
        };
        self.head = head.clone();
        Ok(Some(Contents { head, log }))
    }

    /// Writes batches, in order and at once. They are durable when it returns; after an error nothing more may be written.
    pub(super) fn commit(&mut self, sealer: &Sealer, batches: &[WalBatch]) -> io::Result<()> {
        if self.end == 0 {
            self.begin(sealer, self.head.clone())?;
        }
        let sealed = sealer.seal(&purpose(self.next), &records::encode(batches));
        let frame = frame(&sealed)?;
        let offset = self.end;
        self.out(offset + frame.len() as u64)?.write_all(&frame)?;
        self.out(0)?.sync_data()?;
        self.end += frame.len() as u64;
        self.note(offset, batches);
        let compacted = batches.iter().any(|batch| batch.restart || batch.compact_to.is_some());
        if compacted { self.leave_behind(sealer) } else { Ok(()) }
    }

    /// Gives up what is there, and begins with a head.
    pub(super) fn begin(&mut self, sealer: &Sealer, head: Head) -> io::Result<()> {
        self.places.clear();
        self.terms = VecDeque::from([(head.base.index, head.base.term)]);
        self.head = head;
        self.write_anew(sealer, Kept::Nothing)
    }

    /// Seals everything with the newest key.
    pub(super) fn reseal(&mut self, sealer: &Sealer, contents: Contents) -> io::Result<()> {
        let Contents { head, log } = contents;
        self.places.clear();
        self.head = head;
        self.write_anew(sealer, Kept::Batch(&WalBatch { entries: log.entries, ..WalBatch::default() }))
    }

    /// Takes note of batches that are in the file: what the head of the next file says.
    fn note(&mut self, offset: u64, batches: &[WalBatch]) {
        let mut last = 0;
        for batch in batches {
            if let Some(pointer) = &batch.snapshot {
                self.head.snapshot = pointer.clone();
                if batch.restart {
                    self.head.base = pointer.mark;
                    self.terms = VecDeque::from([(pointer.mark.index, pointer.mark.term)]);
                    // Nothing before this record is needed.
                    self.places.clear();
                    last = 0;
                }
            }
            if let Some(first) = batch.entries.first() {
                while self.terms.len() > 1 && self.terms.back().is_some_and(|(from, _)| *from >= first.index) {
                    self.terms.pop_back();
                }
            }
            for entry in &batch.entries {
                if self.terms.back().is_none_or(|(_, term)| *term != entry.term) {
                    self.terms.push_back((entry.index, entry.term));
                }
                last = last.max(entry.index);
            }
            self.head.hard_state = batch.hard_state.or(self.head.hard_state);
            if let Some(index) = batch.compact_to.filter(|index| *index > self.head.base.index) {
                while self.terms.get(1).is_some_and(|(from, _)| *from <= index) {
                    self.terms.pop_front();
                }
                let term = self.terms.front().map_or(0, |(_, term)| *term);
                self.head.base = SnapshotMark { index, term };
            }
        }
        self.places.push_back(Place { number: self.next, offset, last });
        self.next += 1;
    }

    /// Writes the file anew from the first record on that is still needed.
    fn leave_behind(&mut self, sealer: &Sealer) -> io::Result<()> {
        let base = self.head.base.index;
        while self.places.front().is_some_and(|place| place.last <= base) {
            self.places.pop_front();
        }
        let old = File::open(&self.path)?;
        self.write_anew(sealer, Kept::Records(old))
    }

    /// A new file with the head and what is kept, in the place of the old one.
    fn write_anew(&mut self, sealer: &Sealer, kept: Kept<'_>) -> io::Result<()> {
        let number = self.places.front().map_or(self.next, |place| place.number - 1);
        let unfinished = self.path.with_extension("unfinished");
        let mut out = private_file(&unfinished)?;
        let mut begin = [&MAGIC[..], &[FORMAT], &number.to_le_bytes()].concat();
        begin.extend(frame(&sealer.seal(&head_purpose(number), &self.head.encode()))?);
        out.write_all(&begin)?;
        let mut end = begin.len() as u64;
        match kept {
            Kept::Nothing => {}
            Kept::Records(mut old) => {
                if let Some(first) = self.places.front().map(|place| place.offset) {
                    old.seek(SeekFrom::Start(first))?;
                    end += io::copy(&mut old.take(self.end - first), &mut out)?;
                    for place in &mut self.places {
                        place.offset = place.offset - first + begin.len() as u64;
                    }
                }
            }
            Kept::Batch(batch) => {
                let batches = std::slice::from_ref(batch);
                self.next = number + 1;
                let frame = frame(&sealer.seal(&purpose(self.next), &records::encode(batches)))?;
                out.write_all(&frame)?;
                self.note(end, batches);
                end += frame.len() as u64;
            }
        }
        out.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        self.next = self.places.back().map_or(number, |place| place.number) + 1;
        (self.end, self.ahead, self.out) = (end, end, Some(out));
        Ok(())
    }

    /// The file at its end, with zeros up to a place.
    fn out(&mut self, until: u64) -> io::Result<&mut File> {
        if self.out.is_none() {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            // What is behind the end is nothing, or a record that was never durable.
            file.set_len(self.end)?;
            self.ahead = self.end;
            self.out = Some(file);
        }
        let file = self.out.as_mut().expect("it was just opened");
        if until > self.ahead {
            let zeros = vec![0; usize::try_from((until - self.ahead).next_multiple_of(AHEAD)).unwrap_or(usize::MAX)];
            file.seek(SeekFrom::Start(self.ahead))?;
            file.write_all(&zeros)?;
            self.ahead += zeros.len() as u64;
            // The length is durable before anything relies on it.
            file.sync_all()?;
        }
        if until > 0 {
            file.seek(SeekFrom::Start(self.end))?;
        }
        Ok(file)
    }
}

/// What a record is sealed for: none can stand in for another.
fn purpose(number: u64) -> String {
    format!("log record {number}")
}

fn head_purpose(number: u64) -> String {
    format!("log head {number}")
}

fn open(sealer: &Sealer, purpose: &str, sealed: &[u8], what: &str) -> Result<Vec<u8>, ReadError> {
    sealer.open(purpose, sealed).map_err(|why| damaged(format!("{what} cannot be opened: {why}")))
}

fn damaged(what: impl Into<String>) -> ReadError {
    ReadError::Damaged(what.into())
}

/// A record as it stands in the file.
fn frame(sealed: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(sealed.len()).map_err(|_| io::Error::other("a record of the log is too long"))?;
    let mut frame = Vec::with_capacity((FRAME + sealed.len()).next_multiple_of(ALIGN));
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&(!length).to_le_bytes());
    frame.extend_from_slice(sealed);
    frame.resize((FRAME + sealed.len()).next_multiple_of(ALIGN), 0);
    Ok(frame)
}

/// Goes through a file.
struct Scan {
    input: BufReader<File>,
    at: u64,
    length: u64,
}

impl Scan {
    /// The number of the head's record.
    fn preamble(&mut self) -> Result<u64, ReadError> {
        let mut preamble = [0; PREAMBLE];
        let short = |_| damaged("it is too short to be a log");
        self.input.read_exact(&mut preamble).map_err(short)?;
        self.at = PREAMBLE as u64;
        let (magic, rest) = preamble.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(damaged("it does not begin like a log"));
        }
        match rest.split_first() {
            Some((&FORMAT, number)) => Ok(number.try_into().map_or(0, u64::from_le_bytes)),
            Some((&other, _)) => Err(ReadError::Format(other)),
            None => Err(damaged("it is too short to be a log")),
        }
    }

    /// The next record, sealed, and where it stands; `None` at the end. The place then is that of the end.
    fn record(&mut self) -> Result<Option<(u64, Vec<u8>)>, ReadError> {
        let (offset, left) = (self.at, self.length - self.at);
        if left < FRAME as u64 {
            return Ok(None);
        }
        let mut head = [0; FRAME];
        self.input.read_exact(&mut head)?;
        if head == [0; FRAME] {
            return Ok(None);
        }
        let (length, complement) = head.split_at(FRAME / 2);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
        let length = number(length);
        if number(complement) != !length {
            return Err(damaged(format!("the record at byte {offset} has no length")));
        }
        let whole = (FRAME as u64 + u64::from(length)).next_multiple_of(ALIGN as u64);
        if whole > left {
            return Ok(None); // it was not written to its end
        }
        let mut rest = vec![0; usize::try_from(whole).unwrap_or(usize::MAX) - FRAME];
        self.input.read_exact(&mut rest)?;
        if self.is_torn(offset, &rest) {
            return Ok(None);
        }
        rest.truncate(length as usize);
        self.at = offset + whole;
        Ok(Some((offset, rest)))
    }

    /// Whether part of the last record did not reach the disk: a sector of it is what it was before, zeros, and so is everything behind.
    fn is_torn(&mut self, offset: u64, rest: &[u8]) -> bool {
        let begin = usize::try_from((offset + FRAME as u64) % SECTOR as u64).unwrap_or(0);
        let first = (SECTOR - begin).min(rest.len());
        let sectors = std::iter::once(&rest[..first]).chain(rest[first..].chunks(SECTOR));
        // A few zeros at the end of a record may be what they are.
        let missing = sectors.into_iter().any(|sector| sector.len() > ALIGN && sector.iter().all(|byte| *byte == 0));
        missing && {
            let mut next = [0; FRAME];
            self.input.read_exact(&mut next).is_err() || next == [0; FRAME]
        }
    }
}
