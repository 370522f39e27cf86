//! The state machine: entries in, a new state out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::Revision;
use coracle_base::Timestamp;

use crate::apply::attempt;
use crate::cache::TypedCache;
use crate::root::Root;
use crate::window::Window;
use crate::{Applied, Entry, Refused, Transaction, View, codec};

/// Bounds of a store. The same on every member: the window is derived state, but its bounds decide what 410 means.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How long the window keeps a change.
    pub window: Duration,
    /// How many bytes the window keeps at most: bodies, and an estimate of what keeping a change costs beyond its body.
    pub window_bytes: usize,
    /// How many bytes the typed views in the cache take at most, each estimated at four times its body.
    pub cache_bytes: usize,
    /// The attributes that get an index: resource (its `Display` form) and attribute, or `metadata.labels.` and a label's key.
    pub indexed: Vec<(String, String)>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(5),
            window_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            indexed: vec![
                ("pods".into(), "spec.nodeName".into()),
                // Every connection to a service's address looks the service up by it, then its slices, and who comes from where.
                ("services".into(), "spec.clusterIP".into()),
                ("endpointslices.discovery.k8s.io".into(), "metadata.labels.kubernetes.io/service-name".into()),
                ("pods".into(), "status.podIP".into()),
            ],
        }
    }
}

/// The replicated state of one member.
#[derive(Debug)]
pub struct Store {
    options: StoreOptions,
    time: Timestamp,
    root: Arc<Root>,
    window: Arc<Window>,
    cache: Arc<TypedCache>,
}

impl Store {
    /// An empty store.
    pub fn new(options: StoreOptions) -> Self {
        let root = Arc::new(Root::new(&options.indexed));
        let window = Window::starting_at(root.clone(), Timestamp::EPOCH, root.revision);
        Self::from_parts(options, Timestamp::EPOCH, root, window)
    }

    pub(crate) fn from_parts(options: StoreOptions, time: Timestamp, root: Arc<Root>, window: Window) -> Self {
        let cache = Arc::new(TypedCache::new(options.cache_bytes));
        Self { options, time, root, window: Arc::new(window), cache }
    }

    /// Applies one entry of the log, made in `term`; one result for each of its transactions.
    pub fn apply(&mut self, term: u64, entry: &Entry) -> Vec<Result<Applied, Refused>> {
        self.time = self.time.max(entry.time);
        let results = entry.transactions.iter().map(|transaction| self.apply_one(term, transaction)).collect();
        Arc::make_mut(&mut self.window).trim(self.time, self.options.window, self.options.window_bytes);
        results
    }

    fn apply_one(&mut self, term: u64, transaction: &Transaction) -> Result<Applied, Refused> {
        let outcome = attempt(&self.root, term, transaction)?;
        if let Some((root, changes)) = outcome.step {
            self.root = Arc::new(root);
            Arc::make_mut(&mut self.window).push(self.time, self.root.clone(), changes);
        }
        Ok(outcome.applied)
    }

    /// The current view.
    pub fn view(&self) -> View {
        View::new(self.root.clone(), self.time, self.window.clone(), self.cache.clone())
    }

    /// Adds to the revision and forgets the past: what a cluster that was restored from a backup does (by 1,000,000,000),
    /// so that a client that saw revisions beyond the backup is told to list again instead of seeing time go back.
    pub fn bump(&mut self, by: u64) {
        let mut root = Root::clone(&self.root);
        root.revision = Revision(root.revision.0.saturating_add(by));
        root.compacted = root.revision;
        self.root = Arc::new(root);
        self.window = Arc::new(Window::starting_at(self.root.clone(), self.time, self.root.revision));
    }

    /// The store that a snapshot holds.
    pub fn restore(options: StoreOptions, snapshot: &[u8]) -> Result<Self, CodecError> {
        codec::decode_snapshot(options, snapshot)
    }
}

/// Bytes that are no snapshot or entry of this version, or are damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} cannot be read: {why}")]
pub struct CodecError {
    /// `snapshot` or `entry`.
    pub what: &'static str,
    /// Why not.
    pub why: String,
}

impl View {
    /// Encodes the state and the window: versioned, checksummed; the same bytes on every member at the same revision
    /// for objects, counters and settlements.
    pub fn snapshot(&self) -> Vec<u8> {
        codec::encode_snapshot(self)
    }

    /// The SHA-256 of objects, counters and settlements: equal on every member at the same revision.
    pub fn digest(&self) -> [u8; 32] {
        codec::digest(self.root())
    }
}

impl Entry {
    /// The bytes of the log, with a format version.
    pub fn encode(&self) -> Bytes {
        codec::encode_entry(self)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode_entry(bytes)
    }

    /// Whether these bytes are of a version that [`Self::decode`] reads.
    pub fn check_version(bytes: &[u8]) -> Result<(), CodecError> {
        codec::check_entry_version(bytes)
    }

    /// An entry at a time.
    pub fn at(time: Timestamp) -> Self {
        Self { time, transactions: Vec::new() }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
