//! A cluster in a test: what a test says to it, and how long it lets it run.

use std::fmt;
use std::time::Duration;

use coracle_api::registry::Registry;
use coracle_api::{Method, ObjectKey, Request, Resource, Response, UserInfo};
use coracle_base::{Instant, Rng};
use coracle_raft::MemberId;
use coracle_store::View;
use expect_test::Expect;
use serde_json::{Value, json};

use crate::history::{Access, History, Outcome, Ticket};
use crate::world::{Flow, Origin, World};
use crate::{Builder, Class, Manifest, Script, manifest, render};

/// Events after which a run that was to end is not going to.
const STEPS_MAX: u64 = 20_000_000;
/// The longest that [`TestCluster::run_until`] lets time pass.
const RUN_MAX: Duration = Duration::from_hours(24);
/// How long nothing is written before a cluster counts as being at rest: longer than the waits after conflicts.
const QUIET: Duration = Duration::from_secs(5);
/// How long a client waits for an answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(12);
/// How long a cluster has to converge.
const CONVERGE_MAX: Duration = Duration::from_hours(2);

/// What happens to the dependents of what is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

/// A cluster under virtual time. When a test fails, its seed and the command that replays it are printed.
pub struct TestCluster {
    pub(crate) world: World,
    replay: Option<String>,
}

impl fmt::Debug for TestCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCluster")
            .field("seed", &self.world.seed())
            .field("now", &self.world.now)
            .field("steps", &self.world.steps)
            .finish_non_exhaustive()
    }
}

impl TestCluster {
    pub(crate) fn of(world: World, replay: Option<String>) -> Self {
        Self { world, replay }
    }

    /// A cluster of so many members, all of them voters.
    ///
    /// # Panics
    ///
    /// Without any.
    #[track_caller]
    pub fn members(members: usize) -> Builder {
        Builder::new(members)
    }

    // Time.

    /// Lets everything that is under way come to its end; what is left waits for time to pass. This takes the milliseconds
    /// that disks and the network take.
    #[track_caller]
    pub fn settle(&mut self) {
        let start = self.world.steps;
        while !self.world.is_settled() {
            let Some(due) = self.world.next_due() else { break };
            self.world.step(due);
            assert!(self.world.steps - start < STEPS_MAX, "the cluster does not settle");
        }
    }

    /// Lets time pass, and what it brings about come to its end.
    #[track_caller]
    pub fn advance(&mut self, duration: Duration) {
        self.run_for(duration);
        self.settle();
    }

    /// Lets time pass, and stops in the middle of whatever is going on.
    #[track_caller]
    pub fn run_for(&mut self, duration: Duration) {
        let (start, until) = (self.world.steps, self.world.now.mono + duration);
        while self.world.step(until) {
            assert!(self.world.steps - start < STEPS_MAX, "more events than time can bring");
        }
        self.world.pass_to(until);
    }

    /// Lets so many events happen, and stops in the middle of whatever is going on.
    pub fn advance_events(&mut self, events: u64) {
        for _ in 0..events {
            let Some(due) = self.world.next_due() else { break };
            self.world.step(due);
        }
    }

    /// Goes on event by event until something holds.
    ///
    /// # Panics
    ///
    /// When it does not hold within a day, or nothing is left to happen.
    #[track_caller]
    pub fn run_until(&mut self, reached: impl FnMut(&Self) -> bool) {
        self.run_until_within(RUN_MAX, reached);
    }

    /// The same within a time.
    ///
    /// # Panics
    ///
    /// When it does not hold within the time, or nothing is left to happen.
    #[track_caller]
    pub fn run_until_within(&mut self, most: Duration, mut reached: impl FnMut(&Self) -> bool) {
        let (start, until) = (self.world.steps, self.world.now.mono + most);
        while !reached(self) {
            assert!(self.world.step(until), "nothing is left to happen within {most:?}");
            assert!(self.world.steps - start < STEPS_MAX, "it does not come to that");
        }
    }

