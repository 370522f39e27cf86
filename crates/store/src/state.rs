//! The state machine: entries in, a new state out.

use std::time::Duration;

use bytes::Bytes;
use coracle_base::Timestamp;

use crate::{Applied, Entry, Refused, View};

/// Bounds of a store. The same on every member: the window is derived state, but its bounds decide what 410 means.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How long the window keeps a change.
    pub window: Duration,
    /// How many bytes of bodies the window keeps at most.
    pub window_bytes: usize,
    /// How many bytes of bodies may have their typed view cached.
    pub cache_bytes: usize,
    /// The attributes that get an index: resource (its `Display` form) and attribute.
    pub indexed: Vec<(String, String)>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(300),
            window_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            indexed: vec![("pods".into(), "spec.nodeName".into())],
        }
    }
}

/// The replicated state of one member.
#[derive(Debug)]
pub struct Store {
    _private: (),
}

/// Bytes that are no snapshot or entry of this version, or are damaged.
#[derive(Debug, thiserror::Error)]
#[error("the {what} cannot be read: {why}")]
pub struct CodecError {
    /// `snapshot` or `entry`.
    pub what: &'static str,
    /// Why not.
    pub why: String,
}

#[expect(unused_variables, clippy::todo, reason = "being written")]
impl Store {
    /// An empty store.
    pub fn new(options: StoreOptions) -> Self {
        todo!()
    }

    /// Applies one entry of the log, made in `term`; one result for each of its transactions.
    pub fn apply(&mut self, term: u64, entry: &Entry) -> Vec<Result<Applied, Refused>> {
        todo!()
    }

    /// The current view.
    pub fn view(&self) -> View {
        todo!()
    }

    /// The store that a snapshot holds.
    pub fn restore(options: StoreOptions, snapshot: &[u8]) -> Result<Self, CodecError> {
        todo!()
    }
}

impl View {
    /// Encodes the state and the window: versioned, checksummed; the same bytes on every member at the same revision
    /// for objects, counters and settlements.
    pub fn snapshot(&self) -> Vec<u8> {
        todo!()
    }
}

#[expect(clippy::todo, unused_variables, reason = "being written")]
impl Entry {
    /// The bytes of the log, with a format version.
    pub fn encode(&self) -> Bytes {
        todo!()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        todo!()
    }

    /// An entry at a time.
    pub fn at(time: Timestamp) -> Self {
        Self { time, transactions: Vec::new() }
    }
}
