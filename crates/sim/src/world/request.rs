//! The way of a request through the API server: the machine is advanced inline, and proposals come back as events.

use std::time::Duration;

use coracle_api::{Method, Reason, Request, Response, Revision, Status, StatusDetails};
use coracle_apiserver::{Next, Proposed, RequestMachine, Resume};
use coracle_engine::{ActionId, Input, may_prove_itself, needs_read};
use coracle_node::RequestId;
use coracle_store::Transaction;

use super::mutant::foretell;
use super::{Event, World};
use crate::Mutation;
use crate::history::{Outcome, Ticket};

/// How long a read waits for a revision that is still to come: Kubernetes' own three seconds.
const REVISION_WAIT: Duration = Duration::from_secs(3);
/// How many leaders a transaction is offered to, when those before are certain not to have it.
const LEADERS_TRIED_MAX: u32 = 5;

/// Who asked.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// The test.
    Test(Ticket),
    /// The control plane of a member, in one of its starts.
    Brain(usize, u64, ActionId),
    /// A client that follows a resource, in one of its attempts.
    Follower { follower: usize, attempt: u64 },
    /// A node's agent; without an id, who writes its Events.
    Node { node: String, agent: u64, id: Option<RequestId> },
}

/// The request that a proposal belongs to, and its place among those that the request made together.
pub(super) type Proposer = (u64, Option<usize>);

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(super) origin: Origin,
    /// The member that it is made to.
    pub(super) member: usize,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) user: String,
    term: Option<u64>,
    stage: Stage,
    /// The request, while it runs before it may read: it begins anew unless it comes to one transaction.
    again: Option<Box<Request>>,
    /// The transaction that was proposed last, and how often: it is again while it is certain that no leader has it.
    offered: Option<(Box<Transaction>, u32)>,
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
        let stage = Stage::Coming(Box::new(request));
        Self { origin, member: 0, method, path, user, term, stage, again: None, offered: None, round: Vec::new() }
    }

    /// The same to a member.
    pub(crate) fn via(self, member: usize) -> Self {
        Self { member, ..self }
    }
}

impl World {
    /// A request reaches a member, or another one that answers in its place.
    pub(super) fn arrive(&mut self, mut flow: Flow) {
        let brain = matches!(flow.origin, Origin::Brain(..));
        let members = self.members.len();
        let tried = (0..if brain { 1 } else { members }).map(|next| (flow.member + next) % members);
        let Some(member) = tried.into_iter().find(|m| self.members[*m].is_serving()) else {
            // Refused before anything was done: the request can be made again.
            return self.answer(flow.origin, unavailable("the server is not up").into());
        };
        flow.member = member;
        if let Some(until) = self.members[member].paused.filter(|until| *until > self.now.mono) {
            return self.schedule_at(until, Event::Arrive(Box::new(flow)));
        }
        let Flow { origin, method, path, user, term, stage: Stage::Coming(request), round, .. } = flow else {
            unreachable!("a request arrives once")
        };
        let waits = members > 1 && !brain && needs_read(&request) && !self.is_wrong(Mutation::StaleRead);
        let again = (waits && may_prove_itself(&request)).then(|| request.clone());
        let waits = waits && again.is_none();
        let machine = RequestMachine::new(self.options.clone(), *request, self.rng.fork());
        let id = self.next_flow;
        self.next_flow += 1;
        let stage = Stage::Running(Box::new(machine));
        self.flows.insert(id, Flow { origin, member, method, path, user, term, stage, again, offered: None, round });
        if waits {
            self.read(id);
        } else {
            self.resume(id, Resume::Start);
        }
    }

    /// A request goes on when its member has everything that was acknowledged before now.
    fn read(&mut self, id: u64) {
        let Some(member) = self.flows.get(&id).map(|flow| flow.member) else { return };
        let read = self.members[member].read(id);
        self.step_member(member, Input::Read(read));
    }

