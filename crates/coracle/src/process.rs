//! One member's process: what every handler, task and node of it shares, and the way of a request through it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use coracle_api::{Reason, Request, Response, Status};
use coracle_apiserver::{
    Callout, Heartbeats, Listing, Next, Proposed, RequestMachine, Resume, ServerOptions, TunnelSpec, Watcher,
};
use coracle_base::{Now, Rng};
use coracle_engine::{may_prove_itself, needs_read};
use coracle_raft::MemberId;
use coracle_store::{Applied, Refused, Transaction, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::audit::AuditLog;
use crate::auth::Authenticator;
use crate::backup::{BackupSource, Pieces};
use crate::brain::{Message, Settled};
use crate::clock::Clock;
use crate::dialer::{self, Turns};
use crate::dns::Upstream;
use crate::http::fair::FairQueue;
use crate::images::Images;
use crate::join::Gate;
use crate::key_values::KeyValues;
use crate::logs::LogStore;
use crate::metrics::Metrics;
use crate::node::Nodes;
use crate::peers::Peers;
use crate::tls::Authority;

/// How long a read waits for a revision that the member has not reached (Kubernetes' own three seconds).
const REVISION_WAIT: Duration = Duration::from_secs(3);
/// How long a proposal may take before the client is told that its outcome is not known.
const PROPOSAL_WAIT: Duration = Duration::from_secs(30);
/// How many leaders a transaction is offered to, when those before are certain not to have it.
const LEADERS_TRIED_MAX: usize = 5;
/// How long a member that stops waits for another one to lead.
const HAND_OVER_WAIT: Duration = Duration::from_secs(1);

/// What a program is asked to do with one of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Stop it.
    Stop(MemberId),
    /// Start it again.
    Start(MemberId),
}

/// What ends a request's way through the API server.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A whole response.
    Response(Response),
    /// A large list, written as it is sent.
    List(Box<Listing>),
    /// A stream of watch events.
    Watch(Box<Watcher>),
    /// A byte stream to or from a pod.
    Tunnel(TunnelSpec),
}

/// What the parts of a member share.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) clock: Clock,
    pub(crate) options: Arc<ServerOptions>,
    pub(crate) authenticator: Authenticator,
    pub(crate) authority: Authority,
    pub(crate) backup: BackupSource,
    pub(crate) brain: mpsc::Sender<Message>,
    pub(crate) views: watch::Receiver<View>,
    /// The name of this member's node, whether or not it runs pods.
    pub(crate) node: String,
    /// Whether this member leads.
    pub(crate) leads: watch::Receiver<bool>,
    /// The address of this member's node, where others reach it.
    pub(crate) node_address: watch::Sender<Option<IpAddr>>,
    /// Whether this member was removed from the cluster.
    pub(crate) removed: AtomicBool,
    /// Whether this member is the only one: then its view is always the newest.
    pub(crate) alone: AtomicBool,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) peers: Arc<Peers>,
    /// What the program is asked to do with its members.
    pub(crate) orders: mpsc::Sender<Order>,
    /// Lets other machines in, where the cluster can have more.
    pub(crate) gate: Option<Gate>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) turns: Turns,
    /// Who knows names outside the cluster.
    pub(crate) upstream: Upstream,
    /// Where requests are written down.
    pub(crate) audit: Option<Arc<AuditLog>>,
    /// What clients may take.
    pub(crate) requests: Arc<FairQueue>,
    pub(crate) images: Arc<Images>,
    pub(crate) logs: Arc<LogStore>,
    pub(crate) metrics: Metrics,
    /// Why a member of the process could not go on.
    pub(crate) failure: Arc<OnceLock<String>>,
    /// Whether the process has no other member.
    pub(crate) only: bool,
    /// This member stops.
    pub(crate) shutdown: CancellationToken,
    /// Every member of the process stops.
    pub(crate) cluster_shutdown: CancellationToken,
    pub(crate) rng: Mutex<Rng>,
    /// What writes of guests' keys that are under way add.
    pub(crate) key_values: KeyValues,
    pub(crate) served: AtomicU64,
}

impl Process {
    /// The time.
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// The newest view.
    pub(crate) fn view(&self) -> View {
        self.views.borrow().clone()
    }

    /// Whether an address belongs to the pods or services, so that it must not be looked for outside.
    pub(crate) fn is_in_cluster(&self, address: IpAddr) -> bool {
        let options = &self.options;
        dialer::has_address((options.pod_network, options.pod_prefix), address)
            || dialer::has_address((options.service_network, options.service_prefix), address)
    }

    /// A generator of its own for one request or task.
    pub(crate) fn fork_rng(&self) -> Rng {
        self.rng.lock().expect("nothing panics while it draws").fork()
    }

