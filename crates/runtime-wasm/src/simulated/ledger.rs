//! A guest's time: how many instructions it has used, what virtual time they take, and what it waits for.

use std::task::Poll;

use coracle_base::{Instant, Now};
use coracle_node::runtime::LogStream;

use crate::virtual_core::core_time;

/// What a guest waits for when it gives its turn away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The turn after this one, as soon as it comes.
    Turn(u64),
    /// A time.
    Until(Instant),
}

/// What a guest's hosts and who gives it its turns know of each other.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Which turn this is.
    turn: u64,
    /// When it began.
    begun: Now,
    /// What it had used then.
    begun_used: u64,
    /// Instructions since its start, as of the last look.
    used: u64,
    /// What it was given at its start.
    tank: u64,
    /// Instructions of a turn.
    slice: u64,
    /// What it had used when wasmtime last began to count a slice.
    slice_begun: u64,
    wait: Option<Wait>,
    /// What it wrote and nobody has taken yet.
    pub(super) output: Vec<(LogStream, Vec<u8>)>,
}

impl Ledger {
    pub(super) fn new(now: Now, tank: u64, slice: u64) -> Self {
        Self {
            turn: 0,
            begun: now,
            begun_used: 0,
            used: 0,
            tank,
            slice,
            slice_begun: 0,
            wait: None,
            output: Vec::new(),
        }
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, now: Now) {
        self.turn += 1;
        self.begun = now;
        self.begun_used = self.used;
    }

    /// Looks at what is left in the tank: exact when the guest is not running.
    pub(super) fn left(&mut self, fuel: u64) {
        self.used = self.used.max(self.tank.saturating_sub(fuel));
    }

    /// The guest was interrupted: it has used a slice, and what the block that it was in was longer shows at the next look.
    pub(super) fn interrupted(&mut self) {
        self.slice_begun += self.slice;
        self.used = self.used.max(self.slice_begun);
    }

    /// Instructions of this turn.
    pub(super) fn spent(&self) -> u64 {
        self.used - self.begun_used
    }

    /// Instructions since its start.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// The time as the guest sees it: its turn's beginning and what it has done since.
    pub(super) fn now(&self) -> Now {
        self.begun.after(core_time(self.spent()))
    }

    /// The guest gives its turn away until a time, or for one turn.
    pub(super) fn wait(&mut self, until: Option<Instant>) {
        self.wait = Some(until.map_or(Wait::Turn(self.turn), Wait::Until));
    }

    /// What it waits for.
    pub(super) fn waits(&self) -> Option<Wait> {
        self.wait
    }

    /// Whether what it waits for has come; asked at the beginning of a turn, and after the wait began.
    pub(super) fn poll(&mut self) -> Poll<()> {
        match self.wait {
            Some(Wait::Until(due)) if self.begun.mono < due => Poll::Pending,
            Some(Wait::Turn(turn)) if self.turn <= turn => Poll::Pending,
            _ => {
                self.wait = None;
                Poll::Ready(())
            }
        }
    }
}
