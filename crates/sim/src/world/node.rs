//! The nodes: an agent, a runtime, and what of both survives which kind of end.

use std::time::Duration;

use coracle_api::resources::NODES;
use coracle_api::{ObjectKey, Request, Response, Revision, WatchEvent};
use coracle_base::Instant;
use coracle_engine::Input as BrainInput;
use coracle_node::runtime::{RuntimeCommand, RuntimeEvent};
use coracle_node::{Checkpoint, Input, NodeAgent, NodeConfig, Output, RequestId};
use coracle_store::View;

use super::event_writer::EventWriter;
use super::logs::Logs;
use super::request::{Flow, Origin, unavailable};
use super::runtime::Runtime;
use super::{Event, World};
use crate::disk::{LATENCY, latency};

/// How long a node waits before it looks for a member again.
const RECONNECT_WAIT: Duration = Duration::from_secs(1);

/// One node.
#[derive(Debug)]
pub(crate) struct Seat {
    config: NodeConfig,
    /// `None`: its process does not run.
    agent: Option<NodeAgent>,
    /// Which start of the agent this is, and which of its runtime: what belongs to an earlier one does not happen.
    starts: u64,
    power: u64,
    runtime: Runtime,
    pub(crate) logs: Logs,
    events: EventWriter,
    /// Whether it can reach the API server.
    connected: bool,
    /// The member that it is connected to.
    member: usize,
    /// The revision of what it was told last: it goes back behind it at no other member.
    told: Revision,
    /// What its disk keeps.
    checkpoint: Option<Vec<u8>>,
}

impl Seat {
    /// Whether the API server's news reach an agent.
    pub(super) fn hears(&self) -> bool {
        self.connected && self.agent.is_some()
    }

    /// Whether its process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.agent.is_some()
    }

    /// How many containers run on it.
    pub(crate) fn running(&self) -> usize {
        self.runtime.running()
    }
}

impl World {
    /// A node that has never run; its Node object is there.
    pub(crate) fn add_node(&mut self, mut config: NodeConfig) {
        let node = self.view().object(&ObjectKey::new(NODES, "", &config.name)).map(|node| node.value(None));
        let range = node.as_ref().and_then(|node| node["spec"]["podCIDR"].as_str()?.split_once('/'));
        if let Some((network, prefix)) = range
            && let (Ok(network), Ok(prefix)) = (network.parse(), prefix.parse())
        {
            config.pod_range = (network, prefix);
        }
        let mut runtime = self.runtime(&config);
        for (image, script) in &self.scripts {
            runtime.script(image, script.clone());
        }
        let member = self.seats.len() % self.members.len();
        let seat = Seat {
            config,
            agent: None,
            starts: 0,
            power: 0,
            runtime,
            logs: Logs::default(),
            events: EventWriter::default(),
            connected: true,
            member,
            told: Revision(0),
            checkpoint: None,
        };
        let name = seat.config.name.clone();
        self.seats.insert(name.clone(), seat);
        self.start_agent(&name);
    }

    /// Says how containers of an image behave from now on, on every node.
    pub(crate) fn script(&mut self, image: &str, script: coracle_node::fake::Script) {
        for seat in self.seats.values_mut() {
            seat.runtime.script(image, script.clone());
        }
        self.scripts.insert(image.to_owned(), script);
    }

    pub(crate) fn seat(&mut self, node: &str) -> &mut Seat {
        self.seats.get_mut(node).unwrap_or_else(|| panic!("there is no node {node:?}"))
    }

    /// The agent starts, from its checkpoint where there is one.
    pub(crate) fn start_agent(&mut self, node: &str) {
        let rng = self.rng.fork();
        let seat = self.seat(node);
        assert!(seat.agent.is_none(), "{node} runs");
        let checkpoint: Option<Checkpoint> = seat
            .checkpoint
            .as_ref()
            .map(|bytes| serde_json::from_slice(bytes).expect("a checkpoint is read as it was written"));
        seat.starts += 1;
        seat.events = EventWriter::default();
        seat.agent = Some(NodeAgent::new(seat.config.clone(), checkpoint, rng));
        self.step_node(node, Input::Tick);
        self.reconnect(node);
    }

    /// The agent's process ends; containers go on as Docker's would, or end with it as guests do.
    pub(crate) fn stop_agent(&mut self, node: &str) {
        assert!(self.seat(node).agent.take().is_some(), "{node} does not run");
        self.timers.remove(&node.to_owned());
        let member = self.seat(node).member;
        self.members[member].feed.remove(node);
        if self.seat(node).runtime.ends_with_agent() {
            self.lose_containers(node);
        }
    }