    /// Before this member stops: if it leads and another member can, waits until that one does, a second at most. A cluster that is
    /// told so goes on without the silence after which it would notice.
    pub(crate) async fn hand_over(&self) {
        let mut leads = self.leads.clone();
        if !*leads.borrow() || self.shutdown.is_cancelled() || !self.has_heir().await {
            return;
        }
        if self.brain.send(Message::HandOver).await.is_ok() {
            let _ = tokio::time::timeout(HAND_OVER_WAIT, leads.wait_for(|leads| !*leads)).await;
        }
    }

    /// Whether another voter is there that could lead.
    async fn has_heir(&self) -> bool {
        let (reply, status) = oneshot::channel();
        let _ = self.brain.send(Message::Status(reply)).await;
        let is_heir = |status: &coracle_raft::Status| {
            status.peers.iter().any(|peer| peer.active && status.membership.voters.contains(&peer.id))
        };
        status.await.is_ok_and(|status| is_heir(&status))
    }

    /// Something that this member cannot go on with: it stops, and the whole process when it has no other.
    pub(crate) fn fail(&self, why: String) {
        tracing::error!(why, "a member stops");
        let _ = self.failure.set(why);
        self.shutdown.cancel();
        if self.only {
            self.cluster_shutdown.cancel();
        }
    }

