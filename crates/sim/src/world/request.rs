//! The way of a request through the API server: the machine is advanced inline, and proposals come back as events.

use std::time::Duration;

use coracle_api::{Method, Reason, Request, Response, Revision, Status, StatusDetails};
use coracle_apiserver::{Next, Proposed, RequestMachine, Resume};
use coracle_engine::{ActionId, Input};
use coracle_node::RequestId;
use coracle_store::Transaction;

use super::{Event, World};
use crate::history::{Outcome, Ticket};

/// How long a read waits for a revision that is still to come: Kubernetes' own three seconds.
const REVISION_WAIT: Duration = Duration::from_secs(3);

/// Who asked.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// The test.
    Test(Ticket),
    /// The control plane.
    Brain(ActionId),
    /// A node's agent; without an id, who writes its Events.
    Node { node: String, agent: u64, id: Option<RequestId> },
}

/// The request that a proposal belongs to, and its place among those that the request made together.
pub(super) type Proposer = (u64, Option<usize>);

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(super) origin: Origin,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) user: String,
    term: Option<u64>,
    stage: Stage,
    /// What has become of the transactions that it proposed together.
    round: Vec<Option<Proposed>>,
}

#[derive(Debug)]
enum Stage {
    /// It has not reached the API server.
    Coming(Box<Request>),
    Running(Box<RequestMachine>),
}

impl Flow {
    pub(crate) fn new(origin: Origin, term: Option<u64>, request: Request) -> Self {
        let (method, path, user) = (request.method, request.path.clone(), request.user.name.clone());
        Self { origin, method, path, user, term, stage: Stage::Coming(Box::new(request)), round: Vec::new() }
    }
}

impl World {
    /// A request reaches the API server, if one is there.
    pub(super) fn arrive(&mut self, flow: Flow) {
        if !self.member.is_serving() {
            // Refused before anything was done: the request can be made again.
            return self.answer(flow.origin, unavailable("the server is not up").into());
        }
        let Flow { origin, method, path, user, term, stage: Stage::Coming(request), round } = flow else {
            unreachable!("a request arrives once")
        };
        let machine = RequestMachine::new(self.options.clone(), *request, self.rng.fork());
        let id = self.next_flow;
        self.next_flow += 1;
        let stage = Stage::Running(Box::new(machine));
        self.flows.insert(id, Flow { origin, method, path, user, term, stage, round });
        self.resume(id, Resume::Start);
    }

    /// A request goes on, until it needs something that is not there yet.
    pub(super) fn resume(&mut self, id: u64, resume: Resume) {
        let Some(view) = self.member.serving_view().cloned() else { return };
        let Some(Flow { stage: Stage::Running(machine), .. }) = self.flows.get_mut(&id) else { return };
        match machine.advance(&view, self.now, resume) {
            Next::Respond(response) => self.finish(id, response),
            Next::List(listing) => self.finish(id, listing.into_response()),
            Next::Propose(transaction) => self.propose((id, None), transaction),
            Next::ProposeAll(transactions) => self.propose_all(id, transactions),
            Next::WaitFor(revision) => {
                self.waiting.insert(id, revision);
                self.schedule(REVISION_WAIT, Event::Deadline { flow: id });
            }
            Next::Watch(_) | Next::Tunnel(_) => {
                self.finish(id, Status::bad_request("streams are not served here").into());
            }
            Next::Call(_) => self.finish(id, Status::internal("no script answers this callout").into()),
        }
    }

    fn propose(&mut self, from: Proposer, mut transaction: Transaction) {
        transaction.term = self.flows.get(&from.0).and_then(|flow| flow.term);
        let proposal = self.member.propose(from);
        let input = Input::Submit(proposal, transaction);
        self.schedule(Duration::ZERO, Event::Brain { boot: self.member.boot, input });
    }

    fn propose_all(&mut self, id: u64, transactions: Vec<Transaction>) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.round = transactions.iter().map(|_| None).collect();
        }
        for (index, transaction) in transactions.into_iter().enumerate() {
            self.propose((id, Some(index)), transaction);
        }
    }

    /// What became of a proposal: the request goes on when it was its only one, or the last of its round.
    pub(super) fn settled(&mut self, (id, index): Proposer, outcome: Proposed) {
        let resume = match (index, outcome) {
            (None, Proposed::Settled(outcome)) => Resume::Settled(outcome),
            (None, Proposed::Unsettled(status)) => Resume::Unsettled(status),
            (Some(index), outcome) => {
                let Some(flow) = self.flows.get_mut(&id) else { return };
                flow.round[index] = Some(outcome);
                if flow.round.iter().any(Option::is_none) {
                    return;
                }
                Resume::SettledAll(std::mem::take(&mut flow.round).into_iter().flatten().collect())
            }
        };
        self.schedule(Duration::ZERO, Event::Resume { flow: id, resume });
    }

    /// The view has moved: who waited for its revision goes on.
    pub(super) fn reached(&mut self) {
        let revision = self.view().revision();
        let reached: Vec<u64> =
            self.waiting.iter().filter(|(_, wanted)| **wanted <= revision).map(|(flow, _)| *flow).collect();
        for flow in reached {
            self.waiting.remove(&flow);
            self.schedule(Duration::ZERO, Event::Resume { flow, resume: Resume::Reached });
        }
    }

    pub(super) fn deadline(&mut self, flow: u64) {
        if self.waiting.remove(&flow).is_some() {
            self.resume(flow, Resume::NotReached);
        }
    }

    fn finish(&mut self, id: u64, response: Response) {
        if let Some(flow) = self.flows.remove(&id) {
            self.answer(flow.origin, response);
        }
    }

    /// The answer goes to who asked.
    pub(super) fn answer(&mut self, origin: Origin, response: Response) {
        match origin {
            Origin::Test(ticket) => {
                let outcome = match response.failure() {
                    None => Outcome::Acknowledged(response),
                    Some(status) => Outcome::Refused(status),
                };
                self.history.end(ticket, outcome);
            }
            Origin::Brain(id) => {
                let input = Input::Answered(id, response);
                self.schedule(Duration::ZERO, Event::Brain { boot: self.member.boot, input });
            }
            Origin::Node { node, agent, id: Some(id) } => {
                let delay = self.network();
                self.schedule(delay, Event::Answer { node, agent, id, response });
            }
            Origin::Node { node, agent, id: None } => {
                let (delay, success) = (self.network(), response.is_success());
                self.schedule(delay, Event::Recorded { node, agent, success });
            }
        }
    }
}

/// Kubernetes' answer of a server that cannot do anything now.
pub(super) fn unavailable(message: &str) -> Status {
    let mut status = Status::failure(503, Some(Reason::ServiceUnavailable), message);
    status.details = Some(StatusDetails { retry_after_seconds: 1, ..StatusDetails::default() });
    status
}

/// The requests that wait for a revision.
pub(super) type Waiting = std::collections::BTreeMap<u64, Revision>;
