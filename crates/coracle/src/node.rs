//! The nodes of this process: one loop drives every agent, each with a runtime of its own.
//!
//! Agents decide; this loop only carries their outputs to runtimes, the API server and the brain, and brings answers back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use coracle_api::events::{EventRecord, EventRecorder, EventType};
use coracle_api::resources::{NODES, PODS};
use coracle_api::settings::{ClusterSettings, SETTINGS};
use coracle_api::{Object, ObjectKey, Quantity, Request, Response, Revision, Uid, WatchEvent};
use coracle_base::{DelayQueue, Instant, Rng};
use coracle_engine::NodeFeed;
use coracle_node::fake::Script;
use coracle_node::runtime::{Runtime, RuntimeEvent};
use coracle_node::{Capacity, Checkpoint, Input, NodeAgent, NodeConfig, Output, RequestId};
use coracle_store::View;
use tokio::sync::mpsc;

use crate::brain::Message;
use crate::process::Process;
use crate::settings;
use crate::usage::{self, Book};

mod checkpoint;
mod events;
mod fake;
mod host;
#[cfg(feature = "docker")]
mod runtimes;

pub(crate) use checkpoint::{Keeper, private_file};
use events::EventWriter;
use fake::FakeNode;
#[cfg(feature = "wasm")]
pub(crate) use host::Host;
#[cfg(feature = "docker")]
pub(crate) use runtimes::{Known, Part, Runtimes};

/// A Node with this annotation and the value `fake` has no machine behind it: it is kept Ready and its pods are data
/// (the convention of kwok, <https://kwok.sigs.k8s.io/docs/user/kwok-manage-nodes-and-pods/>).
pub(crate) const FAKE_ANNOTATION: &str = "kwok.x-k8s.io/node";
/// What a fake node has to give when its Node does not say.
pub(crate) const FAKE_CAPACITY: Capacity = Capacity { cpu_millis: 32_000, memory: 256 << 30, pods: 110 };

/// How many things are told to agents before their timers are looked at, however much there is to tell.
const TURNS_MAX: usize = 64;
/// How often what a fake node's runtime answers at once is asked for before its agent is told that nothing else happens.
const ANSWERS_MAX: usize = 16;

/// What other parts of the process need of a node: its runtime, by the node's name.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    runtimes: RwLock<BTreeMap<String, Arc<dyn Runtime>>>,
    routes: RwLock<BTreeMap<std::net::IpAddr, (String, Uid)>>,
    /// What they use.
    pub(crate) usage: Book,
}

impl Nodes {
    /// The runtime of a node of this process.
    pub(crate) fn runtime(&self, node: &str) -> Option<Arc<dyn Runtime>> {
        self.runtimes.read().expect("nothing panics while it holds the lock").get(node).cloned()
    }

    /// The node and pod that have an address.
    pub(crate) fn pod_at(&self, address: std::net::IpAddr) -> Option<(String, Uid)> {
        self.routes.read().expect("nothing panics while it holds the lock").get(&address).cloned()
    }

    /// A node is gone, and nobody has its addresses.
    fn forget(&self, node: &str) {
        self.runtimes.write().expect("nothing panics while it holds the lock").remove(node);
        self.usage.forget(node);
        self.routes.write().expect("nothing panics while it holds the lock").retain(|_, (owner, _)| owner != node);
    }

    fn add(&self, node: &str, runtime: Arc<dyn Runtime>) {
        self.runtimes.write().expect("nothing panics while it holds the lock").insert(node.to_owned(), runtime);
    }

    fn route(&self, node: &str, address: std::net::IpAddr, pod: Option<Uid>) {
        let mut routes = self.routes.write().expect("nothing panics while it holds the lock");
        match pod {
            Some(pod) => routes.insert(address, (node.to_owned(), pod)),
            None => routes.remove(&address),
        };
    }
}

/// What the loop is sent. Its length is bounded by what agents have asked for: every command has one answer, and a container
/// ends once.
#[derive(Debug)]
pub(crate) enum News {
    /// A node joins the loop.
    Join(Box<Joining>),
    /// Something happened in a node's runtime.
    Runtime(String, RuntimeEvent),
    /// A request of a node was answered.
    Answer(String, RequestId, Response),
    /// A node's Event was to be counted up and is not there any more.
    EventGone(String, String),
}

/// A node that joins.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) name: String,
    pub(crate) agent: NodeAgent,
    pub(crate) runtime: Carrier,
    pub(crate) keeper: Option<Keeper>,
}

