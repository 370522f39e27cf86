//! What a leader does beside replicating: controllers and the scheduler run, and what they want goes through the API server.
//!
//! All of it is lost with the lead, which is defined: a new leader resyncs from its view.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use coracle_api::events::EventRecorder;
use coracle_api::registry::Registry;
use coracle_api::resources::EVENTS;
use coracle_api::{ObjectKey, Request, Response, Status, UserInfo};
use coracle_apiserver::ServerOptions;
use coracle_base::{Instant, Now, Rng};
use coracle_controllers::{Action, EventRecord, EventWrite, Manager, Patch, WorkId};
use coracle_scheduler::{Decision, Scheduler};
use coracle_store::{Change, View};

use crate::action::{self, ActionId};
use crate::bootstrap;

/// How many keys are reconciled in one step, and how many pods are placed: a step stays under a millisecond.
const RECONCILES_PER_STEP: usize = 8;
const DECISIONS_PER_STEP: usize = 16;
/// Who places pods, as its Events say.
const SCHEDULER: &str = "default-scheduler";
/// The name under which the control plane itself creates what every cluster has.
const SERVER: &str = "system:apiserver";
/// The field managers of what controllers write, and of what the scheduler does, as Kubernetes names them.
const MANAGER: &str = "kube-controller-manager";
const SCHEDULER_MANAGER: &str = "kube-scheduler";
const SERVER_MANAGER: &str = "kube-apiserver";
/// The one controller whose writes have its own name.
const ROLE_AGGREGATION: &str = "clusterrole-aggregation-controller";

/// How many requests of the leader are on their way at most: what is decided beyond waits for the next step.
const ACTIONS_IN_FLIGHT_MAX: usize = 2048;

/// Whose actions a flight carries out.
#[derive(Debug)]
enum Origin {
    Controller(WorkId),
    Scheduler(ObjectKey),
    /// Nobody waits for it.
    Nobody,
}

/// Actions of one origin on their way: a run of the same verb on the same resource goes out together, the next run when it is settled.
#[derive(Debug)]
struct Flight {
    origin: Origin,
    user: &'static str,
    rest: VecDeque<(usize, Action)>,
    waiting: usize,
    results: Vec<Result<(), Status>>,
    /// When it was decided: its Events carry this time, so that they stand before what follows from its other actions.
    begun: Now,
}

/// What an answer belongs to.
#[derive(Debug)]
enum Awaited {
    Action {
        flight: u64,
        index: usize,
    },
    /// The count of an Event that may be gone.
    EventCount(String),
    Event,
}

/// The leader's own machinery.
#[derive(Debug)]
pub(crate) struct Leader {
    manager: Manager,
    scheduler: Scheduler,
    recorder: EventRecorder,
    rng: Rng,
    registry: Registry,
    options: Arc<ServerOptions>,
    flights: BTreeMap<u64, Flight>,
    awaited: BTreeMap<ActionId, Awaited>,
    next_flight: u64,
    next_action: u64,
    /// There may be more to do than the last step's budget allowed.
    more: bool,
    out: Vec<(ActionId, Request)>,
}

impl Leader {
    /// A leader that has just come to lead: it looks at everything once. `first_action` keeps ids apart from an earlier lead's.
    pub(crate) fn new(
        manager: Manager,
        view: &View,
        registry: Registry,
        options: Arc<ServerOptions>,
        rng: Rng,
        first_action: u64,
        now: Now,
    ) -> Self {
        let mut leader = Self {
            manager,
            scheduler: Scheduler::new(),
            recorder: EventRecorder::default(),
            rng,
            registry,
            options,
            flights: BTreeMap::new(),
            awaited: BTreeMap::new(),
            next_flight: 0,
            next_action: first_action,
            more: true,
            out: Vec::new(),
        };
        leader.manager.resync(view);
        leader.scheduler.resync();
        let missing = bootstrap::missing(view, &leader.options);
        leader.launch(Origin::Nobody, SERVER, missing, now);
        leader
    }

