//! What containers wrote: the current instance, the first one that failed, and the last five that ended, each bounded.
//!
//! With a directory every line is appended to a file as well, in the format of the container runtime interface
//! (`<time> <stream> <F|P> <text>`), and is read from there after a restart. Policy about pods is none of its business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use coracle_api::Uid;
use coracle_base::Timestamp;
use coracle_node::runtime::{ContainerId, LogStream};
use tokio::sync::watch;

use crate::Error;

mod query;

pub(crate) use query::{Instance, LogQuery};

/// Bytes of one instance's log that are kept; older lines go first. Kubernetes' default is 10 MiB of file.
const INSTANCE_BYTES_MAX: usize = 1 << 20;
/// Ended instances whose logs are kept, beside the first that failed.
const ENDED_KEPT: usize = 5;
/// The longest piece that is one line; what is longer is cut, as container runtimes do.
const LINE_BYTES_MAX: usize = 16 << 10;

/// A line, or the part of one that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) at: Timestamp,
    pub(crate) stream: LogStream,
    /// With its newline, unless it was cut or the container ended in the middle of it.
    pub(crate) text: Bytes,
}

/// The log of one instance.
#[derive(Debug)]
struct InstanceLog {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The number of the first line that is kept: how many were dropped before.
    first: u64,
    /// Lines that are not whole yet, by stream.
    unfinished: BTreeMap<u8, (Timestamp, Vec<u8>)>,
    ended: bool,
    failed: bool,
    file: Option<File>,
    written: usize,
    /// Told at each change: how many lines there ever were, and whether there will be more.
    changes: watch::Sender<(u64, bool)>,
}

/// The instances of one container by number.
type Instances = BTreeMap<u32, InstanceLog>;

/// The logs of a node's containers.
#[derive(Debug, Default)]
pub(crate) struct LogStore {
    directory: OnceLock<PathBuf>,
    containers: Mutex<BTreeMap<(Uid, String), Instances>>,
    /// The pods whose objects are there: their logs stay, even when nothing of them runs any more.
    pods: Mutex<BTreeSet<Uid>>,
}

impl LogStore {
    /// Keeps logs in this directory too, and reads what is there.
    pub(crate) fn keep_in(&self, directory: &Path) -> Result<(), Error> {
        fs::create_dir_all(directory).map_err(|source| Error::file("create", directory, source))?;
        let found = load(directory).map_err(|source| Error::file("read", directory, source))?;
        self.lock().extend(found);
        let _ = self.directory.set(directory.to_owned());
        Ok(())
    }

    /// A container runs: who follows its log waits for what it will write.
    pub(crate) fn started(&self, id: &ContainerId) {
        let directory = self.directory.get();
        let mut containers = self.lock();
        let instances = containers.entry((id.pod.clone(), id.container.clone())).or_default();
        instances.entry(id.instance).or_insert_with(|| InstanceLog::new(directory.and_then(|d| open(d, id))));
    }

    /// A container of before this process runs on: its log goes on where it was.
    pub(crate) fn resumed(&self, id: &ContainerId) {
        self.started(id);
        let directory = self.directory.get();
        let mut containers = self.lock();
        let log = containers.get_mut(&(id.pod.clone(), id.container.clone())).and_then(|all| all.get_mut(&id.instance));
        if let Some(log) = log.filter(|log| log.ended) {
            log.resume(directory.and_then(|directory| open(directory, id)));
        }
    }

    /// When the last thing that is kept of an instance was written.
    pub(crate) fn written_until(&self, id: &ContainerId) -> Option<Timestamp> {
        let containers = self.lock();
        let log = containers.get(&(id.pod.clone(), id.container.clone()))?.get(&id.instance)?;
        let unfinished = log.unfinished.values().map(|(at, _)| *at);
        log.lines.back().map(|line| line.at).into_iter().chain(unfinished).max()
    }

    /// A container wrote something.
    pub(crate) fn append(&self, id: &ContainerId, stream: LogStream, bytes: &[u8], at: Timestamp) {
        let directory = self.directory.get();
        let mut containers = self.lock();
        let instances = containers.entry((id.pod.clone(), id.container.clone())).or_default();
        let log = instances.entry(id.instance).or_insert_with(|| InstanceLog::new(directory.and_then(|d| open(d, id))));
        log.append(stream, bytes, at);
        drop(containers);
    }