/// Who carries out a node's commands.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// A runtime, which answers through its [`Host`].
    Real(Arc<dyn Runtime>),
    /// Nobody: every pod runs at once.
    Fake(FakeNode),
}

#[derive(Debug)]
struct Seat {
    /// The Node is the user's own: when it goes, its agent goes.
    adopted: bool,
    agent: NodeAgent,
    carrier: Carrier,
    keeper: Option<Keeper>,
    recorder: EventRecorder,
    events: EventWriter,
}

/// The loop.
#[derive(Debug)]
pub(crate) struct NodeLoop {
    process: Arc<Process>,
    news: mpsc::UnboundedReceiver<News>,
    sender: mpsc::UnboundedSender<News>,
    feed: NodeFeed,
    seats: BTreeMap<String, Seat>,
    timers: DelayQueue<String>,
    rng: Rng,
    /// How containers behave on fake nodes, by image.
    scripts: BTreeMap<String, Script>,
    /// The Nodes were last looked through at this revision, and the cluster's settings at that.
    nodes_seen: Revision,
    settings_seen: Option<Revision>,
    heartbeat_interval: Duration,
}

impl NodeLoop {
    /// A loop without nodes: they come by [`News::Join`].
    pub(crate) fn new(
        process: Arc<Process>,
        sender: mpsc::UnboundedSender<News>,
        news: mpsc::UnboundedReceiver<News>,
        scripts: BTreeMap<String, Script>,
    ) -> Self {
        let rng = process.fork_rng();
        Self {
            process,
            news,
            sender,
            feed: NodeFeed::default(),
            seats: BTreeMap::new(),
            timers: DelayQueue::default(),
            rng,
            scripts,
            nodes_seen: Revision(0),
            settings_seen: None,
            heartbeat_interval: ClusterSettings::default().heartbeat_interval(),
        }
    }

    /// Runs until the cluster stops.
    pub(crate) async fn run(mut self) {
        self.work().await;
        for seat in self.seats.values() {
            if let Carrier::Real(runtime) = &seat.carrier {
                runtime.shutdown().await;
            }
        }
        // What ran here is not reached any more.
        for name in self.seats.keys() {
            self.process.nodes.forget(name);
            self.process.images.forget(name);
        }
    }