    /// The id that the next leader of this member begins with.
    pub(crate) fn next_action(&self) -> u64 {
        self.next_action
    }

    /// Takes note of a change.
    pub(crate) fn observe(&mut self, view: &View, change: &Change) {
        self.manager.observe(view, change);
        self.scheduler.observe(view, change);
    }

    /// A node's agent is alive.
    pub(crate) fn heartbeat(&mut self, node: &str, now: Now) {
        self.manager.heartbeat(node, now);
    }

    /// The clocks drifted apart: everything is looked at anew, so that deadlines are computed from what is stored.
    pub(crate) fn clock_jumped(&mut self, view: &View, now: Now) {
        self.manager.clock_jumped(view, now);
        self.more = true;
    }

    /// A request came to its end.
    pub(crate) fn answered(&mut self, id: ActionId, response: &Response, now: Now) {
        match self.awaited.remove(&id) {
            Some(Awaited::Action { flight, index }) => {
                let result = response.failure().map_or(Ok(()), Err);
                if let Some(flying) = self.flights.get_mut(&flight) {
                    flying.results[index] = result;
                    flying.waiting -= 1;
                }
                self.advance(flight, now);
            }
            Some(Awaited::EventCount(name)) if !response.is_success() => self.recorder.forget(&name),
            Some(Awaited::EventCount(_) | Awaited::Event) | None => {}
        }
    }