    /// A request goes on, until it needs something that is not there yet.
    pub(super) fn resume(&mut self, id: u64, resume: Resume) {
        if matches!(resume, Resume::Start)
            && let Some((transaction, _)) = self.flows.get(&id).and_then(|flow| flow.offered.clone())
        {
            return self.propose((id, None), *transaction);
        }
        let Some(Flow { stage: Stage::Running(machine), member, .. }) = self.flows.get_mut(&id) else { return };
        let Some(view) = self.members[*member].serving_view().cloned() else { return };
        let next = machine.advance(&view, self.now, resume);
        if let Some(flow) = self.flows.get_mut(&id)
            && let Some(request) = flow.again.take()
            && !matches!(next, Next::Propose(_))
        {
            let machine = RequestMachine::new(self.options.clone(), *request, self.rng.fork());
            flow.stage = Stage::Running(Box::new(machine));
            return self.read(id);
        }
        match next {
            Next::Respond(response) => self.finish(id, response),
            Next::List(listing) => self.finish(id, listing.into_response()),
            Next::Propose(transaction) => self.propose((id, None), transaction),
            Next::ProposeAll(transactions) => self.propose_all(id, transactions),
            Next::WaitFor(revision) => {
                self.waiting.insert(id, revision);
                self.schedule(REVISION_WAIT, Event::Deadline { flow: id });
            }
            Next::Watch(watcher) if matches!(self.flows[&id].origin, Origin::Follower { .. }) => {
                if let Some(Flow { origin: Origin::Follower { follower, attempt }, member, .. }) =
                    self.flows.remove(&id)
                {
                    self.stream(member, follower, attempt, watcher);
                }
            }
            Next::Watch(_) | Next::Tunnel(_) => {
                self.finish(id, Status::bad_request("streams are not served here").into());
            }
            Next::Call(_) => self.finish(id, Status::internal("no script answers this callout").into()),
        }
    }

    fn propose(&mut self, from: Proposer, mut transaction: Transaction) {
        let Some(flow) = self.flows.get(&from.0) else { return };
        let (member, term) = (flow.member, flow.term);
        let client = matches!(flow.origin, Origin::Test(_));
        transaction.term = term;
        if let Some(flow) = self.flows.get_mut(&from.0)
            && term.is_none()
            && from.1.is_none()
        {
            let offers = flow.offered.as_ref().map_or(0, |(_, offers)| *offers);
            flow.offered = Some((Box::new(transaction.clone()), offers + 1));
        }
        if client && self.is_wrong(Mutation::AnswerBeforeCommit) {
            let view = self.members[member].serving_view().cloned();
            if let Some(foretold) = view.map(|view| foretell(&view, &transaction)) {
                self.settled(from, Proposed::Settled(foretold));
            }
        }
        let proposal = self.members[member].propose(from);
        self.note_work(member, proposal.0, &transaction);
        let input = Input::Submit(proposal, transaction);
        let boot = self.members[member].boot;
        self.schedule(Duration::ZERO, Event::Brain { member, boot, input });
    }

    fn propose_all(&mut self, id: u64, transactions: Vec<Transaction>) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.round = transactions.iter().map(|_| None).collect();
        }
        for (index, transaction) in transactions.into_iter().enumerate() {
            self.propose((id, Some(index)), transaction);
        }
    }

    /// Nobody led, and nothing was or will be done of a proposal: it is proposed again once somebody does, like the driver's.
    pub(super) fn not_led(&mut self, from: Proposer) {
        let offers = self.flows.get(&from.0).and_then(|flow| flow.offered.as_ref()).map(|(_, offers)| *offers);
        match offers.filter(|_| from.1.is_none() && self.members.len() > 1) {
            Some(offers) if offers < LEADERS_TRIED_MAX => self.read(from.0),
            _ => self.settled(from, Proposed::Unsettled(unavailable("there is no leader; try again"))),
        }
    }

    /// What became of a proposal: the request goes on when it was its only one, or the last of its round.
    pub(super) fn settled(&mut self, (id, index): Proposer, outcome: Proposed) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.offered = None;
        }
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

    /// A member's view has moved: who waited for its revision there goes on.
    pub(super) fn reached(&mut self, member: usize, revision: Revision) {
        let here = |flow: &u64| self.flows.get(flow).is_some_and(|flow| flow.member == member);
        let reached = self.waiting.iter().filter(|(flow, wanted)| **wanted <= revision && here(flow));
        let reached: Vec<u64> = reached.map(|(flow, _)| *flow).collect();
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

    pub(super) fn finish(&mut self, id: u64, response: Response) {
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
                    Some(status) if status.code == 504 => Outcome::Unknown,
                    Some(status) => Outcome::Refused(status),
                };
                self.history.end(self.now.mono, ticket, outcome);
            }
            Origin::Follower { follower, attempt } => self.follower_answered(follower, attempt, &response),
            Origin::Brain(member, boot, id) => {
                let input = Input::Answered(id, response);
                self.schedule(Duration::ZERO, Event::Brain { member, boot, input });
            }
            Origin::Node { node, agent, id: Some(id) } => {
                let delay = self.travel();
                self.schedule(delay, Event::Answer { node, agent, id, response });
            }
            Origin::Node { node, agent, id: None } => {
                let (delay, success) = (self.travel(), response.is_success());
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

/// Kubernetes' answer when an outcome is not known.
pub(super) fn timed_out() -> Status {
    Status::failure(504, Some(Reason::Timeout), "Timeout: request did not complete within the allotted timeout")
}

/// The requests that wait for a revision.
pub(super) type Waiting = std::collections::BTreeMap<u64, Revision>;