    async fn work(&mut self) {
        let mut views = self.process.views.clone();
        let mut leads = self.process.leads.clone();
        let mut address = self.process.node_address.subscribe();
        self.look();
        let mut turns = 0;
        loop {
            if turns >= TURNS_MAX {
                self.tick();
                turns = 0;
            }
            turns += 1;
            let clock = self.process.clock;
            let due = self.timers.next();
            let timer = async {
                match due {
                    // Agents that wait for nothing else to happen: a timer of the runtime would make them wait a millisecond.
                    Some(due) if due <= clock.now().mono => tokio::task::yield_now().await,
                    Some(due) => clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.process.shutdown.cancelled() => return,
                news = self.news.recv() => match news {
                    Some(news) => self.take(news),
                    None => return,
                },
                changed = leads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.look();
                }
                changed = address.changed() => {
                    let address = *address.borrow_and_update();
                    if changed.is_err() {
                        return;
                    }
                    self.move_to(address);
                }
                changed = views.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.look();
                }
                () = timer => {
                    self.tick();
                    turns = 0;
                }
            }
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Join(joining) => self.join(*joining, false),
            News::Runtime(node, event) => self.step(&node, Input::Runtime(event)),
            News::Answer(node, id, response) => self.step(&node, Input::Answer(id, response)),
            News::EventGone(node, event) => {
                if let Some(seat) = self.seats.get_mut(&node) {
                    seat.recorder.forget(&event);
                }
            }
        }
    }

    fn join(&mut self, joining: Joining, adopted: bool) {
        self.look();
        let Joining { name, agent, runtime, keeper } = joining;
        if let Carrier::Real(runtime) = &runtime {
            self.process.nodes.add(&name, Arc::clone(runtime));
        }
        let is_real = matches!(runtime, Carrier::Real(_));
        let events = EventWriter::start(Arc::clone(&self.process), self.sender.clone(), &name);
        let seat = Seat { adopted, agent, carrier: runtime, keeper, recorder: EventRecorder::default(), events };
        self.seats.insert(name.clone(), seat);
        self.step(&name, Input::Tick);
        self.step(&name, Input::HeartbeatEvery(self.heartbeat_interval));
        self.step(&name, Input::Listing);
        let view = self.process.view();
        for event in self.feed.add(&view, &name) {
            self.tell(&name, event);
        }
        if is_real {
            self.process.logs.synced();
        }
        self.step(&name, Input::Synced);
    }

    /// Tells the agents what has changed.
    fn look(&mut self) {
        let view = self.process.view();
        self.adopt(&view);
        self.read_settings(&view);
        let (news, anew) = self.feed.poll(&view);
        let relisted: Vec<String> = if anew { self.seats.keys().cloned().collect() } else { Vec::new() };
        for node in &relisted {
            self.step(node, Input::Listing);
        }
        for (node, event) in news {
            self.tell(&node, event);
        }
        for node in &relisted {
            self.step(node, Input::Synced);
        }
    }

    /// Tells the agents how often they have to be heard of, where that has changed.
    fn read_settings(&mut self, view: &View) {
        let changed = view.last_change(&SETTINGS);
        if self.settings_seen.replace(changed) == Some(changed) {
            return;
        }
        self.heartbeat_interval = settings::of(view).heartbeat_interval();
        for node in self.seats.keys().cloned().collect::<Vec<_>>() {
            self.step(&node, Input::HeartbeatEvery(self.heartbeat_interval));
        }
    }

    /// The machine has another address.
    fn move_to(&mut self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        let real = self.seats.iter().filter(|(_, seat)| matches!(seat.carrier, Carrier::Real(_)));
        for node in real.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.step(&node, Input::AddressChanged(address));
        }
    }

    /// Gives every Node that says that it is fake an agent, and takes the agents of those that are gone away.
    ///
    /// Only the member that leads does so: somebody must, and only one.
    fn adopt(&mut self, view: &View) {
        if !*self.process.leads.borrow() {
            self.nodes_seen = Revision(0);
            let adopted = self.seats.iter().filter(|(_, seat)| seat.adopted).map(|(name, _)| name.clone());
            for name in adopted.collect::<Vec<_>>() {
                self.dismiss(&name);
            }
            return;
        }
        if view.last_change(&NODES) <= self.nodes_seen {
            return;
        }
        self.nodes_seen = view.revision();
        let gone = |(name, seat): (&String, &Seat)| {
            let there = view.object(&ObjectKey::new(NODES, "", name)).is_some();
            (seat.adopted && !there).then(|| name.clone())
        };
        for name in self.seats.iter().filter_map(gone).collect::<Vec<_>>() {
            self.dismiss(&name);
        }
        let new: Vec<NodeConfig> = view
            .list(&NODES, None)
            .filter(|node| !self.seats.contains_key(&*node.key().name))
            .filter_map(|node| fake_config(node))
            .collect();
        for config in new {
            let name = config.name.clone();
            let agent = NodeAgent::new(config, None, self.rng.fork());
            let joining =
                Joining { name, agent, runtime: Carrier::Fake(FakeNode::scripted(&self.scripts)), keeper: None };
            self.join(joining, true);
        }
    }

    fn dismiss(&mut self, name: &str) {
        self.seats.remove(name);
        self.feed.remove(name);
        self.timers.remove(&name.to_owned());
        self.process.nodes.forget(name);
    }

    fn tell(&mut self, node: &str, event: WatchEvent) {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = &event else {
            return;
        };
        let resource = object.key().resource.clone();
        let is_real = self.seats.get(node).is_some_and(|seat| matches!(seat.carrier, Carrier::Real(_)));
        if is_real
            && resource == PODS
            && let Some(uid) = &object.metadata().uid
        {
            match &event {
                WatchEvent::Deleted(_) => self.process.logs.pod_deleted(uid),
                _ => self.process.logs.pod_exists(uid),
            }
        }
        self.step(node, Input::Watch { resource, event });
    }

    fn tick(&mut self) {
        let now = self.process.now();
        // Each once: an agent that wants to be woken again at once has its turn after what else there is to tell.
        let mut due = Vec::new();
        while let Some(node) = self.timers.pop(now.mono) {
            due.push(node);
        }
        for node in due {
            for _ in 0..ANSWERS_MAX {
                if !self.tell_due(&node) {
                    break;
                }
            }
            self.step(&node, Input::Tick);
        }
    }

    /// Tells an agent what its fake runtime has answered by now; whether it had.
    fn tell_due(&mut self, node: &str) -> bool {
        let now = self.process.now();
        let due = match self.seats.get_mut(node).map(|seat| &mut seat.carrier) {
            Some(Carrier::Fake(fake)) => fake.due(now),
            _ => return false,
        };
        let any = !due.is_empty();
        for event in due {
            self.step(node, Input::Runtime(event));
        }
        any
    }

    fn step(&mut self, node: &str, input: Input) {
        let Some(seat) = self.seats.get_mut(node) else { return };
        let now = self.process.now();
        for output in seat.agent.step(now, input) {
            match output {
                Output::Request(id, request) => send(&self.process, &self.sender, node, id, request),
                Output::Runtime(command) => match &mut seat.carrier {
                    Carrier::Real(runtime) => runtime.command(command),
                    Carrier::Fake(fake) => fake.command(&command, now),
                },
                Output::Checkpoint(checkpoint) => keep(seat.keeper.as_ref(), checkpoint),
                Output::Event(record) => {
                    let record = event_record(record);
                    if let Some(write) = seat.recorder.record("kubelet", Some(node), &record, now, &mut self.rng) {
                        seat.events.write(write);
                    }
                }
                Output::Heartbeat(heartbeat) => {
                    self.process.metrics.heartbeat(node, &heartbeat);
                    if matches!(seat.carrier, Carrier::Real(_)) {
                        let machine = if self.process.clock.is_virtual() { None } else { usage::machine() };
                        self.process.nodes.usage.record(node, now, &heartbeat, machine);
                    }
                    // A full queue loses a heartbeat, not the node: the next comes in ten seconds.
                    let _ = self.process.brain.try_send(Message::Heartbeat(node.to_owned()));
                }
                Output::RouteChanged { address, pod } => self.process.nodes.route(node, address, pod),
                other => tracing::error!(?other, "an output that this driver does not know"),
            }
        }
        let fake = match &seat.carrier {
            Carrier::Fake(fake) => fake.next_wakeup(),
            Carrier::Real(_) => None,
        };
        match [seat.agent.next_wakeup(), fake].into_iter().flatten().min() {
            Some(instant) => self.timers.set(node.to_owned(), instant.max(Instant::ZERO)),
            None => self.timers.remove(&node.to_owned()),
        }
    }
}

