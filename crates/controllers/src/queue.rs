//! The work queue of all controllers: each key at most once, in the order of first need, with timers and back-off.
//!
//! It knows no controller and no object: only slots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use coracle_api::ObjectKey;
use coracle_base::{Backoff, DelayQueue, Instant};

/// The first wait after a failure, and the longest: the values of client-go's controller rate limiter.
const BACKOFF_INITIAL: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1000);

/// A controller's number and a key of it.
pub(crate) type Slot = (usize, ObjectKey);

/// Slots that are ready, that wait for an instant, and that must rest.
///
/// It holds a slot at most once in each part, so objects times controllers bound it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    ready: VecDeque<Slot>,
    queued: BTreeSet<Slot>,
    delayed: DelayQueue<Slot>,
    resting: DelayQueue<Slot>,
    /// Slots that were asked for while they rest.
    woken: BTreeSet<Slot>,
    backoffs: BTreeMap<Slot, Backoff>,
}

impl Queue {
    /// Asks for a slot; nothing happens when it is asked for already.
    pub(crate) fn add(&mut self, slot: Slot) {
        if self.resting.due(&slot).is_some() {
            self.woken.insert(slot);
        } else if self.queued.insert(slot.clone()) {
            self.ready.push_back(slot);
        }
    }

    /// Asks for a slot at an instant, or earlier when it is asked for earlier.
    pub(crate) fn add_at(&mut self, slot: Slot, instant: Instant) {
        self.delayed.set_earlier(slot, instant);
    }

    /// Asks for a slot after its next back-off.
    pub(crate) fn add_after_failure(&mut self, slot: Slot, now: Instant) {
        let backoff = self.backoffs.entry(slot.clone()).or_insert_with(|| Backoff::new(BACKOFF_INITIAL, BACKOFF_MAX));
        let wait = backoff.next_wait();
        self.add_at(slot, now + wait);
    }

    /// A slot succeeded: its next failure waits the shortest time again.
    pub(crate) fn forget_failures(&mut self, slot: &Slot) {
        self.backoffs.remove(slot);
    }

    /// Holds a slot back until an instant, whoever asks.
    pub(crate) fn rest(&mut self, slot: Slot, until: Instant) {
        self.resting.set(slot, until);
    }

    /// Takes the next slot that is ready.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Slot> {
        while let Some(slot) = self.resting.pop(now) {
            if self.woken.remove(&slot) {
                self.add(slot);
            }
        }
        while let Some(slot) = self.delayed.pop(now) {
            self.add(slot);
        }
        let slot = self.ready.pop_front()?;
        self.queued.remove(&slot);
        // What was asked for later is asked for anew by this reconcile, if it still matters.
        self.delayed.remove(&slot);
        Some(slot)
    }

    /// When [`Self::pop`] has something: at once (the origin), at an instant, or never.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(Instant::ZERO);
        }
        let rested = if self.woken.is_empty() { None } else { self.resting.next() };
        [self.delayed.next(), rested].into_iter().flatten().min()
    }

    /// How many slots are asked for, now or later.
    pub(crate) fn len(&self) -> usize {
        self.ready.len() + self.delayed.len() + self.woken.len()
    }
}