    /// Goes on until every Deployment is as it should be, nothing is being deleted and nothing has been written for a while; then
    /// what must hold at rest is looked at.
    ///
    /// # Panics
    ///
    /// When that takes more than two hours of virtual time.
    #[track_caller]
    pub fn run_until_converged(&mut self) {
        let until = self.world.now.mono + CONVERGE_MAX;
        let mut quiet = (self.view().revision(), self.world.now.mono);
        while !render::is_converged(self.view()) || self.world.now.mono < quiet.1 + QUIET {
            assert!(self.world.now.mono < until, "the cluster does not converge:\n{}", render::pods(self.view(), None));
            self.advance(Duration::from_secs(1));
            if self.view().revision() != quiet.0 {
                quiet = (self.view().revision(), self.world.now.mono);
            }
        }
        self.world.check_converged();
    }

    /// How long the cluster has run.
    pub fn elapsed(&self) -> Duration {
        self.world.now.mono.saturating_since(Instant::ZERO)
    }

    /// How many events have happened.
    pub fn steps(&self) -> u64 {
        self.world.steps
    }

    /// The digest of everything that has happened: equal for equal seeds.
    pub fn trace_digest(&self) -> String {
        self.world.trace.digest()
    }

    // Requests.

    /// Applies objects: YAML as `kubectl apply --server-side` does, or lines as `deployment/web replicas=3 image=x` where an
    /// object that is there is changed by what the line names; or a `pod`. Does not wait for what comes of it.
    ///
    /// # Panics
    ///
    /// When the text cannot be read, or the API server refuses.
    #[track_caller]
    pub fn apply(&mut self, what: impl Into<Manifest>) {
        let what = what.into();
        #[cfg(feature = "wasm")]
        for (name, bytes) in &what.images {
            self.image(name, bytes);
        }
        let requests = manifest::requests(&what.text, |key| self.view().object(key).is_some());
        for request in requests {
            let (method, path) = (request.method, request.path.clone());
            let response = self.request(request);
            if let Some(status) = response.failure() {
                panic!("{method:?} {path}: {}", status.message);
            }
        }
    }

    /// Gives every node an image: a core module with `_start`, binary or text.
    ///
    /// # Panics
    ///
    /// When the nodes run no modules, the name is no image name, or the bytes are no WebAssembly.
    #[cfg(feature = "wasm")]
    #[track_caller]
    pub fn image(&mut self, name: &str, module: impl AsRef<[u8]>) {
        let images = self.world.images.as_ref().expect("the nodes run modules: build the cluster with `wasm`");
        if let Err(error) = images.import(name, module.as_ref()) {
            panic!("{error}");
        }
    }

    /// The same through a member, without waiting: whether it is answered or refused is in [`Self::history`].
    #[track_caller]
    pub fn apply_via(&mut self, member: MemberId, lines: &str) -> Vec<Ticket> {
        let m = self.world.place(member);
        let requests = manifest::requests(lines, |key| self.view().object(key).is_some());
        requests.into_iter().map(|request| self.submit_to(m, request, None)).collect()
    }

    /// Deletes an object through a member, without waiting.
    #[track_caller]
    pub fn delete_via(&mut self, member: MemberId, object: &str, propagation: Propagation) -> Ticket {
        let m = self.world.place(member);
        self.submit_to(m, deletion(object, propagation), None)
    }

    /// Makes a request, and runs until it is answered. Without a user it is the administrator's.
    ///
    /// # Panics
    ///
    /// When the member crashes meanwhile: [`Self::submit`] is for that.
    #[track_caller]
    pub fn request(&mut self, request: Request) -> Response {
        let ticket = self.submit(request);
        self.run_until(|cluster| *cluster.history().outcome(ticket) != Outcome::Pending);
        match self.history().outcome(ticket) {
            Outcome::Acknowledged(response) => response.clone(),
            Outcome::Refused(status) => status.clone().into(),
            Outcome::Pending | Outcome::Unknown => panic!("the member crashed before it answered"),
        }
    }

    /// Makes a request and does not wait; what becomes of it is in [`Self::history`].
    pub fn submit(&mut self, request: Request) -> Ticket {
        self.submit_to(0, request, None)
    }

    /// The same to a member, about a register.
    pub(crate) fn submit_to(
        &mut self,
        member: usize,
        mut request: Request,
        register: Option<(String, Access)>,
    ) -> Ticket {
        if request.user == UserInfo::default() {
            request.user = UserInfo::admin("admin");
        }
        let ticket = self.world.history.begin(self.world.now.mono, request.method, &request.path, register);
        let flow = Flow::new(Origin::Test(ticket), None, request).via(member);
        self.world.schedule(Duration::ZERO, crate::world::Event::Arrive(Box::new(flow)));
        if self.world.members.len() > 1 {
            self.world.schedule(CLIENT_PATIENCE, crate::world::Event::GiveUp { ticket });
        }
        ticket
    }