    /// The whole node goes: agent, runtime, containers, and what its disk had not written.
    pub(crate) fn kill_node(&mut self, node: &str) {
        self.stop_agent(node);
        self.lose_containers(node);
    }

    fn lose_containers(&mut self, node: &str) {
        let seat = self.seat(node);
        seat.power += 1;
        seat.runtime.lose_containers();
        self.invariants.node_lost(node);
        self.timelines.node_lost(self.now.mono, node);
    }

    /// The node goes on, and nothing it says reaches the API server any more, nor the other way round.
    pub(crate) fn cut_node(&mut self, node: &str) {
        self.seat(node).connected = false;
        let member = self.seat(node).member;
        self.members[member].feed.remove(node);
    }

    /// The node reaches the API server again.
    pub(crate) fn heal_node(&mut self, node: &str) {
        self.seat(node).connected = true;
        self.reconnect(node);
    }

    /// The node connects to its member, or to another that answers; where none does it tries again.
    pub(super) fn reconnect(&mut self, node: &str) {
        if !self.seat(node).hears() {
            return;
        }
        let (first, members) = (self.seat(node).member, self.members.len());
        let now = self.now.mono;
        let told = self.seat(node).told;
        let answers = |m: &usize| {
            let member = &self.members[*m];
            let newer = member.serving_view().is_some_and(|view| view.revision() >= told);
            newer && member.paused.is_none_or(|until| until <= now)
        };
        let Some(member) = (0..members).map(|next| (first + next) % members).find(answers) else {
            if members > 1 {
                self.schedule(RECONNECT_WAIT, Event::Reconnect { node: node.to_owned() });
            }
            return;
        };
        self.seat(node).member = member;
        let Some(view) = self.members[member].serving_view().cloned() else { return };
        // What is added must not hear of the changes up to now a second time.
        self.look(member);
        self.feed_node(node, &view);
    }

    /// A member is gone: its nodes connect to others.
    pub(super) fn nodes_go_elsewhere(&mut self, member: usize) {
        let nodes: Vec<String> =
            self.seats.iter().filter(|(_, seat)| seat.member == member).map(|(name, _)| name.clone()).collect();
        for node in nodes {
            let delay = self.travel();
            self.schedule(delay, Event::Reconnect { node });
        }
    }

    /// Tells the agents that are connected to a member everything.
    pub(super) fn feed_nodes(&mut self, member: usize, view: &View) {
        let connected =
            self.seats.iter().filter(|(_, seat)| seat.hears() && seat.member == member && seat.told <= view.revision());
        let connected: Vec<String> = connected.map(|(name, _)| name.clone()).collect();
        for node in connected {
            self.feed_node(&node, view);
        }
    }

    /// Tells an agent everything, and that this was everything.
    pub(super) fn feed_node(&mut self, node: &str, view: &View) {
        let member = self.seat(node).member;
        self.seat(node).told = view.revision();
        self.step_node(node, Input::Listing);
        for event in self.members[member].feed.add(view, node) {
            self.tell(node, event);
        }
        self.step_node(node, Input::Synced);
    }

    /// Tells the agents of a member what has changed.
    pub(super) fn look(&mut self, member: usize) {
        self.members[member].looking = false;
        let Some(view) = self.members[member].serving_view().cloned() else { return };
        let (news, anew) = self.members[member].feed.poll(&view);
        let mut relisted = Vec::new();
        for (name, seat) in self.seats.iter_mut().filter(|(_, seat)| seat.hears() && seat.member == member) {
            seat.told = view.revision();
            if anew {
                relisted.push(name.clone());
            }
        }
        for node in &relisted {
            self.step_node(node, Input::Listing);
        }
        for (node, event) in news {
            self.tell(&node, event);
        }
        for node in &relisted {
            self.step_node(node, Input::Synced);
        }
    }

    fn tell(&mut self, node: &str, event: WatchEvent) {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = &event else {
            return;
        };
        let resource = object.key().resource.clone();
        self.step_node(node, Input::Watch { resource, event });
    }

    pub(super) fn tick_node(&mut self, node: &str) {
        self.run_guests(node);
        let now = self.now.mono;
        if self.seat(node).agent.as_ref().and_then(NodeAgent::next_wakeup).is_some_and(|due| due <= now) {
            self.step_node(node, Input::Tick);
        } else {
            self.set_timer(node);
        }
    }

    /// Gives the guests that are due their turns.
    fn run_guests(&mut self, node: &str) {
        let now = self.now;
        let Self { seats, trace, .. } = self;
        let Some(seat) = seats.get_mut(node) else { return };
        let (events, output) = seat.runtime.run(now);
        for (container, bytes) in output {
            seat.logs.append(&container, &bytes);
            trace.bytes(&bytes);
        }
        let power = seat.power;
        for event in events {
            self.schedule(Duration::ZERO, Event::Runtime { node: node.to_owned(), power, event, later: false });
        }
    }