    /// Does a slice of the work and returns the requests that come of it.
    pub(crate) fn run(&mut self, view: &View, now: Now) -> Vec<(ActionId, Request)> {
        self.more = false;
        if self.awaited.len() < ACTIONS_IN_FLIGHT_MAX {
            let works = self.manager.next(view, now, RECONCILES_PER_STEP);
            self.more |= works.len() == RECONCILES_PER_STEP;
            for work in works {
                self.launch(Origin::Controller(work.id), work.controller, work.actions, now);
            }
            let decisions = self.scheduler.schedule(view, now, &mut self.rng, DECISIONS_PER_STEP);
            self.more |= decisions.len() == DECISIONS_PER_STEP;
            for decision in decisions {
                self.decide(&decision, view, now);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// When [`Self::run`] has something to do; the origin means at once.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        if self.awaited.len() >= ACTIONS_IN_FLIGHT_MAX {
            return None; // the next answer wakes it
        }
        if self.more {
            return Some(Instant::ZERO);
        }
        [self.manager.next_wakeup(), self.scheduler.next_wakeup()].into_iter().flatten().min()
    }

    fn decide(&mut self, decision: &Decision, view: &View, now: Now) {
        let mut actions = Vec::new();
        let status = |pod: &ObjectKey, patch| Action::Patch {
            key: pod.clone(),
            subresource: Some("status"),
            patch: Patch::Merge(patch),
        };
        actions.extend(decision.status_patch(view, now).map(|patch| status(decision.pod(), patch)));
        match decision {
            Decision::Bind { pod, uid, node } => {
                actions.push(Action::Bind { pod: pod.clone(), uid: uid.clone(), node: node.clone() });
            }
            Decision::Unschedulable { victims, .. } => {
                let patches =
                    victims.iter().filter_map(|v| Some(status(&v.pod, Decision::victim_patch(view, v, now)?)));
                actions.extend(patches);
                actions.extend(victims.iter().map(|victim| Action::Delete {
                    key: victim.pod.clone(),
                    uid: Some(victim.uid.clone()),
                    revision: None,
                    propagation: None,
                    grace_period: None,
                }));
            }
        }
        actions.extend(decision.events().into_iter().map(Action::Event));
        self.launch(Origin::Scheduler(decision.pod().clone()), SCHEDULER, actions, now);
    }

    fn launch(&mut self, origin: Origin, user: &'static str, actions: Vec<Action>, now: Now) {
        let id = self.next_flight;
        self.next_flight += 1;
        let results = actions.iter().map(|_| Ok(())).collect();
        let rest = actions.into_iter().enumerate().collect();
        self.flights.insert(id, Flight { origin, user, rest, waiting: 0, results, begun: now });
        self.advance(id, now);
    }

    /// Sends the next run of actions once the one before is settled; ends the flight when there is none, or one failed.
    fn advance(&mut self, id: u64, now: Now) {
        loop {
            let Some(flight) = self.flights.get_mut(&id) else { return };
            if flight.waiting > 0 {
                return;
            }
            let failed = !matches!(flight.origin, Origin::Nobody) && flight.results.iter().any(Result::is_err);
            let run = if failed { Vec::new() } else { take_run(&mut flight.rest) };
            if run.is_empty() {
                return self.land(id, now);
            }
            let user = flight.user;
            for (index, action) in run {
                self.send(id, index, user, action, now);
            }
        }
    }

    fn send(&mut self, flight: u64, index: usize, user: &'static str, action: Action, now: Now) {
        if let Action::Event(record) = &action {
            let decided = self.flights.get(&flight).map_or(now, |flying| flying.begun);
            return self.record(user, record, decided);
        }
        let account = if user == SERVER { UserInfo::admin(SERVER) } else { UserInfo::controller(user) };
        let target = action.target().clone();
        let Some(flying) = self.flights.get_mut(&flight) else { return };
        match action::request(&self.registry, account, manager_of(user), action) {
            Some(request) => {
                flying.waiting += 1;
                self.request(Awaited::Action { flight, index }, request);
            }
            None => flying.results[index] = Err(Status::not_found(&target.resource, &target.name)),
        }
    }

    fn record(&mut self, component: &str, record: &EventRecord, now: Now) {
        let Some(write) = self.recorder.record(component, None, record, now, &mut self.rng) else { return };
        let (awaited, action) = match write {
            EventWrite::Create { namespace, object } => {
                (Awaited::Event, Action::Create { key: ObjectKey::new(EVENTS, &namespace, ""), object })
            }
            EventWrite::Count { namespace, name, patch } => {
                let key = ObjectKey::new(EVENTS, &namespace, &name);
                let patch = Patch::Merge(patch);
                (Awaited::EventCount(name), Action::Patch { key, subresource: None, patch })
            }
        };
        if let Some(request) =
            action::request(&self.registry, UserInfo::controller(component), manager_of(component), action)
        {
            self.request(awaited, request);
        }
    }

    fn request(&mut self, awaited: Awaited, request: Request) {
        let id = ActionId(self.next_action);
        self.next_action += 1;
        self.awaited.insert(id, awaited);
        self.out.push((id, request));
    }

    fn land(&mut self, id: u64, now: Now) {
        let Some(flight) = self.flights.remove(&id) else { return };
        match flight.origin {
            Origin::Controller(work) => self.manager.settled(now, work, flight.results),
            Origin::Scheduler(pod) => {
                let ok = flight.results.iter().all(Result::is_ok);
                self.scheduler.settled(now, &pod, ok);
            }
            Origin::Nobody => {
                for status in flight.results.into_iter().filter_map(Result::err) {
                    tracing::warn!(%status, "an object that every cluster has cannot be made");
                }
            }
        }
    }
}

fn manager_of(user: &str) -> &'static str {
    match user {
        SCHEDULER => SCHEDULER_MANAGER,
        SERVER => SERVER_MANAGER,
        ROLE_AGGREGATION => ROLE_AGGREGATION,
        _ => MANAGER,
    }
}

/// The first actions of the same verb on the same resource: these do not lean on each other.
fn take_run(rest: &mut VecDeque<(usize, Action)>) -> Vec<(usize, Action)> {
    let mut run = Vec::new();
    let kind = |action: &Action| (action.verb(), action.target().resource.clone());
    let Some(first) = rest.front().map(|(_, action)| kind(action)) else { return run };
    while let Some((_, action)) = rest.front() {
        if kind(action) != first {
            break;
        }
        run.extend(rest.pop_front());
    }
    run
}
