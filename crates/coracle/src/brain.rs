//! The loop around the control plane: inputs in, one step at a time, outputs carried out.
//!
//! It runs on a thread of its own, or inline on the caller's runtime; it waits for nothing but its next input.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use coracle_api::{Response, Revision};
use coracle_base::Now;
use coracle_engine::{
    ActionId, ControlPlane, Input, MEMBERS, MemberRecord, Output, PeerMessage, ProposalId, clock_jumped,
};
use coracle_raft::{MemberId, Membership, PersistId, ReadId, SnapshotMark, Status};
use coracle_store::{Store, StoreOptions, Transaction, View};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::memory_disk::MemoryDisk;
use crate::peers::{Peers, SentSnapshot};
use crate::process::Process;
use crate::wal::{Saving, Wal};

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
    /// A request must see everything that was acknowledged before it: whether it can.
    Read(oneshot::Sender<bool>),
    /// The answer to a request of the control plane.
    Answered(ActionId, Response),
    /// A node's agent is alive.
    Heartbeat(String),
    /// What another member says.
    Peer(MemberId, PeerMessage),
    /// What was sent to another member lately may be lost.
    Unreachable(MemberId),
    /// Another member has ended, as far as can be told.
    Gone(MemberId),
    /// The whole state of another member.
    Snapshot(Box<SentSnapshot>),
    /// That state, durable and read.
    SnapshotReceived(MemberId, coracle_raft::Message, Box<Store>),
    /// This member's state is complete on another one, or did not get there.
    SnapshotSent(MemberId, bool),
    /// Another member is to lead.
    TransferLead(MemberId),
    /// This member is about to stop.
    HandOver,
    /// How this member stands.
    Status(oneshot::Sender<Status>),
    /// The state, with the index and term of the last entry in it.
    State(oneshot::Sender<(View, (u64, u64))>),
    /// Everything up to this batch is durable.
    Persisted(PersistId),
    /// The disk has failed: nothing is durable any more.
    Failed(String),
    /// A snapshot could not be saved.
    SnapshotFailed,
    /// A snapshot is durable.
    SnapshotSaved {
        /// The index of the last entry in it.
        index: u64,
        /// Its term.
        term: u64,
    },
}

/// Where the log goes.
#[derive(Debug)]
pub(crate) enum Disk {
    /// Nowhere: the cluster is gone with its only member.
    None,
    /// Into memory that outlives the member.
    Memory(Arc<MemoryDisk>),
    /// Into a file.
    File(Wal),
}

/// The brain's loop.
pub(crate) struct Brain {
    pub(crate) id: MemberId,
    pub(crate) plane: ControlPlane,
    pub(crate) clock: Clock,
    pub(crate) inputs: mpsc::Receiver<Message>,
    pub(crate) views: watch::Sender<View>,
    /// Whether this member leads and its controllers run.
    pub(crate) leads: watch::Sender<bool>,
    pub(crate) disk: Disk,
    pub(crate) peers: Arc<Peers>,
    pub(crate) store: StoreOptions,
    /// Where requests of the control plane are carried out.
    pub(crate) process: Arc<Process>,
    pub(crate) requests: tokio::runtime::Handle,
    /// The time of the last step, to notice when the clocks drift apart.
    pub(crate) last_step: Now,
    pub(crate) waits: Waits,
}

/// What waits for an output of the control plane.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    proposals: BTreeMap<ProposalId, oneshot::Sender<Settled>>,
    next_proposal: u64,
    reads: BTreeMap<ReadId, oneshot::Sender<bool>>,
    next_read: u64,
    /// Messages that go out when this batch is durable, in order.
    messages: VecDeque<(PersistId, MemberId, PeerMessage)>,
    durable: Option<PersistId>,
    /// What this member is told next: that messages did not go out.
    lost: Vec<Input>,
    /// The revision at which the list of members was last looked at, and whether its group was once this member was up to date.
    listed: Option<Revision>,
    placed: bool,
}

impl std::fmt::Debug for Brain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brain").field("id", &self.id).field("plane", &self.plane).finish_non_exhaustive()
    }
}

