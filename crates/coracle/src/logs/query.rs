//! Reading a log: which instance, which lines, and whether to go on.

use bytes::{BufMut as _, Bytes, BytesMut};
use coracle_api::Uid;
use coracle_apiserver::LogOptions;
use coracle_base::{Now, Timestamp};
use coracle_node::runtime::LogStream;
use tokio::sync::watch;

use super::{InstanceLog, Instances, LogStore, SharedLogs};

/// Which instance of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instance {
    /// The newest.
    Current,
    /// The one before the newest.
    Previous,
    /// The first that failed.
    FirstFailed,
    /// The so-manieth newest that has ended, from 1.
    Ended(usize),
}

/// What to read.
#[derive(Clone, Debug)]
pub(crate) struct LogQuery {
    pub(crate) pod: Uid,
    pub(crate) container: String,
    pub(crate) instance: Instance,
    pub(crate) options: LogOptions,
}

/// A log that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    logs: SharedLogs,
    query: LogQuery,
    number: u32,
    changes: watch::Receiver<(u64, bool)>,
    /// The number of the next line.
    next: u64,
    since: Option<Timestamp>,
    left: Option<u64>,
    done: bool,
}

impl LogQuery {
    /// What a request asks for; a text for the client when its `instance` is none.
    pub(crate) fn new(pod: &Uid, container: &str, options: LogOptions) -> Result<Self, String> {
        let instance = match options.instance.as_deref() {
            None if options.previous => Instance::Previous,
            None => Instance::Current,
            Some("first") => Instance::FirstFailed,
            Some(number) => match number.parse() {
                Ok(number @ 1..=super::ENDED_KEPT) => Instance::Ended(number),
                _ => {
                    return Err(format!(
                        "instance {number:?} is not \"first\" or a number from 1 to {}",
                        super::ENDED_KEPT
                    ));
                }
            },
        };
        Ok(Self { pod: pod.clone(), container: container.to_owned(), instance, options })
    }
}

impl LogStore {
    /// Begins to read; `None` when there is no such instance.
    pub(crate) fn read(logs: &SharedLogs, query: LogQuery, now: Now) -> Option<Reader> {
        let containers = logs.lock();
        let instances = containers.get(&(query.pod.clone(), query.container.clone()))?;
        let number = select(instances, query.instance)?;
        let log = instances.get(&number)?;
        let since = query.options.since_time.or_else(|| {
            let seconds = query.options.since_seconds?;
            Some(now.wall - std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        });
        let next = first_line(log, &query, since);
        let (changes, left) = (log.changes.subscribe(), query.options.limit_bytes);
        drop(containers);
        Some(Reader { logs: SharedLogs::clone(logs), query, number, changes, next, since, left, done: false })
    }
}

fn select(instances: &Instances, instance: Instance) -> Option<u32> {
    let ended = || instances.iter().rev().filter(|(_, log)| log.ended).map(|(number, _)| *number);
    match instance {
        Instance::Current => instances.keys().next_back().copied(),
        Instance::Previous => instances.keys().rev().nth(1).copied(),
        Instance::FirstFailed => instances.iter().find(|(_, log)| log.failed).map(|(number, _)| *number),
        Instance::Ended(number) => ended().nth(number - 1),
    }
}

/// The number of the first line to send: so many from the end, among those that are wanted at all.
fn first_line(log: &InstanceLog, query: &LogQuery, since: Option<Timestamp>) -> u64 {
    let Some(tail) = query.options.tail_lines else { return log.first };
    let wanted = log.lines.iter().enumerate().rev().filter(|(_, line)| is_wanted(query, since, line.stream, line.at));
    if tail == 0 {
        return log.first + log.lines.len() as u64;
    }
    let from =
        wanted.take(usize::try_from(tail).unwrap_or(usize::MAX)).last().map_or(log.lines.len(), |(index, _)| index);
    log.first + from as u64
}

fn is_wanted(query: &LogQuery, since: Option<Timestamp>, stream: LogStream, at: Timestamp) -> bool {
    let named = match query.options.stream.as_deref() {
        Some("Stdout") => stream == LogStream::Stdout,
        Some("Stderr") => stream == LogStream::Stderr,
        _ => true,
    };
    named && since.is_none_or(|since| at >= since)
}

impl Reader {
    /// The next piece; `None` at the end. With `follow` it waits for what comes until the container ends.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.done {
                return None;
            }
            let (_, ended) = *self.changes.borrow_and_update();
            let piece = self.take();
            self.done = !self.query.options.follow || ended || self.left == Some(0);
            if !piece.is_empty() {
                return Some(piece);
            }
            if !self.done && self.changes.changed().await.is_err() {
                return None; // the pod and its log are gone
            }
        }
    }

    /// Whatever there is now.
    fn take(&mut self) -> Bytes {
        let containers = self.logs.lock();
        let key = (self.query.pod.clone(), self.query.container.clone());
        let Some(log) = containers.get(&key).and_then(|instances| instances.get(&self.number)) else {
            return Bytes::new();
        };
        let skip = self.next.saturating_sub(log.first) as usize;
        let mut out = BytesMut::new();
        for line in log.lines.iter().skip(skip) {
            if !is_wanted(&self.query, self.since, line.stream, line.at) {
                continue;
            }
            if self.query.options.timestamps {
                out.put_slice(line.at.rfc3339_nano().as_bytes());
                out.put_u8(b' ');
            }
            out.put_slice(&line.text);
        }
        self.next = log.first + log.lines.len() as u64;
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        out.freeze()
    }
}