    /// Takes a request to its end, or to the stream that it turns into.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        self.answer_in_term(request, None).await
    }

    async fn answer_in_term(&self, request: Request, term: Option<u64>) -> Answer {
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut waits = term.is_none() && needs_read(&request) && !self.alone.load(Ordering::Relaxed);
        // A write need not wait: see ``may_prove_itself``. What comes of it otherwise is found again in an up to date view.
        let again = (waits && may_prove_itself(&request)).then(|| request.clone());
        if waits && again.is_none() {
            if let Err(status) = self.read().await {
                return Answer::Response(status.into());
            }
            waits = false;
        }
        let mut machine = self.machine(request);
        let mut resume = Resume::Start;
        loop {
            let view = self.view();
            let mut next = machine.advance(&view, self.now(), resume);
            if std::mem::take(&mut waits)
                && !matches!(next, Next::Propose(_))
                && let Some(request) = again.clone()
            {
                if let Err(status) = self.read().await {
                    return Answer::Response(status.into());
                }
                machine = self.machine(request);
                next = machine.advance(&self.view(), self.now(), Resume::Start);
            }
            resume = match next {
                Next::Respond(response) => return Answer::Response(response),
                Next::List(listing) => return Answer::List(listing),
                Next::Watch(watcher) => return Answer::Watch(watcher),
                Next::Tunnel(tunnel) => return Answer::Tunnel(tunnel),
                Next::Propose(mut transaction) => {
                    transaction.term = term;
                    match self.propose_to_a_leader(transaction).await {
                        Ok(outcome) => Resume::Settled(outcome),
                        Err(status) => Resume::Unsettled(status),
                    }
                }
                Next::ProposeAll(mut transactions) => {
                    for transaction in &mut transactions {
                        transaction.term = term;
                    }
                    Resume::SettledAll(self.propose_all(transactions).await)
                }
                Next::WaitFor(revision) => {
                    let mut views = self.views.clone();
                    let reached = views.wait_for(|view| view.revision() >= revision);
                    match tokio::time::timeout(REVISION_WAIT, reached).await {
                        Ok(Ok(_)) => Resume::Reached,
                        _ => Resume::NotReached,
                    }
                }
                Next::Call(Callout::Usage) => Resume::Called(Ok(self.usage().await)),
                Next::Call(callout) => Resume::Called(self.authenticator.answer(callout)),
            };
        }
    }

    /// What the nodes of the cluster use, those of this process first.
    async fn usage(&self) -> serde_json::Value {
        let mut usages = self.nodes.usage.all();
        usages.extend(self.peers.usage().await);
        serde_json::json!(usages)
    }

    fn machine(&self, request: Request) -> RequestMachine {
        RequestMachine::new(Arc::clone(&self.options), request, self.fork_rng())
            .with_heartbeats(self.heartbeats.clone())
    }

    /// A backup of everything that was acknowledged before now, in pieces; sealed with the keys to the data, or with a passphrase.
    pub(crate) async fn save(&self, passphrase: Option<String>) -> Result<Pieces, Status> {
        self.read().await?;
        let (reply, state) = oneshot::channel();
        self.brain.send(Message::State(reply)).await.map_err(|_| stopping())?;
        let (view, place) = state.await.map_err(|_| stopping())?;
        let (source, now) = (self.backup.clone(), self.now().wall);
        let saved = tokio::task::spawn_blocking(move || source.save(&view, place, now, passphrase.as_deref()));
        let saved = saved.await.map_err(|error| Status::internal(format!("the backup was not made: {error}")))?;
        saved.map_err(|error| Status::bad_request(error.to_string()))
    }

    /// Waits until the view has everything that was acknowledged before now.
    pub(crate) async fn read(&self) -> Result<(), Status> {
        if self.alone.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (reply, readable) = oneshot::channel();
        if self.brain.send(Message::Read(reply)).await.is_err() {
            return Err(stopping());
        }
        tokio::select! {
            readable = readable => match readable {
                Ok(true) => Ok(()),
                Ok(false) => Err(timed_out()),
                Err(_) => Err(stopping()),
            },
            () = self.shutdown.cancelled() => Err(stopping()),
        }
    }

    /// The same for a request that must end in a whole response: those of nodes.
    pub(crate) async fn respond(&self, request: Request) -> Response {
        Self::whole(self.answer(request).await)
    }

    /// The same for a request of the control plane: its transactions count in the term of its lead only.
    pub(crate) async fn respond_in_term(&self, request: Request, term: u64) -> Response {
        Self::whole(self.answer_in_term(request, Some(term)).await)
    }

    fn whole(answer: Answer) -> Response {
        match answer {
            Answer::Response(response) => response,
            Answer::List(listing) => listing.into_response(),
            Answer::Watch(_) | Answer::Tunnel(_) => Status::bad_request("streams are not served here").into(),
        }
    }

    /// Proposes, again where it is certain that nothing was done: while nobody leads, a client waits like one that reads.
    pub(crate) async fn propose_to_a_leader(
        &self,
        transaction: Transaction,
    ) -> Result<Result<Applied, Refused>, Status> {
        if transaction.term.is_some() || self.alone.load(Ordering::Relaxed) {
            return self.propose(transaction).await;
        }
        let deadline = tokio::time::Instant::now() + PROPOSAL_WAIT;
        for _ in 0..LEADERS_TRIED_MAX {
            let settled = self.submit(transaction.clone()).await?;
            match settled_by(settled, deadline).await {
                Ok(None) => self.read().await?,
                Ok(Some(outcome)) => return Ok(outcome),
                Err(status) => return Err(status),
            }
        }
        Err(no_leader())
    }

    pub(crate) async fn propose(&self, transaction: Transaction) -> Result<Result<Applied, Refused>, Status> {
        let settled = self.submit(transaction).await?;
        settled_by(settled, tokio::time::Instant::now() + PROPOSAL_WAIT).await?.ok_or_else(no_leader)
    }

    /// Hands all of them over before it waits for the first: they share entries of the log, and their fsync.
    async fn propose_all(&self, transactions: Vec<Transaction>) -> Vec<Proposed> {
        let mut submitted = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            submitted.push(self.submit(transaction).await);
        }
        let deadline = tokio::time::Instant::now() + PROPOSAL_WAIT;
        let mut outcomes = Vec::with_capacity(submitted.len());
        for settled in submitted {
            let outcome = match settled {
                Ok(settled) => settled_by(settled, deadline).await.and_then(|outcome| outcome.ok_or_else(no_leader)),
                Err(status) => Err(status),
            };
            outcomes.push(outcome.map_or_else(Proposed::Unsettled, Proposed::Settled));
        }
        outcomes
    }

    async fn submit(&self, transaction: Transaction) -> Result<oneshot::Receiver<Settled>, Status> {
        let (reply, settled) = oneshot::channel();
        self.brain.send(Message::Submit(transaction, reply)).await.map_err(|_| stopping())?;
        Ok(settled)
    }
}

/// What became of a transaction; `None`: there was no leader to take it, and nothing was or will be done of it.
async fn settled_by(
    settled: oneshot::Receiver<Settled>,
    deadline: tokio::time::Instant,
) -> Result<Option<Result<Applied, Refused>>, Status> {
    match tokio::time::timeout_at(deadline, settled).await {
        Ok(Ok(Settled::Applied(outcome))) => Ok(Some(outcome)),
        Ok(Ok(Settled::NotLeader)) => Ok(None),
        Ok(Err(_)) => Err(stopping()),
        Ok(Ok(Settled::Unknown)) | Err(_) => Err(timed_out()),
    }
}

fn timed_out() -> Status {
    Status::failure(504, Some(Reason::Timeout), "Timeout: request did not complete within the allotted timeout")
}

fn no_leader() -> Status {
    unavailable("there is no leader; try again")
}

fn stopping() -> Status {
    unavailable("the server is shutting down")
}

fn unavailable(message: &str) -> Status {
    let mut status = Status::failure(503, Some(Reason::ServiceUnavailable), message);
    status.details = Some(coracle_api::StatusDetails { retry_after_seconds: 1, ..Default::default() });
    status
}