impl Brain {
    /// Runs until the member stops.
    pub(crate) async fn run(mut self) {
        self.step(Input::Tick);
        loop {
            let message = match self.next().await {
                Next::Message(message) => Some(*message),
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
                    // What goes to other members is carried on this thread.
                    tokio::task::yield_now().await;
                }
            }
        }
        self.peers.leave(self.id);
        // Nobody reads it any more: who waits for room in it, the log's threads among them, goes on.
        self.inputs.close();
        if let Disk::File(wal) = self.disk {
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
            message = self.inputs.recv() => message.map_or(Next::Stop, |message| Next::Message(Box::new(message))),
            () = self.process.shutdown.cancelled() => Next::Stop,
            () = timer => Next::Timer,
        }
    }

    fn take(&mut self, message: Message) {
        let input = match message {
            Message::Submit(transaction, reply) => {
                let id = ProposalId(self.waits.next_proposal);
                self.waits.next_proposal += 1;
                self.waits.proposals.insert(id, reply);
                Input::Submit(id, transaction)
            }
            Message::Read(reply) => {
                let id = ReadId(self.waits.next_read);
                self.waits.next_read += 1;
                self.waits.reads.insert(id, reply);
                Input::Read(id)
            }
            Message::Answered(id, response) => Input::Answered(id, response),
            Message::Heartbeat(node) => {
                self.process.heartbeats.note(self.plane.view(), &node, self.clock.now().wall);
                Input::Heartbeat(node)
            }
            Message::Peer(from, message) => Input::Peer(from, message),
            Message::Unreachable(member) => Input::Unreachable(member),
            Message::Gone(member) => Input::Gone(member),
            Message::Snapshot(snapshot) => return self.receive(*snapshot),
            Message::SnapshotReceived(from, message, store) => Input::SnapshotReceived { from, message, store },
            Message::SnapshotSent(to, complete) => Input::SnapshotSent(to, complete),
            Message::TransferLead(to) => Input::TransferLead(to),
            Message::HandOver => Input::HandOver,
            Message::Status(reply) => {
                // Whoever asked may be gone.
                let _ = reply.send(self.plane.status());
                return;
            }
            Message::State(reply) => {
                let _ = reply.send((self.plane.view().clone(), self.plane.applied()));
                return;
            }
            Message::Persisted(id) => {
                self.send_until(id);
                Input::Persisted(id)
            }
            Message::Failed(why) => return self.process.fail(why),
            Message::SnapshotFailed => Input::SnapshotFailed,
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
            if let Some(id) = durable {
                self.send_until(id);
                inputs.push(Input::Persisted(id));
            }
            inputs.append(&mut self.waits.lost);
        }
    }

    /// The new view, before anybody is told that his write is in it.
    ///
    /// After a start the log is applied as far as it is known to be committed, and the rest only once a leader was heard of: before
    /// that a view may lack writes that were acknowledged, and nobody sees it.
    fn publish(&mut self) {
        let listed = self.plane.view().last_change(&MEMBERS);
        if self.waits.listed != Some(listed) {
            self.waits.listed = Some(listed);
            self.peers.list(MemberRecord::all(self.plane.view()));
        }
        let leads = self.plane.is_leading();
        self.leads.send_if_modified(|current| std::mem::replace(current, leads) != leads);
        if !self.plane.is_current() {
            return;
        }
        if !std::mem::replace(&mut self.waits.placed, true) {
            self.place(self.plane.membership());
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

    /// Carries an output out; a batch that is durable at once, because nothing is kept on a disk, comes back.
    fn carry_out(&mut self, output: Output) -> Option<PersistId> {
        match output {
            Output::Persist(id, batch) => match &self.disk {
                Disk::File(wal) => wal.write(id, batch),
                Disk::Memory(disk) => {
                    disk.write(batch);
                    return Some(id);
                }
                Disk::None => return Some(id),
            },
            Output::Settled(id, settled) => {
                if let Some(reply) = self.waits.proposals.remove(&id) {
                    let _ = reply.send(settled);
                }
            }
            Output::Readable(id) => self.answer_read(id, true),
            Output::Unreadable(id) => self.answer_read(id, false),
            Output::Prepare { id, term, request } => {
                let process = Arc::clone(&self.process);
                self.requests.spawn(async move {
                    let response = process.respond_in_term(request, term).await;
                    let _ = process.brain.send(Message::Answered(id, response)).await;
                });
            }
            Output::SaveSnapshot { index, term, view } => self.save_snapshot(index, term, view),
            Output::Send { to, message, after } => match after.filter(|after| self.waits.durable < Some(*after)) {
                Some(after) => self.waits.messages.push_back((after, to, message)),
                None => self.send(to, message),
            },
            Output::SendSnapshot { to, message, mark } => self.send_snapshot(to, message, mark),
            Output::Installed(mark) => tracing::info!(index = mark.index, "the state of another member was taken over"),
            Output::Leader(leader) => tracing::info!(member = self.id.0, ?leader, "another leader"),
            Output::Membership(membership) => {
                tracing::info!(member = self.id.0, ?membership, "the members changed");
                self.place(&membership);
            }
            Output::Outdated { cluster, own } => self.process.fail(format!(
                "the cluster is of feature level {cluster}, and this version of Coracle knows {own}: start the member with a newer one"
            )),
            Output::Removed => {
                tracing::warn!(member = self.id.0, "this member was removed from the cluster, and stops");
                self.process.removed.store(true, Ordering::Relaxed);
                self.process.shutdown.cancel();
                if self.peers.network().is_some() {
                    self.process.cluster_shutdown.cancel();
                }
            }
            other => tracing::error!(?other, "an output that this driver does not know"),
        }
        None
    }

    fn answer_read(&mut self, id: ReadId, readable: bool) {
        if let Some(reply) = self.waits.reads.remove(&id) {
            let _ = reply.send(readable);
        }
    }

    /// Everything up to a batch is durable: what waited for it goes out.
    fn send_until(&mut self, id: PersistId) {
        self.waits.durable = self.waits.durable.max(Some(id));
        while self.waits.messages.front().is_some_and(|(after, _, _)| *after <= id) {
            if let Some((_, to, message)) = self.waits.messages.pop_front() {
                self.send(to, message);
            }
        }
    }

    fn send(&mut self, to: MemberId, message: PeerMessage) {
        // Of transactions that never left it is certain that nobody has them.
        let forwarded = match &message {
            PeerMessage::Forward { boot, transactions, .. } => {
                Some((*boot, transactions.iter().map(|(number, _)| *number).collect()))
            }
            _ => None,
        };
        if self.peers.send(self.id, to, message) {
            return;
        }
        tracing::trace!(member = self.id.0, ?to, "a message to another member is lost");
        self.waits.lost.push(match forwarded {
            Some((boot, numbers)) => Input::Peer(to, PeerMessage::Declined { boot, numbers }),
            None => Input::Unreachable(to),
        });
    }

    /// Whether this member is the only one: then its view is always the newest.
    fn place(&self, membership: &Membership) {
        self.process.alone.store(membership.members() == [self.id], Ordering::Relaxed);
    }

    fn save_snapshot(&self, index: u64, term: u64, view: View) {
        match &self.disk {
            Disk::File(wal) => wal.save(Saving { index, term, view }),
            Disk::Memory(disk) => {
                let (disk, brain) = (Arc::clone(disk), self.process.brain.clone());
                self.requests.spawn(async move {
                    let encoded = tokio::task::spawn_blocking(move || disk.save(index, view.snapshot().into())).await;
                    if encoded.is_ok() {
                        let _ = brain.send(Message::SnapshotSaved { index, term }).await;
                    }
                });
            }
            Disk::None => {}
        }
    }

    /// Moves this member's snapshot to another member, elsewhere than here.
    fn send_snapshot(&self, to: MemberId, message: coracle_raft::Message, mark: SnapshotMark) {
        let source = match &self.disk {
            Disk::File(wal) => Source::File(wal.snapshots()),
            Disk::Memory(disk) => Source::Memory(Arc::clone(disk)),
            Disk::None => return,
        };
        let (from, peers, brain) = (self.id, Arc::clone(&self.peers), self.process.brain.clone());
        self.requests.spawn(async move {
            let state = tokio::task::spawn_blocking(move || source.read(mark.index)).await.ok().flatten();
            let sent = match state {
                Some(state) => peers.send_snapshot(to, SentSnapshot { from, message, mark, state }).await,
                None => false,
            };
            let _ = brain.send(Message::SnapshotSent(to, sent)).await;
        });
    }

    /// A whole state came: it is made durable and read elsewhere than here.
    fn receive(&self, snapshot: SentSnapshot) {
        let SentSnapshot { from, message, mark, state } = snapshot;
        let target = match &self.disk {
            Disk::File(wal) => Source::File(wal.snapshots()),
            Disk::Memory(disk) => Source::Memory(Arc::clone(disk)),
            Disk::None => return,
        };
        let (options, brain) = (self.store.clone(), self.process.brain.clone());
        self.requests.spawn(async move {
            let read = tokio::task::spawn_blocking(move || {
                let store = Store::restore(options, &state).map_err(|error| error.to_string())?;
                target.write(mark.index, state)?;
                Ok::<_, String>(Box::new(store))
            });
            match read.await {
                Ok(Ok(store)) => drop(brain.send(Message::SnapshotReceived(from, message, store)).await),
                Ok(Err(error)) => tracing::error!(%error, "the state of another member cannot be kept"),
                Err(error) => tracing::error!(%error, "the state of another member cannot be read"),
            }
        });
    }
}

/// Where snapshots are.
enum Source {
    Memory(Arc<MemoryDisk>),
    File(crate::wal::Snapshots),
}

impl Source {
    fn read(&self, index: u64) -> Option<Bytes> {
        match self {
            Self::Memory(disk) => disk.snapshot(index),
            Self::File(snapshots) => snapshots.read(index),
        }
    }

    fn write(&self, index: u64, state: Bytes) -> Result<(), String> {
        match self {
            Self::Memory(disk) => {
                disk.save(index, state);
                Ok(())
            }
            Self::File(snapshots) => snapshots.write(index, &state).map_err(|error| error.to_string()),
        }
    }
}

enum Next {
    Message(Box<Message>),
    Timer,
    Stop,
}
