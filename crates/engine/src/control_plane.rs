//! One member's brain: consensus, the state, and (while it leads) the controllers and the scheduler.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::GroupResource;
use coracle_api::registry::Registry;
use coracle_apiserver::ServerOptions;
use coracle_base::{Instant, Now, Rng, Timestamp};
use coracle_controllers::{Controller, Manager};
use coracle_raft as raft;
use coracle_store::{Entry, Store, StoreOptions, Transaction, View};

use crate::leader::Leader;
use crate::{Input, Output, ProposalId, Settled};

/// The most bytes of transactions in one entry, and the most entries of this member that are not committed yet:
/// what comes meanwhile waits and goes out together.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// The most proposals that wait; more are told that there is no leader and may try again.
const PENDING_MAX: usize = 16_384;
/// How large the log behind the last snapshot becomes: a start reads no more than that, and a snapshot is not made for little.
pub const SNAPSHOT_AFTER_BYTES: usize = 64 << 20;

/// How a control plane is set up.
#[derive(Debug)]
pub struct ControlPlaneOptions {
    /// This member and its peers.
    pub raft: raft::Config,
    /// The API server's settings.
    pub server: Arc<ServerOptions>,
    /// The state's bounds.
    pub store: StoreOptions,
    /// Makes the controllers of a new lead.
    pub controllers: fn(&ServerOptions, &mut Rng) -> Vec<Box<dyn Controller>>,
    /// For everything that is drawn.
    pub seed: u64,
    /// A snapshot is made when the log behind the last one is so many bytes large: [`SNAPSHOT_AFTER_BYTES`] but in tests.
    pub snapshot_after: usize,
}

/// The controllers that Coracle runs.
pub fn default_controllers(options: &ServerOptions, rng: &mut Rng) -> Vec<Box<dyn Controller>> {
    coracle_controllers::all(&options.ca_certificate, rng)
}

/// What a member had before it was started again.
#[derive(Debug)]
pub struct Restored {
    /// The state of the last snapshot.
    pub store: Option<Store>,
    /// The log behind it.
    pub raft: raft::Restored,
}

/// One member's brain.
#[derive(Debug)]
pub struct ControlPlane {
    options: ControlPlaneOptions,
    registry: Registry,
    raft: raft::Member,
    store: Store,
    view: View,
    rng: Rng,
    leader: Option<Leader>,
    /// The term of the lead, from the election on; `leader` is there once the term's first entry is applied.
    leading: Option<u64>,
    next_action: u64,
    pending: VecDeque<(ProposalId, Transaction)>,
    batches: BTreeMap<raft::ProposalId, (Vec<ProposalId>, Entry)>,
    next_batch: u64,
    last_time: Timestamp,
    /// The index and term of the last entry that is in the state.
    applied: (u64, u64),
    /// The index of the last snapshot.
    saved: u64,
    log_bytes: usize,
    snapshotting: bool,
}

impl ControlPlane {
    /// A new member, or one that had something before.
    pub fn new(now: Now, options: ControlPlaneOptions, restored: Option<Restored>) -> Self {
        let mut rng = Rng::seeded(options.seed);
        let (store, log) = match restored {
            Some(Restored { store, raft }) => (store, Some(raft)),
            None => (None, None),
        };
        let saved = log.as_ref().map_or((0, 0), |log| (log.snapshot.mark.index, log.snapshot.mark.term));
        let behind = log.iter().flat_map(|log| &log.entries).filter(|entry| entry.index > saved.0);
        let log_bytes = behind.map(|entry| entry.data.len()).sum();
        let store = store.unwrap_or_else(|| Store::new(options.store.clone()));
        let view = store.view();
        let last_time = view.time();
        let raft = raft::Member::new(now, options.raft.clone(), log, rng.fork());
        Self {
            registry: Registry::builtin(),
            raft,
            view,
            store,
            rng,
            leader: None,
            leading: None,
            next_action: 0,
            pending: VecDeque::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
            last_time,
            applied: saved,
            saved: saved.0,
            log_bytes,
            snapshotting: false,
            options,
        }
    }

    /// The state, as everybody reads it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether this member leads and the controllers run.
    pub fn is_leading(&self) -> bool {
        self.leader.is_some()
    }