    /// A container ended: what it wrote is kept for a while.
    pub(crate) fn ended(&self, id: &ContainerId, failed: bool) {
        let directory = self.directory.get();
        let mut containers = self.lock();
        let instances = containers.entry((id.pod.clone(), id.container.clone())).or_default();
        let log = instances.entry(id.instance).or_insert_with(|| InstanceLog::new(directory.and_then(|d| open(d, id))));
        log.end(failed);
        for instance in forgettable(instances) {
            instances.remove(&instance);
            if let Some(directory) = directory {
                let id = ContainerId { instance, ..id.clone() };
                let _ = fs::remove_file(path(directory, &id));
            }
        }
    }

    /// The end of what an instance wrote: whole lines, at most `lines` and `bytes` together, or the end of a longer last one.
    pub(crate) fn tail(&self, id: &ContainerId, lines: usize, bytes: usize) -> Option<String> {
        let containers = self.lock();
        let log = containers.get(&(id.pod.clone(), id.container.clone()))?.get(&id.instance)?;
        let mut tail = VecDeque::new();
        let mut left = bytes;
        for line in log.lines.iter().rev().take(lines) {
            let text = &line.text;
            if text.len() > left {
                if tail.is_empty() {
                    tail.push_front(text.slice(text.len() - left..));
                }
                break;
            }
            left -= text.len();
            tail.push_front(text.clone());
        }
        drop(containers);
        let tail = tail.into_iter().collect::<Vec<_>>().concat();
        Some(String::from_utf8_lossy(&tail).into_owned()).filter(|tail| !tail.is_empty())
    }

    /// A pod's object is there.
    pub(crate) fn pod_exists(&self, pod: &Uid) {
        self.pods().insert(pod.clone());
    }

    /// A pod's object is gone, and its logs with it. What a container of it still writes goes with its sandbox.
    pub(crate) fn pod_deleted(&self, pod: &Uid) {
        self.pods().remove(pod);
        self.remove(pod);
    }

    /// Nothing of a pod runs any more. The logs of one that has ended can be read until its object is deleted.
    pub(crate) fn sandbox_removed(&self, pod: &Uid) {
        if !self.pods().contains(pod) {
            self.remove(pod);
        }
    }

    /// Every pod that there is has been told of: what was kept of others goes.
    pub(crate) fn synced(&self) {
        let pods = self.pods();
        let gone: BTreeSet<Uid> =
            self.lock().keys().map(|(pod, _)| pod).filter(|pod| !pods.contains(*pod)).cloned().collect();
        drop(pods);
        for pod in &gone {
            self.remove(pod);
        }
    }

    fn remove(&self, pod: &Uid) {
        self.lock().retain(|(uid, _), _| uid != pod);
        if let Some(directory) = self.directory.get() {
            let _ = fs::remove_dir_all(directory.join(pod.as_str()));
        }
    }

    fn pods(&self) -> MutexGuard<'_, BTreeSet<Uid>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Uid, String), Instances>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InstanceLog {
    fn new(file: Option<File>) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            first: 0,
            unfinished: BTreeMap::new(),
            ended: false,
            failed: false,
            file,
            written: 0,
            changes: watch::channel((0, false)).0,
        }
    }

    fn append(&mut self, stream: LogStream, bytes: &[u8], at: Timestamp) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (began, mut line) = self.unfinished.remove(&(stream as u8)).unwrap_or((at, Vec::new()));
            line.extend_from_slice(piece);
            while line.len() > LINE_BYTES_MAX {
                let rest = line.split_off(LINE_BYTES_MAX);
                self.push(Line { at: began, stream, text: std::mem::replace(&mut line, rest).into() });
            }
            if line.ends_with(b"\n") {
                self.push(Line { at: began, stream, text: line.into() });
            } else {
                self.unfinished.insert(stream as u8, (began, line));
            }
        }
        self.tell();
    }

    fn end(&mut self, failed: bool) {
        for (stream, (at, line)) in std::mem::take(&mut self.unfinished) {
            let stream = if stream == LogStream::Stdout as u8 { LogStream::Stdout } else { LogStream::Stderr };
            self.push(Line { at, stream, text: line.into() });
        }
        self.ended = true;
        self.failed = failed;
        if let Some(file) = &mut self.file {
            // How it ended is a line that no container can write: its stream has another name.
            let _ =
                writeln!(file, "{} end F {}", Timestamp::EPOCH.rfc3339_nano(), if failed { "failed" } else { "done" });
        }
        self.file = None;
        self.tell();
    }

    /// It was read from the disk as one that had ended, and has not.
    fn resume(&mut self, file: Option<File>) {
        self.ended = false;
        self.written = self.bytes;
        self.file = file;
        self.tell();
    }

    fn push(&mut self, line: Line) {
        self.write(&line);
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.bytes > INSTANCE_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.text.len();
            self.first += 1;
        }
    }

    /// Appends to the file; one that has grown to twice the bound begins anew with what is kept.
    fn write(&mut self, line: &Line) {
        let Some(file) = &mut self.file else { return };
        let mut out = Vec::with_capacity(line.text.len() + 48);
        encode(line, &mut out);
        self.written += out.len();
        if self.written > 2 * INSTANCE_BYTES_MAX && file.set_len(0).is_ok() {
            let mut kept = Vec::new();
            self.lines.iter().for_each(|line| encode(line, &mut kept));
            self.written = kept.len() + out.len();
            let _ = file.write_all(&kept);
        }
        let _ = file.write_all(&out);
    }

    fn tell(&self) {
        self.changes.send_replace((self.first + self.lines.len() as u64, self.ended));
    }
}

