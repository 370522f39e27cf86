//! A fake node's runtime in the loop: what its script answers waits here until its time.

use std::collections::BTreeMap;

use coracle_base::{DelayQueue, Instant, Now};
use coracle_node::fake::{FakeRuntime, Script};
use coracle_node::runtime::{RuntimeCommand, RuntimeEvent};

/// A runtime that runs nothing, with its events to come.
#[derive(Debug, Default)]
pub(crate) struct FakeNode {
    runtime: FakeRuntime,
    due: DelayQueue<u64>,
    events: BTreeMap<u64, RuntimeEvent>,
    next: u64,
}

impl FakeNode {
    /// A runtime whose containers behave as the scripts of their images say.
    pub(crate) fn scripted(scripts: &BTreeMap<String, Script>) -> Self {
        let mut runtime = FakeRuntime::new();
        for (image, script) in scripts {
            runtime.script(image, script.clone());
        }
        Self { runtime, ..Self::default() }
    }

    /// Takes a command.
    pub(crate) fn command(&mut self, command: &RuntimeCommand, now: Now) {
        for (after, event) in self.runtime.command(command, now) {
            self.due.set(self.next, now.mono + after);
            self.events.insert(self.next, event);
            self.next += 1;
        }
    }

    /// The events whose time has come and that still happen.
    pub(crate) fn due(&mut self, now: Now) -> Vec<RuntimeEvent> {
        let mut due = Vec::new();
        while let Some(number) = self.due.pop(now.mono) {
            due.extend(self.events.remove(&number));
        }
        due.retain(|event| self.runtime.is_current(event));
        due
    }

    /// When the next is due.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        self.due.next()
    }
}
