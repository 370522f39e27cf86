//! The member: its brain, its disk, and what happens when it goes and comes back.

use coracle_apiserver::Proposed;
use coracle_base::{Instant, Rng};
use coracle_engine::{ControlPlane, Input, NodeFeed, Output, ProposalId, Restored, Settled};
use coracle_raft::PersistId;
use coracle_store::{StoreOptions, View};
use std::collections::BTreeMap;
use std::time::Duration;

use super::request::{Flow, Origin, Proposer, unavailable};
use super::{Event, World};
use crate::disk::{Disk, latency};
use crate::invariants::Invariants;

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    /// Which start this is: what belongs to an earlier one does not happen.
    pub(crate) boot: u64,
    plane: Option<ControlPlane>,
    disk: Disk,
    rng: Rng,
    snapshot_after: usize,
    /// The request that each proposal belongs to.
    proposals: BTreeMap<ProposalId, Proposer>,
    next_proposal: u64,
    /// Everything that was acknowledged before this start is in its view again.
    serving: bool,
    /// The state as it was before the last crash.
    lost: Option<View>,
}

impl Member {
    pub(crate) fn new(rng: Rng, snapshot_after: usize) -> Self {
        Self {
            boot: 0,
            plane: None,
            disk: Disk::default(),
            rng,
            snapshot_after,
            proposals: BTreeMap::new(),
            next_proposal: 0,
            serving: false,
            lost: None,
        }
    }

    /// Whether it answers requests.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Its view, while it answers requests.
    pub(crate) fn serving_view(&self) -> Option<&View> {
        self.plane.as_ref().filter(|_| self.serving).map(ControlPlane::view)
    }

    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        self.plane.as_ref()?.next_wakeup()
    }

    pub(super) fn propose(&mut self, from: Proposer) -> ProposalId {
        let id = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        self.proposals.insert(id, from);
        id
    }
}

impl World {
    /// Starts the member from what its disk holds.
    pub(crate) fn start_member(&mut self) {
        assert!(self.member.plane.is_none(), "the member runs");
        self.member.boot += 1;
        let seed = self.member.rng.next_u64();
        let options = self.plane_options(seed, self.member.snapshot_after);
        let restored = self.member.disk.restored(&StoreOptions::default());
        let restored = restored.map(|(store, raft)| Restored { store, raft });
        self.member.plane = Some(ControlPlane::new(self.now, options, restored));
        self.feed = NodeFeed::default();
        self.step_member(Input::Tick);
    }

    /// The member's process is killed, and of what its disk had not written some is lost.
    pub(crate) fn crash_member(&mut self) {
        assert!(self.member.plane.take().is_some(), "the member does not run");
        let serving = std::mem::replace(&mut self.member.serving, false);
        if serving {
            self.member.lost = Some(self.seen.clone());
        }
        self.member.boot += 1;
        self.member.proposals.clear();
        let mut rng = self.member.rng.fork();
        self.member.disk.crash(&mut rng);
        for (_, flow) in std::mem::take(&mut self.flows) {
            self.connection_lost(flow);
        }
    }

    fn connection_lost(&mut self, flow: Flow) {
        match &flow.origin {
            Origin::Test(ticket) => self.history.end(*ticket, crate::history::Outcome::Unknown),
            Origin::Brain(_) => {}
            Origin::Node { .. } => self.answer(flow.origin, unavailable("the connection was lost").into()),
        }
    }

    /// One step of the brain.
    pub(super) fn step_member(&mut self, input: Input) {
        let now = self.now;
        let Some(plane) = &mut self.member.plane else { return };
        let outputs = plane.step(now, input);
        let current = plane.is_current();
        for output in outputs {
            self.carry_out(output);
        }
        if current && !std::mem::replace(&mut self.member.serving, true) {
            self.serve();
        }
    }

    /// The member has everything that was acknowledged: nodes and clients are let in.
    fn serve(&mut self) {
        let Some(plane) = &self.member.plane else { return };
        let view = plane.view().clone();
        if let Some(lost) = self.member.lost.take()
            && let Err(broken) = Invariants::recovered(&lost, &view)
        {
            panic!("{broken}; the log: {:?}", self.member.disk);
        }
        let connected: Vec<String> =
            self.seats.iter().filter(|(_, seat)| seat.hears()).map(|(name, _)| name.clone()).collect();
        for node in connected {
            self.feed_node(&node, &view);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let boot = self.member.boot;
        match output {
            Output::Persist(id, batch) => {
                let now = self.now.mono;
                let Self { member: super::Member { disk, rng, .. }, .. } = self;
                let durable = disk.write(id, batch, now, rng);
                self.schedule_at(durable, Event::Persisted { boot, id });
            }
            Output::Settled(id, settled) => {
                let Some(from) = self.member.proposals.remove(&id) else { return };
                let outcome = match settled {
                    Settled::Applied(outcome) => Proposed::Settled(outcome),
                    Settled::NotLeader => Proposed::Unsettled(unavailable("there is no leader; try again")),
                    Settled::Unknown => panic!("a member alone knows what it did"),
                };
                self.settled(from, outcome);
            }
            Output::Prepare { id, term, request } => {
                let flow = Flow::new(Origin::Brain(id), Some(term), request);
                self.schedule(Duration::ZERO, Event::Arrive(Box::new(flow)));
            }
            Output::SaveSnapshot { index, term, view } => {
                let bytes = view.snapshot();
                // A snapshot is written in many pieces.
                let took = (0..8).map(|_| latency(&mut self.member.rng)).sum();
                self.schedule(took, Event::Snapshot { boot, index, term, bytes });
            }
            Output::Leader(_) | Output::Membership(_) => {}
            other => panic!("an output that one member alone has no use for: {other:?}"),
        }
    }

    pub(super) fn persisted(&mut self, boot: u64, id: PersistId) {
        if boot == self.member.boot {
            self.member.disk.written(id);
            self.step_member(Input::Persisted(id));
        }
    }

    pub(super) fn snapshot_saved(&mut self, boot: u64, index: u64, term: u64, bytes: Vec<u8>) {
        if boot == self.member.boot {
            self.member.disk.keep_snapshot(index, bytes);
            self.step_member(Input::SnapshotSaved { index, term });
        }
    }
}
