//! All controllers behind one door: changes in, actions out, and never two reconciles of a key at once.
//!
//! It does not carry actions out: who does tells it what came of them.

use std::collections::BTreeMap;

use coracle_api::{GroupResource, Object, ObjectKey, Reason, Status};
use coracle_base::{Instant, Now};
use coracle_store::{Change, Sweep, View};

use crate::queue::{Queue, Slot};
use crate::{Action, Context, Controller, Failure, Verb, Watch};

/// How many actions of one key are taken at a time: a step that turns them into requests stays under a millisecond.
const ACTIONS_MAX: usize = 100;
/// How many objects of a resync are looked at in one call, for the same reason.
const OBJECTS_PER_SLICE: usize = 256;

/// The name of one reconcile's actions until they are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkId(pub u64);

/// What one reconcile wants done.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// To be given back to [`Manager::settled`].
    pub id: WorkId,
    /// Who wants it: the user is `system:controller:<name>`.
    pub controller: &'static str,
    /// What to do, in order; never empty.
    pub actions: Vec<Action>,
}

#[derive(Debug)]
struct InFlight {
    slot: Slot,
    attempts: Vec<(Verb, ObjectKey)>,
    /// There was more to do than was taken.
    cut: bool,
}

/// The controllers, their queue and their keys in flight.
#[derive(Debug)]
pub struct Manager {
    controllers: Vec<Box<dyn Controller>>,
    watches: Vec<(usize, Watch)>,
    /// The places in `watches` of those that a resource is for, worked out when its first object changes.
    interested: BTreeMap<GroupResource, Vec<usize>>,
    /// What of a resync is still to be looked at.
    sweep: Sweep,
    queue: Queue,
    in_flight: BTreeMap<WorkId, InFlight>,
    /// Keys whose actions are not settled, and whether they changed meanwhile.
    busy: BTreeMap<Slot, bool>,
    next_id: u64,
}

