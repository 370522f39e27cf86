//! What a member of an in-memory cluster keeps while it is stopped: its log and its last snapshot, for as long as the process lives.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use coracle_engine::Restored;
use coracle_raft::WalBatch;
use coracle_store::{Store, StoreOptions};

/// The snapshot that the log names, and one more.
const SNAPSHOTS_MAX: usize = 2;

/// A disk that is none.
#[derive(Debug, Default)]
pub(crate) struct MemoryDisk {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    written: bool,
    log: coracle_raft::Restored,
    /// Snapshots by the index of the last entry in them: the one that the log names, and the next until it is named.
    snapshots: BTreeMap<u64, Bytes>,
}

impl MemoryDisk {
    /// Writes a batch, durable at once.
    pub(crate) fn write(&self, batch: WalBatch) {
        let mut kept = self.lock();
        kept.written = true;
        kept.log.write(batch);
    }

    /// Keeps a snapshot beside the one before.
    pub(crate) fn save(&self, index: u64, state: Bytes) {
        let mut kept = self.lock();
        kept.snapshots.insert(index, state);
        while kept.snapshots.len() > SNAPSHOTS_MAX {
            kept.snapshots.pop_first();
        }
    }

    /// The snapshot of this index, if it is still kept.
    pub(crate) fn snapshot(&self, index: u64) -> Option<Bytes> {
        self.lock().snapshots.get(&index).cloned()
    }

    /// What a member that starts again begins with; `None` for one that never wrote anything.
    pub(crate) fn restore(&self, options: &StoreOptions) -> Option<Restored> {
        let kept = self.lock();
        if !kept.written {
            return None;
        }
        let state = kept.snapshots.get(&kept.log.snapshot.mark.index);
        let store = state.map(|state| Store::restore(options.clone(), state).expect("it was encoded here"));
        Some(Restored { store, raft: kept.log.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics while it holds the lock")
    }
}
