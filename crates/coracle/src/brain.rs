//! The loop around the control plane: inputs in, one step at a time, outputs carried out.
//!
//! It runs on a thread of its own, or inline on the caller's runtime; it waits for nothing but its next input.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::Response;
use coracle_base::Now;
use coracle_engine::{ActionId, ControlPlane, Input, Output, ProposalId, clock_jumped};
use coracle_raft::PersistId;
use coracle_store::{Transaction, View};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::process::Process;
use crate::wal::{Job, Wal};

pub(crate) use coracle_engine::Settled;

/// How many inputs wait at most; who sends more waits.
pub(crate) const INPUTS_MAX: usize = 8192;
/// How many inputs are taken before the timer is looked at again.
const INPUTS_PER_ROUND: usize = 512;

/// What the brain is sent.
#[derive(Debug)]
pub(crate) enum Message {
    /// A transaction, and where its outcome goes.
    Submit(Transaction, oneshot::Sender<Settled>),
    /// The answer to a request of the control plane.
    Answered(ActionId, Response),
    /// A node's agent is alive.
    Heartbeat(String),
    /// Everything up to this batch is durable.
    Persisted(PersistId),
    /// A snapshot is durable.
    SnapshotSaved {
        /// The index of the last entry in it.
        index: u64,
        /// Its term.
        term: u64,
    },
}

/// The brain's loop.
pub(crate) struct Brain {
    pub(crate) plane: ControlPlane,
    pub(crate) clock: Clock,
    pub(crate) inputs: mpsc::Receiver<Message>,
    pub(crate) views: watch::Sender<View>,
    /// `None`: in memory, and everything is durable at once.
    pub(crate) wal: Option<Wal>,
    /// Where requests of the control plane are carried out.
    pub(crate) process: Arc<Process>,
    pub(crate) requests: tokio::runtime::Handle,
    pub(crate) waiting: BTreeMap<ProposalId, oneshot::Sender<Settled>>,
    pub(crate) next_proposal: u64,
    /// The time of the last step, to notice when the clocks drift apart.
    pub(crate) last_step: Now,
}

impl std::fmt::Debug for Brain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brain").field("plane", &self.plane).finish_non_exhaustive()
    }
}

impl Brain {
    /// Runs until the cluster stops and nobody sends any more.
    pub(crate) async fn run(mut self) {
        self.step(Input::Tick);
        loop {
            let message = match self.next().await {
                Next::Message(message) => Some(message),
                Next::Timer => None,
                Next::Stop => break,
            };
            match message {
                None => self.step(Input::Tick),
                Some(message) => {
                    self.take(message);
                    for _ in 0..INPUTS_PER_ROUND {
                        let Ok(message) = self.inputs.try_recv() else { break };
                        self.take(message);
                    }
                }
            }
        }
        if let Some(wal) = self.wal {
            wal.close().await;
        }
    }

    async fn next(&mut self) -> Next {
        let due = self.plane.next_wakeup();
        let clock = self.clock;
        let timer = async {
            match due {
                // Work that was cut into slices: others on this runtime get their turn first.
                Some(due) if due <= clock.now().mono => tokio::task::yield_now().await,
                Some(due) => clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = self.inputs.recv() => message.map_or(Next::Stop, Next::Message),
            () = self.process.shutdown.cancelled() => Next::Stop,
            () = timer => Next::Timer,
        }
    }

    fn take(&mut self, message: Message) {
        let input = match message {
            Message::Submit(transaction, reply) => {
                let id = ProposalId(self.next_proposal);
                self.next_proposal += 1;
                self.waiting.insert(id, reply);
                Input::Submit(id, transaction)
            }
            Message::Answered(id, response) => Input::Answered(id, response),
            Message::Heartbeat(node) => {
                self.process.heartbeats.note(self.plane.view(), &node, self.clock.now().wall);
                Input::Heartbeat(node)
            }
            Message::Persisted(id) => Input::Persisted(id),
            Message::SnapshotSaved { index, term } => Input::SnapshotSaved { index, term },
        };
        self.step(input);
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        let now = self.clock.now();
        if clock_jumped(self.last_step, now) {
            tracing::info!("the machine slept, or its clock was set");
            inputs.push(Input::ClockJumped);
        }
        self.last_step = now;
        while let Some(input) = inputs.pop() {
            let outputs = self.plane.step(self.clock.now(), input);
            self.publish();
            let mut durable = None;
            for output in outputs {
                if let Some(id) = self.carry_out(output) {
                    durable = Some(id);
                }
            }
            inputs.extend(durable.map(Input::Persisted));
        }
    }

    /// The new view, before anybody is told that his write is in it.
    ///
    /// After a start the log is applied as far as it is known to be committed, and the rest only once a leader was heard of: before
    /// that a view may lack writes that were acknowledged, and nobody sees it.
    fn publish(&self) {
        if !self.plane.is_current() {
            return;
        }
        let view = self.plane.view();
        self.views.send_if_modified(|current| {
            let changed = current.revision() != view.revision();
            if changed {
                *current = view.clone();
            }
            changed
        });
    }

    /// Carries an output out; a batch that is durable at once, because nothing is kept, comes back.
    fn carry_out(&mut self, output: Output) -> Option<PersistId> {
        match output {
            Output::Persist(id, batch) => match &self.wal {
                Some(wal) => wal.send(Job::Write(id, batch)),
                None => return Some(id),
            },
            Output::Settled(id, settled) => {
                if let Some(reply) = self.waiting.remove(&id) {
                    // Whoever asked may be gone.
                    let _ = reply.send(settled);
                }
            }
            Output::Prepare { id, term, request } => {
                let process = Arc::clone(&self.process);
                self.requests.spawn(async move {
                    let response = process.respond_in_term(request, term).await;
                    let _ = process.brain.send(Message::Answered(id, response)).await;
                });
            }
            Output::SaveSnapshot { index, term, view } => {
                if let Some(wal) = &self.wal {
                    wal.send(Job::Snapshot { index, term, view });
                }
            }
            Output::Send { to, message, .. } => {
                tracing::error!(?to, ?message, "a message for another member, and there is none");
            }
            Output::Leader(leader) => tracing::info!(?leader, "another leader"),
            Output::Membership(membership) => tracing::info!(?membership, "the members changed"),
            other => tracing::error!(?other, "an output that this driver does not know"),
        }
        None
    }
}

enum Next {
    Message(Message),
    Timer,
    Stop,
}