    fn set_timer(&mut self, node: &str) {
        let seat = self.seat(node);
        let due = [seat.agent.as_ref().and_then(NodeAgent::next_wakeup), seat.runtime.next_wakeup()];
        match due.into_iter().flatten().min() {
            Some(due) => self.timers.set(node.to_owned(), due.max(Instant::ZERO)),
            None => self.timers.remove(&node.to_owned()),
        }
    }

    /// Sends the node's next Event, if none is under way.
    fn write_event(&mut self, node: &str) {
        if let Some(request) = self.seat(node).events.next(node) {
            self.send(node, None, request);
        }
    }

    pub(super) fn event_written(&mut self, node: &str, agent: u64, success: bool) {
        if self.seat(node).starts == agent {
            self.seat(node).events.written(success);
            self.write_event(node);
        }
    }

    pub(super) fn answer_node(&mut self, node: &str, agent: u64, id: RequestId, response: Response) {
        if self.seat(node).starts == agent {
            // An answer that cannot reach the node is a failure there.
            let response = if self.seat(node).connected { response } else { unavailable("the network is down").into() };
            self.step_node(node, Input::Answer(id, response));
        }
    }

    pub(super) fn runtime_event(&mut self, node: &str, power: u64, event: RuntimeEvent) {
        let seat = self.seat(node);
        if seat.power != power || !seat.runtime.is_current(&event) {
            return;
        }
        let event = seat.logs.explain(event);
        let started = matches!(event, RuntimeEvent::ContainerStarted { result: Ok(()), .. });
        self.totals.add(crate::Class::Containers, u64::from(started));
        self.timelines.runtime(self.now.mono, node, &event);
        if let Err(broken) = self.invariants.runtime(node, &event) {
            panic!("{broken}");
        }
        self.step_node(node, Input::Runtime(event));
    }

    pub(super) fn keep_checkpoint(&mut self, node: &str, power: u64, bytes: Vec<u8>) {
        let seat = self.seat(node);
        if seat.power == power {
            seat.checkpoint = Some(bytes);
        }
    }

    fn step_node(&mut self, node: &str, input: Input) {
        let now = self.now;
        let seat = self.seat(node);
        let Some(agent) = &mut seat.agent else { return };
        let outputs = agent.step(now, input);
        for output in outputs {
            self.carry_out_for(node, output);
        }
        self.set_timer(node);
    }

    fn carry_out_for(&mut self, node: &str, output: Output) {
        match output {
            Output::Request(id, request) => self.send(node, Some(id), request),
            Output::Runtime(command) => self.command(node, &command),
            Output::Checkpoint(checkpoint) => {
                let bytes = serde_json::to_vec(&checkpoint).expect("a checkpoint is JSON");
                let (took, power) = (latency(LATENCY, &mut self.rng), self.seat(node).power);
                self.schedule(took, Event::Checkpoint { node: node.to_owned(), power, bytes });
            }
            Output::Event(record) => {
                let now = self.now;
                let Self { seats, rng, .. } = self;
                let Some(seat) = seats.get_mut(node) else { return };
                seat.events.record(node, record, now, rng);
                self.write_event(node);
            }
            Output::Heartbeat(_) => {
                if self.seat(node).connected {
                    let (delay, member) = (self.travel(), self.seat(node).member);
                    let boot = self.members[member].boot;
                    let input = BrainInput::Heartbeat(node.to_owned());
                    self.schedule(delay, Event::Brain { member, boot, input });
                }
            }
            // Nobody dials here.
            Output::RouteChanged { .. } => {}
            other => panic!("an output that this driver does not know: {other:?}"),
        }
    }

    fn command(&mut self, node: &str, command: &RuntimeCommand) {
        let now = self.now;
        let seat = self.seat(node);
        let power = seat.power;
        for (after, event) in seat.runtime.command(command, now) {
            let later = after > Duration::ZERO;
            self.schedule(after, Event::Runtime { node: node.to_owned(), power, event, later });
        }
    }

    fn send(&mut self, node: &str, id: Option<RequestId>, request: Request) {
        let delay = self.travel();
        let seat = self.seat(node);
        let (member, origin) = (seat.member, Origin::Node { node: node.to_owned(), agent: seat.starts, id });
        if seat.connected {
            let flow = Flow::new(origin, None, request).via(member);
            self.schedule(delay, Event::Arrive(Box::new(flow)));
        } else {
            self.answer(origin, unavailable("the network is down").into());
        }
    }
}