    /// Deletes an object as `kubectl delete --cascade` does, and does not wait until it is gone.
    ///
    /// # Panics
    ///
    /// When the API server refuses.
    #[track_caller]
    pub fn delete(&mut self, object: &str, propagation: Propagation) {
        let response = self.request(deletion(object, propagation));
        if let Some(status) = response.failure() {
            panic!("{object}: {}", status.message);
        }
    }

    /// A client follows a resource from now on, in one namespace or in all: a list, then watches one after the other, each through
    /// any member. It must hear of every change once.
    #[track_caller]
    pub fn follow(&mut self, resource: &str, namespace: Option<&str>) {
        let resource = manifest::resource(resource);
        let everywhere = Resource { namespaced: resource.namespaced && namespace.is_some(), ..resource.clone() };
        let key = ObjectKey::new(resource.group_resource.clone(), namespace.unwrap_or_default(), "");
        self.world.follow(&resource, manifest::path(&everywhere, &key), namespace.map(ToOwned::to_owned));
    }

    /// Lets time pass until who follows something has heard of everything that has happened up to now.
    ///
    /// # Panics
    ///
    /// When that takes more than a minute.
    #[track_caller]
    pub fn run_until_told(&mut self) {
        let changes: Vec<usize> = self.world.followers.iter().map(|follower| follower.topic.len()).collect();
        for _ in 0..120 {
            let mut all = self.world.followers.iter().zip(&changes);
            if all.all(|(follower, changes)| follower.place.has_heard(*changes)) {
                return;
            }
            self.run_for(Duration::from_millis(500));
        }
        panic!("a watch does not tell of everything");
    }

    /// Every request of the test.
    pub fn history(&self) -> &History {
        &self.world.history
    }

    /// The state, as everybody reads it; while the member is down, as it last was.
    pub fn view(&self) -> &View {
        self.world.view()
    }

    /// An object as the API shows it: `pod/web`, or in another namespace `shop/pod/web`.
    #[track_caller]
    pub fn get(&self, object: &str) -> Option<Value> {
        let (resource, key) = find(object);
        self.view().object(&key).map(|object| object.value(Some(&resource.gvk)))
    }

    /// The objects of a resource in every namespace, in the order of their names.
    #[track_caller]
    pub fn list(&self, resource: &str) -> Vec<Value> {
        let resource = manifest::resource(resource);
        self.view().list(&resource.group_resource, None).map(|object| object.value(Some(&resource.gvk))).collect()
    }

    // Faults.

    /// Kills the first member's process: what its disk had not written may be lost, requests under way have no known outcome.
    pub fn crash_member(&mut self) {
        self.world.crash_member(0);
    }

    /// Starts it again, from what its disk holds.
    pub fn restart_member(&mut self) {
        self.world.start_member(0);
    }

    /// The node loses its power: agent, containers, and what its disk had not written.
    #[track_caller]
    pub fn kill_node(&mut self, node: &str) {
        self.world.totals.add(Class::NodeFaults, 1);
        self.world.kill_node(node);
    }

    /// Starts a killed node again: its containers are gone, its checkpoint is there.
    #[track_caller]
    pub fn restart_node(&mut self, node: &str) {
        self.world.start_agent(node);
    }

    /// The agent alone is started again while its containers go on.
    #[track_caller]
    pub fn restart_agent(&mut self, node: &str) {
        self.world.totals.add(Class::NodeFaults, 1);
        self.world.stop_agent(node);
        self.world.start_agent(node);
    }

    /// The node and the API server do not hear each other any more; the node goes on.
    #[track_caller]
    pub fn cut_node(&mut self, node: &str) {
        self.world.totals.add(Class::NodeFaults, 1);
        self.world.cut_node(node);
    }

    /// They hear each other again.
    #[track_caller]
    pub fn heal_node(&mut self, node: &str) {
        self.world.heal_node(node);
    }