impl Manager {
    /// These controllers, with nothing to do yet: call [`Self::resync`] first.
    pub fn new(controllers: Vec<Box<dyn Controller>>) -> Self {
        let watches = controllers
            .iter()
            .enumerate()
            .flat_map(|(index, controller)| controller.watches().into_iter().map(move |watch| (index, watch)))
            .collect();
        Self {
            controllers,
            watches,
            interested: BTreeMap::new(),
            sweep: Sweep::default(),
            queue: Queue::default(),
            in_flight: BTreeMap::new(),
            busy: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// Takes note of a change; `view` is a state that has it.
    pub fn observe(&mut self, view: &View, change: &Change) {
        for object in [&change.old, &change.new].into_iter().flatten() {
            self.wake(view, object);
        }
    }

    /// Asks for everything there is: what a new leader begins with. [`Self::next`] looks at it, a slice at a time.
    pub fn resync(&mut self, view: &View) {
        let wanted = |resource: &GroupResource| self.watches.iter().any(|(_, watch)| watch.on.includes(resource));
        self.sweep = Sweep::of(view.resources().into_iter().filter(wanted));
    }

    fn sweep(&mut self, view: &View) {
        let mut room = OBJECTS_PER_SLICE;
        while room > 0 && !self.sweep.is_over() {
            let slice = self.sweep.next(view, room);
            room -= slice.len();
            for object in slice {
                self.wake(view, object);
            }
        }
    }

    /// The machine slept, or its clock was set: everything is reconciled anew, with deadlines from what is stored.
    pub fn clock_jumped(&mut self, view: &View, now: Now) {
        for controller in &mut self.controllers {
            controller.clock_jumped(now);
        }
        self.resync(view);
    }

    /// A node's agent was heard of.
    pub fn heartbeat(&mut self, node: &str, now: Now) {
        for controller in &mut self.controllers {
            controller.heartbeat(node, now);
        }
    }

    /// Reconciles at most `budget` keys that are due and returns what they want done.
    pub fn next(&mut self, view: &View, now: Now, budget: usize) -> Vec<Work> {
        self.sweep(view);
        let mut works = Vec::new();
        for _ in 0..budget {
            let Some(slot) = self.queue.pop(now.mono) else { break };
            if let Some(changed) = self.busy.get_mut(&slot) {
                *changed = true;
                continue;
            }
            works.extend(self.reconcile(view, now, slot));
        }
        works
    }

    /// The actions of `id` came to these results, in their order. An id of before a [`Self::resync`] of another leader is ignored.
    pub fn settled(&mut self, now: Now, id: WorkId, results: Vec<Result<(), Status>>) {
        let Some(InFlight { slot, attempts, cut }) = self.in_flight.remove(&id) else { return };
        let changed = self.busy.remove(&slot).unwrap_or(false);
        let failures: Vec<Failure> = attempts
            .into_iter()
            .zip(results)
            .filter_map(|((verb, target), result)| Some(Failure { verb, target, status: result.err()? }))
            .filter(|failure| !is_harmless(failure))
            .collect();
        if failures.is_empty() {
            self.queue.forget_failures(&slot);
            if changed || cut {
                self.queue.add(slot);
            }
        } else {
            self.controllers[slot.0].refused(&slot.1, &failures);
            self.queue.add_after_failure(slot, now.mono);
        }
    }

    /// When [`Self::next`] has something to do: the origin means at once.
    pub fn next_wakeup(&self) -> Option<Instant> {
        if self.sweep.is_over() { self.queue.next_wakeup() } else { Some(Instant::ZERO) }
    }

    /// How many keys wait, now or for a timer, and how many are in flight.
    pub fn depth(&self) -> (usize, usize) {
        (self.queue.len(), self.in_flight.len())
    }

    fn wake(&mut self, view: &View, object: &Object) {
        let resource = &object.key().resource;
        if !self.interested.contains_key(resource) {
            let watches = self.watches.iter().enumerate().filter(|(_, (_, watch))| watch.on.includes(resource));
            self.interested.insert(resource.clone(), watches.map(|(at, _)| at).collect());
        }
        for at in &self.interested[resource] {
            let (index, watch) = &self.watches[*at];
            for key in (watch.keys)(view, object) {
                self.queue.add((*index, key));
            }
        }
    }

    fn reconcile(&mut self, view: &View, now: Now, slot: Slot) -> Option<Work> {
        let controller = &mut self.controllers[slot.0];
        let mut outcome = controller.reconcile(Context { view, now }, &slot.1);
        if let Some(after) = outcome.requeue_after {
            self.queue.add_at(slot.clone(), now.mono + after);
        }
        if outcome.actions.is_empty() {
            self.queue.forget_failures(&slot);
            if !outcome.rest.is_zero() {
                self.queue.rest(slot, now.mono + outcome.rest);
            }
            return None;
        }
        let cut = outcome.actions.len() > ACTIONS_MAX;
        outcome.actions.truncate(ACTIONS_MAX);
        let attempts = outcome.actions.iter().map(|action| (action.verb(), action.target().clone())).collect();
        let id = WorkId(self.next_id);
        self.next_id += 1;
        let name = controller.name();
        if !outcome.rest.is_zero() && !cut {
            self.queue.rest(slot.clone(), now.mono + outcome.rest);
        }
        self.busy.insert(slot.clone(), false);
        self.in_flight.insert(id, InFlight { slot, attempts, cut });
        Some(Work { id, controller: name, actions: outcome.actions })
    }
}

/// Refusals that mean the world is already as wanted, or that are not worth another try.
fn is_harmless(failure: &Failure) -> bool {
    match failure.verb {
        Verb::Event => true,
        Verb::Delete => failure.status.reason == Some(Reason::NotFound),
        Verb::Create | Verb::Update | Verb::Patch | Verb::Bind => false,
    }
}

#[cfg(test)]
mod tests;