/// The configuration of a Node that is marked as fake; `None` for any other.
fn fake_config(node: &Object) -> Option<NodeConfig> {
    // Most Nodes are not fake, and need not be read for that.
    let mark = FAKE_ANNOTATION.as_bytes();
    if !node.body().windows(mark.len()).any(|window| window == mark) {
        return None;
    }
    let value = node.value(None);
    if value["metadata"]["annotations"][FAKE_ANNOTATION] != "fake" {
        return None;
    }
    // Who runs nothing can pretend to run everything.
    let mut config = NodeConfig::new(&*node.key().name).fake();
    let amount = |name: &str| value["status"]["capacity"][name].as_str().and_then(|text| text.parse::<Quantity>().ok());
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    config.capacity = Capacity {
        cpu_millis: amount("cpu").map_or(FAKE_CAPACITY.cpu_millis, |cpu| unsigned(cpu.millis())),
        memory: amount("memory").map_or(FAKE_CAPACITY.memory, |memory| unsigned(memory.units())),
        pods: amount("pods").map_or(FAKE_CAPACITY.pods, |pods| u32::try_from(pods.units()).unwrap_or(0)),
    };
    let capacity = value["status"]["capacity"].as_object().into_iter().flatten();
    let extended = capacity.filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory" | "pods"));
    config.extended = extended.filter_map(|(name, _)| Some((name.clone(), unsigned(amount(name)?.units())))).collect();
    let range = value["spec"]["podCIDR"].as_str().and_then(|text| text.split_once('/'));
    if let Some((network, prefix)) = range
        && let (Ok(network), Ok(prefix)) = (network.parse(), prefix.parse())
    {
        config.pod_range = (network, prefix);
    }
    Some(config)
}

fn keep(keeper: Option<&Keeper>, checkpoint: Checkpoint) {
    if let Some(keeper) = keeper {
        keeper.keep(checkpoint);
    }
}

/// Takes a node's request through the API server; the answer comes back as news.
fn send(process: &Arc<Process>, news: &mpsc::UnboundedSender<News>, node: &str, id: RequestId, request: Request) {
    let (process, news, node) = (Arc::clone(process), news.clone(), node.to_owned());
    tokio::spawn(async move {
        let response = process.respond(request).await;
        let _ = news.send(News::Answer(node, id, response));
    });
}

fn event_record(record: coracle_node::EventRecord) -> EventRecord {
    EventRecord {
        regarding: record.regarding,
        uid: record.uid,
        field_path: record.field_path,
        event_type: match record.event_type {
            coracle_node::EventType::Normal => EventType::Normal,
            coracle_node::EventType::Warning => EventType::Warning,
        },
        reason: record.reason,
        message: record.message,
    }
}