    /// The nodes whose process runs.
    pub fn running_nodes(&self) -> Vec<String> {
        self.world.seats.iter().filter(|(_, seat)| seat.is_running()).map(|(name, _)| name.clone()).collect()
    }

    /// How many containers run on a node.
    #[track_caller]
    pub fn running_containers(&mut self, node: &str) -> usize {
        self.world.seat(node).running()
    }

    /// A line for each container that runs anywhere: its node, its pod's name and uid, its instance.
    pub fn show_containers(&self) -> String {
        self.world.timelines.running().fold(String::new(), |text, line| text + &line + "\n")
    }

    /// Says how containers of an image behave from now on.
    pub fn script(&mut self, image: &str, script: Script) {
        self.world.script(image, script);
    }

    /// A generator for the faults and the load of a test, drawn from the seed and apart from the world's own.
    pub fn rng(&self) -> Rng {
        Rng::seeded(self.world.seed() ^ 0x5eed_0f7e_5700)
    }

    // What tests look at.

    /// Compares a text about the cluster: `pod/web timeline` (starts and ends of its containers), `pod/web states` (its
    /// status whenever it changed), `pod/web events`, `deployment/web conditions`, `deployment/web pods`, or `pods`.
    #[track_caller]
    pub fn check(&self, question: &str, expected: Expect) {
        expected.assert_eq(&self.show(question));
    }

    /// The text that [`Self::check`] compares.
    ///
    /// # Panics
    ///
    /// When nobody knows what is meant.
    #[track_caller]
    pub fn show(&self, question: &str) -> String {
        let (object, what) = question.rsplit_once(' ').unwrap_or(("", question));
        if object.is_empty() {
            assert_eq!(what, "pods", "there is no such text");
            return render::pods(self.view(), None);
        }
        let (_, key) = find(object);
        match what {
            "timeline" => self.world.timelines.pod(&key).map(render::timeline).unwrap_or_default(),
            "states" => self.world.timelines.pod(&key).map(render::states).unwrap_or_default(),
            "events" => render::events(self.view(), &key),
            "logs" => self.logs(&key),
            "conditions" => render::conditions(self.view(), &key),
            "pods" => render::pods(self.view(), Some(&key)),
            _ => panic!("there is no text {what:?} about {object}"),
        }
    }

    /// What a pod's container that started last has written, to both of its outputs.
    fn logs(&self, pod: &ObjectKey) -> String {
        let run = self.world.timelines.pod(pod).and_then(|timeline| timeline.runs.last());
        let seat = run.and_then(|run| self.world.seats.get(&run.node));
        run.zip(seat).map(|(run, seat)| seat.logs.read(&run.id)).unwrap_or_default()
    }
}

/// The request that deletes an object.
#[track_caller]
fn deletion(object: &str, propagation: Propagation) -> Request {
    let (resource, key) = find(object);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": format!("{propagation:?}")});
    Request::new(Method::Delete, manifest::path(&resource, &key), UserInfo::default()).json(options)
}

/// The resource and key of `pod/web` or `shop/pod/web`.
#[track_caller]
fn find(object: &str) -> (Resource, ObjectKey) {
    let parts: Vec<&str> = object.split('/').collect();
    let (namespace, kind, name) = match parts.as_slice() {
        [kind, name] => ("default", *kind, *name),
        [namespace, kind, name] => (*namespace, *kind, *name),
        _ => panic!("{object:?} is not KIND/NAME"),
    };
    let resource = manifest::resource(kind);
    let namespace = if resource.namespaced { namespace } else { "" };
    let key = ObjectKey::new(resource.group_resource.clone(), namespace, name);
    (resource, key)
}

/// The built-in kinds.
pub(crate) fn registry() -> Registry {
    Registry::builtin()
}

impl Drop for TestCluster {
    #[expect(clippy::print_stderr, reason = "a failed test says how to see it fail again")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let seed = self.world.seed();
        let current = std::thread::current();
        let test = current.name().unwrap_or_default();
        eprintln!("the last events:\n{}", self.world.trace.tail());
        if let Some(command) = &self.replay {
            return eprintln!("seed {seed}; replay with:\n{command}");
        }
        eprintln!("seed {seed}; replay with:");
        eprintln!("CORACLE_SIM_SEED={seed} cargo test -p coracle-tests --test sim -- --exact {test}");
    }
}
