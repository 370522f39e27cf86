//! Timers as data: keys that become due.

use std::collections::{BTreeMap, BTreeSet};

use crate::Instant;

/// Keys with the instant at which each is due; a key has one instant at most, and ties go in key order.
#[derive(Clone, Debug)]
pub struct DelayQueue<K> {
    by_instant: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K> Default for DelayQueue<K> {
    fn default() -> Self {
        Self { by_instant: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> DelayQueue<K> {
    /// Makes `key` due at `instant`, instead of whenever it was due before.
    pub fn set(&mut self, key: K, instant: Instant) {
        self.remove(&key);
        self.by_key.insert(key.clone(), instant);
        self.by_instant.insert((instant, key));
    }

    /// Makes `key` due at `instant` unless it is due earlier already.
    pub fn set_earlier(&mut self, key: K, instant: Instant) {
        if self.by_key.get(&key).is_none_or(|due| *due > instant) {
            self.set(key, instant);
        }
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: &K) {
        if let Some(instant) = self.by_key.remove(key) {
            self.by_instant.remove(&(instant, key.clone()));
        }
    }

    /// When `key` is due.
    pub fn due(&self, key: &K) -> Option<Instant> {
        self.by_key.get(key).copied()
    }

    /// The earliest instant.
    pub fn next(&self) -> Option<Instant> {
        self.by_instant.first().map(|(instant, _)| *instant)
    }

    /// Takes the earliest key that is due at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.by_instant.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// How many keys wait.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_in_the_order_they_are_due() {
        let mut queue = DelayQueue::default();
        queue.set("late", Instant::from_nanos(20));
        queue.set("soon", Instant::from_nanos(30));
        queue.set("soon", Instant::from_nanos(10));
        queue.set_earlier("late", Instant::from_nanos(40));
        assert_eq!(queue.pop(Instant::from_nanos(5)), None);
        assert_eq!(queue.pop(Instant::from_nanos(20)), Some("soon"));
        assert_eq!(queue.pop(Instant::from_nanos(20)), Some("late"));
        assert!(queue.is_empty());
    }
}
