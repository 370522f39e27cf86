//! Memory of guests: what a container's instances hold together, and all containers of the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// What a table element takes.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// The linear memory of all guests.
#[derive(Debug)]
pub(crate) struct NodeMemory {
    limit: u64,
    used: AtomicU64,
}

impl NodeMemory {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }
}

/// The memory of one container.
#[derive(Debug)]
pub(crate) struct MemoryAccount {
    limit: Option<u64>,
    used: AtomicU64,
    node: Arc<NodeMemory>,
}

/// A guest grew beyond what it, or all of them, may have. It ends the guest at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemoryExceeded {
    #[error("memory limit of {limit} bytes exceeded")]
    Container { limit: u64 },
    #[error("the node's {limit} bytes of memory for Wasm guests are used up")]
    Node { limit: u64 },
}

/// Adds unless the sum would be over the limit.
fn reserve(used: &AtomicU64, limit: u64, bytes: u64) -> bool {
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| used.checked_add(bytes).filter(|sum| *sum <= limit))
        .is_ok()
}

impl MemoryAccount {
    pub(crate) fn new(limit: Option<u64>, node: Arc<NodeMemory>) -> Self {
        Self { limit, used: AtomicU64::new(0), node }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn grow(&self, bytes: u64) -> Result<(), MemoryExceeded> {
        let limit = self.limit.unwrap_or(u64::MAX);
        if !reserve(&self.used, limit, bytes) {
            return Err(MemoryExceeded::Container { limit });
        }
        if !reserve(&self.node.used, self.node.limit, bytes) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(MemoryExceeded::Node { limit: self.node.limit });
        }
        Ok(())
    }

    /// Counts bytes that this process holds for the container's guests.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Result<Held, MemoryExceeded> {
        let bytes = bytes as u64;
        self.grow(bytes)?;
        Ok(Held { account: Arc::clone(self), bytes })
    }

    fn shrink(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.node.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are held for a container; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    account: Arc<MemoryAccount>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.shrink(self.bytes);
    }
}

/// What one instance holds; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    account: Arc<MemoryAccount>,
    held: u64,
    /// The growth that was allowed last, in case it fails after all.
    last: u64,
}

impl InstanceMemory {
    pub(crate) fn new(account: Arc<MemoryAccount>) -> Self {
        Self { account, held: 0, last: 0 }
    }

    fn grow(&mut self, bytes: usize) -> wasmtime::Result<bool> {
        self.last = 0;
        let bytes = bytes as u64;
        // An error, not `false`: the guest ends here instead of being told that there is no memory.
        self.account.grow(bytes).map_err(wasmtime::Error::new)?;
        self.held += bytes;
        self.last = bytes;
        Ok(true)
    }

    fn undo(&mut self) {
        self.account.shrink(self.last);
        self.held -= self.last;
        self.last = 0;
    }
}

impl Drop for InstanceMemory {
    fn drop(&mut self) {
        self.account.shrink(self.held);
    }
}

impl ResourceLimiter for InstanceMemory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_a_container_share_its_limit_and_give_back_what_they_held() {
        let node = Arc::new(NodeMemory::new(1_000));
        let account = Arc::new(MemoryAccount::new(Some(100), Arc::clone(&node)));
        let mut first = InstanceMemory::new(Arc::clone(&account));
        let mut second = InstanceMemory::new(Arc::clone(&account));
        assert!(first.grow(60).unwrap());
        assert!(second.grow(40).unwrap());
        let error = second.grow(1).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&MemoryExceeded::Container { limit: 100 }));
        drop(first);
        assert_eq!(account.used(), 40);
        assert!(second.grow(60).unwrap());
        second.undo();
        assert_eq!(node.used.load(Ordering::Relaxed), 40);
    }

    #[test]
    fn the_node_has_a_limit_for_all_containers_together() {
        let node = Arc::new(NodeMemory::new(100));
        let account = |node: &Arc<NodeMemory>| Arc::new(MemoryAccount::new(None, Arc::clone(node)));
        let mut first = InstanceMemory::new(account(&node));
        let mut second = InstanceMemory::new(account(&node));
        assert!(first.grow(80).unwrap());
        let error = second.grow(30).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&MemoryExceeded::Node { limit: 100 }));
        assert_eq!(second.account.used(), 0);
    }
}