    /// When the next step has something to do without any other input.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let leader = self.leader.as_ref().and_then(Leader::next_wakeup);
        [self.raft.next_wakeup(), leader].into_iter().flatten().min()
    }

    /// One step. It takes under a millisecond and never waits.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Tick => self.step_raft(now, raft::Input::Tick, &mut out),
            Input::Peer(from, message) => self.step_raft(now, raft::Input::Message(from, message), &mut out),
            Input::Persisted(id) => self.step_raft(now, raft::Input::Persisted(id), &mut out),
            Input::Submit(id, transaction) => self.submit(id, transaction, &mut out),
            Input::Answered(id, response) => {
                if let Some(leader) = &mut self.leader {
                    leader.answered(id, &response, now);
                }
            }
            Input::Heartbeat(node) => {
                if let Some(leader) = &mut self.leader {
                    leader.heartbeat(&node, now);
                }
            }
            Input::ClockJumped => {
                if let Some(leader) = &mut self.leader {
                    leader.clock_jumped(&self.view, now);
                }
            }
            Input::SnapshotSaved { index, term } => {
                self.snapshotting = false;
                self.saved = index;
                self.step_raft(now, raft::Input::SnapshotSaved { index, term }, &mut out);
            }
        }
        if self.raft.next_wakeup().is_some_and(|due| due <= now.mono) {
            self.step_raft(now, raft::Input::Tick, &mut out);
        }
        self.propose(now, &mut out);
        self.lead(now, &mut out);
        self.snapshot(&mut out);
        out
    }

    fn submit(&mut self, id: ProposalId, transaction: Transaction, out: &mut Vec<Output>) {
        if self.leading.is_none() || self.pending.len() >= PENDING_MAX {
            out.push(Output::Settled(id, Settled::NotLeader));
        } else {
            self.pending.push_back((id, transaction));
        }
    }

    /// Puts what waits into one entry: while a batch is being made durable the next one fills.
    fn propose(&mut self, now: Now, out: &mut Vec<Output>) {
        while !self.pending.is_empty() && self.batches.len() < BATCHES_IN_FLIGHT_MAX {
            let mut entry = Entry::at(now.wall.max(self.last_time));
            let (mut ids, mut bytes) = (Vec::new(), 0);
            while let Some((_, transaction)) = self.pending.front() {
                let size = transaction.size();
                if !ids.is_empty() && bytes + size > BATCH_BYTES_MAX {
                    break;
                }
                bytes += size;
                if let Some((id, transaction)) = self.pending.pop_front() {
                    ids.push(id);
                    entry.transactions.push(transaction);
                }
            }
            let id = raft::ProposalId(self.next_batch);
            self.next_batch += 1;
            let encoded = entry.encode();
            self.batches.insert(id, (ids, entry));
            self.step_raft(now, raft::Input::Propose(id, encoded), out);
        }
    }

    fn step_raft(&mut self, now: Now, input: raft::Input, out: &mut Vec<Output>) {
        for output in self.raft.step(now, input) {
            match output {
                raft::Output::Persist(id, batch) => {
                    self.log_bytes += batch.size();
                    out.push(Output::Persist(id, batch));
                }
                raft::Output::Send { to, message, after } => out.push(Output::Send { to, message, after }),
                raft::Output::Apply { term, index, proposal, data } => {
                    self.apply(now, (term, index), proposal, &data, out);
                }
                raft::Output::Dropped(id) => self.dropped(id, out),
                raft::Output::Leading(term) => self.leading = Some(term),
                raft::Output::Following => self.follow(out),
                raft::Output::Membership { term, index, .. } => self.applied = (index, term),
                // This member is alone: it needs no leader's name, its view is the newest there is, and nobody sends it a state.
                _ => {}
            }
        }
    }

    /// Another member leads, or nobody: what waits here can be tried again elsewhere, and the lead's own machinery is lost.
    fn follow(&mut self, out: &mut Vec<Output>) {
        self.leading = None;
        if let Some(leader) = self.leader.take() {
            self.next_action = leader.next_action();
        }
        out.extend(self.pending.drain(..).map(|(id, _)| Output::Settled(id, Settled::NotLeader)));
    }

    fn dropped(&mut self, id: raft::ProposalId, out: &mut Vec<Output>) {
        let ids = self.batches.remove(&id).map(|(ids, _)| ids).unwrap_or_default();
        out.extend(ids.into_iter().map(|id| Output::Settled(id, Settled::NotLeader)));
    }

    fn apply(
        &mut self,
        now: Now,
        (term, index): (u64, u64),
        proposal: Option<raft::ProposalId>,
        data: &Bytes,
        out: &mut Vec<Output>,
    ) {
        self.applied = (index, term);
        if data.is_empty() {
            return self.first_of_term(now, term);
        }
        let (ids, entry) = match proposal.and_then(|id| self.batches.remove(&id)) {
            Some(own) => own,
            // A committed entry that cannot be read would split the members: stop here rather than go on without it.
            None => (Vec::new(), Entry::decode(data).expect("a committed entry is readable")),
        };
        let before = self.view.clone();
        self.last_time = entry.time;
        let results = self.store.apply(term, &entry);
        self.view = self.store.view();
        out.extend(ids.into_iter().zip(results).map(|(id, result)| Output::Settled(id, Settled::Applied(result))));
        self.observe(&before);
    }

    /// The empty entry that a new leader begins its term with: from here on its view has everything that was acknowledged before.
    fn first_of_term(&mut self, now: Now, term: u64) {
        if self.leading != Some(term) {
            return;
        }
        let manager = Manager::new((self.options.controllers)(&self.options.server, &mut self.rng));
        let (registry, options) = (self.registry.clone(), Arc::clone(&self.options.server));
        let leader = Leader::new(manager, &self.view, registry, options, self.rng.fork(), self.next_action, now);
        self.leader = Some(leader);
    }

    /// Tells the leader what changed since a view.
    fn observe(&mut self, before: &View) {
        let Some(leader) = &mut self.leader else { return };
        // A resource whose last object went has none now: it counts among those from before.
        let resources: BTreeSet<GroupResource> = self.view.resources().into_iter().chain(before.resources()).collect();
        let before = before.revision();
        for resource in resources {
            if self.view.last_change(&resource) <= before {
                continue;
            }
            // The window always reaches back to the entry before: it is trimmed in whole entries.
            for change in self.view.changes_after(&resource, before).unwrap_or_default() {
                leader.observe(&self.view, &change);
            }
        }
    }

    fn lead(&mut self, now: Now, out: &mut Vec<Output>) {
        let (Some(leader), Some(term)) = (&mut self.leader, self.leading) else { return };
        let requests = leader.run(&self.view, now);
        out.extend(requests.into_iter().map(|(id, request)| Output::Prepare { id, term, request }));
    }

    fn snapshot(&mut self, out: &mut Vec<Output>) {
        // A log that was large at the start is not applied yet: what is saved then is the snapshot that it came with.
        let nothing_new = self.applied.0 <= self.saved;
        if self.log_bytes < self.options.snapshot_after || self.snapshotting || nothing_new {
            return;
        }
        self.log_bytes = 0;
        self.snapshotting = true;
        let (index, term) = self.applied;
        out.push(Output::SaveSnapshot { index, term, view: self.view.clone() });
    }
}