/// Which ended instances need not be kept: all but the last five and the first that failed.
fn forgettable(instances: &Instances) -> Vec<u32> {
    let ended: Vec<u32> = instances.iter().filter(|(_, log)| log.ended).map(|(instance, _)| *instance).collect();
    let first_failed = instances.iter().find(|(_, log)| log.failed).map(|(instance, _)| *instance);
    let surplus = ended.len().saturating_sub(ENDED_KEPT);
    ended.into_iter().take(surplus).filter(|instance| Some(*instance) != first_failed).collect()
}

fn path(directory: &Path, id: &ContainerId) -> PathBuf {
    directory.join(id.pod.as_str()).join(&id.container).join(format!("{}.log", id.instance))
}

fn open(directory: &Path, id: &ContainerId) -> Option<File> {
    let path = path(directory, id);
    fs::create_dir_all(path.parent()?).ok()?;
    OpenOptions::new().append(true).create(true).open(&path).ok()
}

fn encode(line: &Line, out: &mut Vec<u8>) {
    let stream = if line.stream == LogStream::Stdout { "stdout" } else { "stderr" };
    let whole = line.text.ends_with(b"\n");
    let tag = if whole { "F" } else { "P" };
    out.extend_from_slice(format!("{} {stream} {tag} ", line.at.rfc3339_nano()).as_bytes());
    out.extend_from_slice(line.text.strip_suffix(b"\n").unwrap_or(&line.text));
    out.push(b'\n');
}

fn load(directory: &Path) -> std::io::Result<BTreeMap<(Uid, String), Instances>> {
    let mut found: BTreeMap<(Uid, String), Instances> = BTreeMap::new();
    for pod in fs::read_dir(directory)?.flatten() {
        for container in fs::read_dir(pod.path())?.flatten() {
            for file in fs::read_dir(container.path())?.flatten() {
                let name = file.file_name().to_string_lossy().into_owned();
                let Some(instance) = name.strip_suffix(".log").and_then(|number| number.parse().ok()) else { continue };
                let key = (
                    Uid::from(&*pod.file_name().to_string_lossy()),
                    container.file_name().to_string_lossy().into_owned(),
                );
                found.entry(key).or_default().insert(instance, load_instance(&file.path())?);
            }
        }
    }
    Ok(found)
}

/// An instance of before the process was started again: it has ended, one way or another.
fn load_instance(path: &Path) -> std::io::Result<InstanceLog> {
    let mut log = InstanceLog::new(None);
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let line = line?;
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let text = |part: Option<&[u8]>| String::from_utf8_lossy(part.unwrap_or_default()).into_owned();
        let (at, stream, tag) = (text(parts.next()), text(parts.next()), text(parts.next()));
        let rest = parts.next().unwrap_or_default();
        let stream = match stream.as_str() {
            "stdout" => LogStream::Stdout,
            "stderr" => LogStream::Stderr,
            "end" => {
                log.failed = rest == b"failed";
                continue;
            }
            _ => continue, // the torn end of a file
        };
        let mut bytes = rest.to_vec();
        if tag == "F" {
            bytes.push(b'\n');
        }
        log.push(Line { at: Timestamp::parse(&at).unwrap_or_default(), stream, text: bytes.into() });
    }
    log.ended = true;
    log.tell();
    Ok(log)
}

/// Shared by who writes and who reads.
pub(crate) type SharedLogs = Arc<LogStore>;

#[cfg(test)]
mod tests;
