//! A world of one agent: a scripted runtime, an API server that keeps what it is told, and a clock that the test moves.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::resources::{CONFIG_MAPS, NODES, PODS, SECRETS};
use coracle_api::{
    Attributes, Body, GroupResource, Method, Object, ObjectKey, Request, Response, Revision, WatchEvent,
};
use coracle_base::{Instant, Now, Rng, Timestamp};
use expect_test::Expect;
use serde_json::{Value, json};

use crate::fake::{FakeRuntime, Script};
use crate::runtime::{
    ContainerId, ContainerSpec, ProbeResult, RuntimeCommand, RuntimeEvent, RuntimeKind, Sandbox, StorageUse,
    VolumeSource,
};
use crate::{Checkpoint, EventType, Input, NodeAgent, NodeConfig, Output, RequestId, RuntimeInfo};

/// More steps than this without time passing are a loop.
const STEPS_MAX: usize = 10_000;

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A pod of one container `c` of the image `img`, bound to the node.
pub(super) fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1,
            "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [
            {"name": "c", "image": "img", "imagePullPolicy": "IfNotPresent"}]},
    })
}

#[derive(Debug)]
pub(super) struct Harness {
    agent: NodeAgent,
    config: NodeConfig,
    runtime: FakeRuntime,
    now: Now,
    start: Timestamp,
    pending: BTreeMap<(Instant, u64), RuntimeEvent>,
    sequence: u64,
    requests: VecDeque<(RequestId, Request)>,
    objects: BTreeMap<ObjectKey, Value>,
    last_phases: BTreeMap<String, String>,
    revision: u64,
    checkpoint: Option<Checkpoint>,
    timeline: Vec<String>,
    events: Vec<String>,
    specs: BTreeMap<String, ContainerSpec>,
    volumes: BTreeMap<String, VolumeSource>,
    heartbeats: usize,
    node_writes: usize,
    pod_writes: usize,
    probe_answer: Option<ProbeResult>,
    volume_refusal: Option<String>,
    /// Sandboxes that were asked for, in order; and whether the runtime takes its time with them.
    sandboxes: Vec<Sandbox>,
    sandboxes_wait: bool,
    connected: bool,
    /// How many tokens were given, and why no more are.
    tokens: usize,
    token_refusal: Option<&'static str>,
}

impl Harness {
    pub(super) fn new() -> Self {
        let mut harness = Self::unsynced();
        harness.synced();
        harness
    }

    pub(super) fn unsynced() -> Self {
        Self::with(NodeConfig::new("node-1"))
    }

    /// A node with this many addresses.
    pub(super) fn small(addresses: u32) -> Self {
        assert_eq!(addresses, 3, "a /29 has three");
        let mut config = NodeConfig::new("node-1");
        config.pod_range.1 = 29;
        let mut harness = Self::with(config);
        harness.synced();
        harness
    }

    /// A node that runs containers beside WebAssembly.
    pub(super) fn with_containers() -> Self {
        let mut config = NodeConfig::new("node-1");
        config.runtimes.insert(RuntimeKind::Container, RuntimeInfo::docker());
        let mut harness = Self::with(config);
        harness.synced();
        harness
    }

    /// A node whose pods get ServiceAccount tokens.
    pub(super) fn with_tokens() -> Self {
        let mut config = NodeConfig::new("node-1");
        config.service_account_tokens = true;
        let mut harness = Self::with(config);
        harness.synced();
        harness
    }

    fn with(config: NodeConfig) -> Self {
        let start = Timestamp::parse("2026-11-22T10:00:00Z").unwrap();
        let mut harness = Self {
            agent: NodeAgent::new(config.clone(), None, Rng::seeded(1)),
            config,
            runtime: FakeRuntime::new(),
            now: Now { mono: Instant::ZERO, wall: start },
            start,
            pending: BTreeMap::new(),
            sequence: 0,
            requests: VecDeque::new(),
            objects: BTreeMap::new(),
            last_phases: BTreeMap::new(),
            revision: 0,
            checkpoint: None,
            timeline: Vec::new(),
            events: Vec::new(),
            specs: BTreeMap::new(),
            volumes: BTreeMap::new(),
            heartbeats: 0,
            node_writes: 0,
            pod_writes: 0,
            probe_answer: None,
            volume_refusal: None,
            sandboxes: Vec::new(),
            sandboxes_wait: false,
            connected: true,
            tokens: 0,
            token_refusal: None,
        };
        harness.step(Input::Tick);
        harness
    }

    // What the world does.

    pub(super) fn script(&mut self, image: &str, script: Script) {
        self.runtime.script(image, script);
    }

    /// Every pod has so much in its volumes from now on.
    pub(super) fn stores(&mut self, volume: &str, bytes: u64) {
        let volumes = BTreeMap::from([(volume.to_owned(), bytes)]);
        self.runtime.store(StorageUse { volumes, containers: BTreeMap::new() });
    }

    /// The program of a pod's container says whether it is ready.
    pub(super) fn says_ready(&mut self, pod: &str, instance: u32, ready: bool) {
        let id = ContainerId { pod: format!("uid-{pod}").as_str().into(), container: "c".into(), instance };
        self.step(Input::Runtime(RuntimeEvent::ReadinessSaid { id, ready }));
    }

    pub(super) fn probe_answer(&mut self, result: ProbeResult) {
        self.probe_answer = Some(result);
    }

    /// Writing a volume fails so from now on; `None`: it succeeds.
    pub(super) fn volume_refusal(&mut self, why: Option<&str>) {
        self.volume_refusal = why.map(str::to_owned);
    }

    /// Asking for a token fails so from now on; `None`: it succeeds.
    /// The runtime does not answer whoever asks for a sandbox.
    pub(super) fn sandboxes_wait(&mut self) {
        self.sandboxes_wait = true;
    }

    /// The last sandbox that was asked for.
    pub(super) fn sandbox(&self) -> &Sandbox {
        self.sandboxes.last().expect("a sandbox was asked for")
    }

    pub(super) fn token_refusal(&mut self, why: Option<&'static str>) {
        self.token_refusal = why;
    }

    pub(super) fn connected(&mut self, connected: bool) {
        self.connected = connected;
    }

    pub(super) fn synced(&mut self) {
        self.step(Input::Synced);
    }

    pub(super) fn apply(&mut self, mut pod: Value) {
        let key = ObjectKey::new(PODS, "default", pod["metadata"]["name"].as_str().unwrap());
        if let Some(known) = self.objects.get(&key) {
            pod["status"] = known["status"].clone();
        }
        self.store(key, pod);
    }

    pub(super) fn config_map(&mut self, name: &str, data: Value) {
        let value = json!({"metadata": {"name": name, "namespace": "default"}, "data": data});
        self.store(ObjectKey::new(CONFIG_MAPS, "default", name), value);
    }

    pub(super) fn secret(&mut self, name: &str, kind: &str, data: Value) {
        let value = json!({"metadata": {"name": name, "namespace": "default"}, "type": kind, "data": data});
        self.store(ObjectKey::new(SECRETS, "default", name), value);
    }

    pub(super) fn cluster_object(&mut self, resource: GroupResource, name: &str, mut value: Value) {
        value["metadata"] = json!({"name": name});
        self.store(ObjectKey::new(resource, "", name), value);
    }

    /// A client deletes a pod.
    pub(super) fn delete(&mut self, name: &str, grace: i64) {
        let key = ObjectKey::new(PODS, "default", name);
        let mut pod = self.objects[&key].clone();
        pod["metadata"]["deletionTimestamp"] = json!((self.now.wall + secs(grace as u64)).rfc3339());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.store(key, pod);
    }

    /// A pod goes away while nobody tells the agent.
    pub(super) fn forget(&mut self, name: &str) {
        self.objects.remove(&ObjectKey::new(PODS, "default", name));
    }

    pub(super) fn node_condition(&mut self, kind: &str, status: &str) {
        let key = ObjectKey::new(NODES, "", "node-1");
        let mut node = self.objects[&key].clone();
        for condition in node["status"]["conditions"].as_array_mut().unwrap() {
            if condition["type"] == kind {
                condition["status"] = json!(status);
            }
        }
        self.store(key, node);
    }

    pub(super) fn delete_node(&mut self) {
        self.remove(&ObjectKey::new(NODES, "", "node-1"));
    }

    /// The process dies and starts again, with what it kept and another monotonic clock.
    pub(super) fn restart(&mut self) {
        let checkpoint = self.checkpoint.clone();
        self.begin_anew(checkpoint);
        self.tell_everything();
    }

    pub(super) fn restart_without_checkpoint(&mut self) {
        self.begin_anew(None);
        self.tell_everything();
    }

    pub(super) fn restart_without_api(&mut self) {
        let checkpoint = self.checkpoint.clone();
        self.connected = false;
        self.begin_anew(checkpoint);
    }

    /// The agent dies before it has kept or told anything, and its containers go on.
    pub(super) fn restart_agent_that_kept_nothing(&mut self) {
        for (_, pod) in self.objects.iter_mut().filter(|(key, _)| key.resource == PODS) {
            pod["status"] = json!({});
        }
        self.agent = NodeAgent::new(self.config.clone(), None, Rng::seeded(self.sequence));
        self.requests.clear();
        self.note("agent restarts");
        self.step(Input::Tick);
        self.tell_everything();
    }

    fn begin_anew(&mut self, checkpoint: Option<Checkpoint>) {
        // What is kept is kept as bytes.
        let checkpoint =
            checkpoint.map(|checkpoint| serde_json::from_slice(&serde_json::to_vec(&checkpoint).unwrap()).unwrap());
        self.sequence += 1;
        self.agent = NodeAgent::new(self.config.clone(), checkpoint, Rng::seeded(self.sequence));
        self.runtime.lose_containers();
        self.pending.clear();
        self.requests.clear();
        self.now.mono = Instant::ZERO;
        self.note("agent restarts");
        self.step(Input::Tick);
    }

    pub(super) fn tell_everything(&mut self) {
        self.connected = true;
        self.step(Input::Listing);
        for (key, value) in self.objects.clone() {
            let event = WatchEvent::Added(object(&key, value));
            self.step(Input::Watch { resource: key.resource, event });
        }
        self.step(Input::Synced);
    }

    // Time.

    /// Lets everything happen that happens now.
    pub(super) fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if let Some((id, request)) = self.requests.pop_front() {
                let response = self.serve(&request);
                self.step(Input::Answer(id, response));
            } else if let Some(event) = self.due_event() {
                if self.runtime.is_current(&event) {
                    if let RuntimeEvent::ContainerExited { id, exit } = &event {
                        self.note(&format!("{}/{} exits with {}", id.container, id.instance, exit.code));
                    }
                    self.step(Input::Runtime(event));
                }
            } else if self.agent.next_wakeup().is_some_and(|wakeup| wakeup <= self.now.mono) {
                self.step(Input::Tick);
            } else {
                return;
            }
        }
        panic!("the agent does not settle");
    }

    pub(super) fn advance(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            self.settle();
            let event = self.pending.keys().next().map(|(instant, _)| *instant);
            let next = [event, self.agent.next_wakeup()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end.mono) else { break };
            self.now = self.now.after(next.saturating_since(self.now.mono));
        }
        self.now = end;
        self.settle();
    }

    fn due_event(&mut self) -> Option<RuntimeEvent> {
        let entry = self.pending.first_entry()?;
        (entry.key().0 <= self.now.mono).then(|| entry.remove())
    }

    fn step(&mut self, input: Input) {
        for output in self.agent.step(self.now, input) {
            match output {
                Output::Request(id, request) => self.requests.push_back((id, request)),
                Output::Runtime(command) => self.command(&command),
                Output::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint),
                Output::Event(event) => {
                    let kind = if event.event_type == EventType::Normal { "Normal" } else { "Warning" };
                    if event.regarding.resource == PODS {
                        let age = self.age();
                        self.events.push(format!("{age} {kind} {} {}", event.reason, event.message));
                    }
                }
                Output::Heartbeat(_) => self.heartbeats += 1,
                Output::RouteChanged { .. } => {}
            }
        }
    }

    fn command(&mut self, command: &RuntimeCommand) {
        match command {
            RuntimeCommand::StartContainer(id) => self.note(&format!("{}/{} starts", id.container, id.instance)),
            RuntimeCommand::StopContainer(id) => self.note(&format!("{}/{} is stopped", id.container, id.instance)),
            RuntimeCommand::KillContainer(id) => self.note(&format!("{}/{} is killed", id.container, id.instance)),
            RuntimeCommand::PullImage { image, .. } => self.note(&format!("pull {image}")),
            RuntimeCommand::CreateContainer(spec) => {
                self.specs.insert(spec.id.container.clone(), (**spec).clone());
            }
            RuntimeCommand::CreateSandbox(sandbox) => {
                self.sandboxes.push(sandbox.clone());
                if self.sandboxes_wait {
                    return;
                }
            }
            RuntimeCommand::WriteVolume { volume, source, .. } => {
                self.volumes.insert(volume.clone(), source.clone());
            }
            _ => {}
        }
        for (delay, mut event) in self.runtime.command(command, self.now) {
            if let (RuntimeEvent::Probed { result, .. }, Some(answer)) = (&mut event, &self.probe_answer) {
                result.clone_from(answer);
            }
            if let (RuntimeEvent::VolumeWritten { result, .. }, Some(why)) = (&mut event, &self.volume_refusal) {
                *result = Err(why.clone());
            }
            self.sequence += 1;
            self.pending.insert((self.now.mono + delay, self.sequence), event);
        }
    }

    fn age(&self) -> String {
        format!("+{}s", self.now.wall.saturating_since(self.start).as_secs())
    }

    fn note(&mut self, what: &str) {
        self.timeline.push(format!("{} {what}", self.age()));
    }

    // The API server.

    fn store(&mut self, key: ObjectKey, mut value: Value) {
        self.revision += 1;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.insert(key.clone(), value.clone());
        let event = WatchEvent::Modified(object(&key, value));
        self.step(Input::Watch { resource: key.resource, event });
    }

    fn remove(&mut self, key: &ObjectKey) {
        let Some(value) = self.objects.remove(key) else { return };
        self.revision += 1;
        let mut value = value;
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let event = WatchEvent::Deleted(object(key, value));
        self.step(Input::Watch { resource: key.resource.clone(), event });
    }

    fn serve(&mut self, request: &Request) -> Response {
        if !self.connected {
            return Response::text(503, Bytes::from_static(b"nobody is there"));
        }
        let Body::Value(body) = &request.body else { panic!("{request:?} has no body") };
        if request.path.ends_with("/token") {
            return self.give_token(&request.path, body);
        }
        let parts: Vec<&str> = request.path.split('/').collect();
        let key = match parts.as_slice() {
            ["", "api", "v1", "nodes", ..] => ObjectKey::new(NODES, "", "node-1"),
            ["", "api", "v1", "namespaces", namespace, "pods", name, ..] => ObjectKey::new(PODS, namespace, name),
            _ => panic!("unexpected path {}", request.path),
        };
        if key.resource == NODES {
            self.node_writes += 1;
        } else {
            self.pod_writes += 1;
        }
        let known = self.objects.get(&key).cloned();
        match (request.method, known) {
            (Method::Post, None) => self.store(key.clone(), body.clone()),
            (Method::Post, Some(_)) => return Response::text(409, Bytes::new()),
            (_, None) => return Response::text(404, Bytes::new()),
            (Method::Delete, Some(known)) => {
                assert_eq!(body["preconditions"]["uid"], known["metadata"]["uid"]);
                self.remove(&key);
                return Response::json(200, Bytes::from_static(b"{}"));
            }
            (_, Some(mut known)) => {
                let patch = body["status"].as_object().cloned().unwrap_or_default();
                for (field, value) in patch {
                    known["status"][field] = value;
                }
                if let Some(phase) = known["status"]["phase"].as_str() {
                    self.last_phases.insert(key.name.to_string(), phase.to_owned());
                }
                self.store(key.clone(), known);
            }
        }
        Response::json(200, serde_json::to_vec(&self.objects[&key]).unwrap())
    }

    fn give_token(&mut self, path: &str, body: &Value) -> Response {
        assert_eq!(path, "/api/v1/namespaces/default/serviceaccounts/default/token");
        if let Some(why) = self.token_refusal {
            return coracle_api::Status::bad_request(why).into();
        }
        self.tokens += 1;
        let (pod, seconds) = (&body["spec"]["boundObjectRef"]["name"], &body["spec"]["expirationSeconds"]);
        let token = format!("token {} of {} for {seconds} s", self.tokens, pod.as_str().unwrap());
        Response::json(201, json!({"status": {"token": token}}).to_string())
    }

    // What tests look at.

    pub(super) fn has(&self, name: &str) -> bool {
        self.objects.contains_key(&ObjectKey::new(PODS, "default", name))
    }

    pub(super) fn status(&self, name: &str) -> Value {
        self.objects[&ObjectKey::new(PODS, "default", name)]["status"].clone()
    }

    pub(super) fn last_phase(&self, name: &str) -> &str {
        &self.last_phases[name]
    }

    pub(super) fn condition(&self, name: &str, kind: &str) -> String {
        condition(&self.status(name), kind)
    }

    pub(super) fn node_ready(&self) -> String {
        let node = &self.objects[&ObjectKey::new(NODES, "", "node-1")];
        condition(&node["status"], "Ready")
    }

    pub(super) fn node_writes(&self) -> usize {
        self.node_writes
    }

    pub(super) fn pod_writes(&self) -> usize {
        self.pod_writes
    }

    pub(super) fn heartbeats(&self) -> usize {
        self.heartbeats
    }

    pub(super) fn running(&self) -> usize {
        self.runtime.running()
    }

    pub(super) fn starts(&self) -> usize {
        self.timeline.iter().filter(|line| line.ends_with("starts")).count()
    }

    pub(super) fn env(&self, container: &str) -> Vec<String> {
        self.specs[container].env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    pub(super) fn args(&self, container: &str) -> Vec<String> {
        self.specs[container].args.clone()
    }

    pub(super) fn volume(&self, name: &str) -> Vec<String> {
        let VolumeSource::Files(files) = &self.volumes[name] else { panic!("{name} has no files") };
        files.iter().map(|file| format!("{}={}", file.path, String::from_utf8_lossy(&file.contents))).collect()
    }

    #[track_caller]
    pub(super) fn check_timeline(&self, expected: Expect) {
        expected.assert_eq(&lines(&self.timeline, |line| !line.contains(" pull ")));
    }

    #[track_caller]
    pub(super) fn check_starts(&self, expected: Expect) {
        expected.assert_eq(&lines(&self.timeline, |line| line.ends_with("starts") || line.ends_with("restarts")));
    }

    #[track_caller]
    pub(super) fn check_pulls(&self, expected: Expect) {
        expected.assert_eq(&lines(&self.timeline, |line| line.contains(" pull ")));
    }

    #[track_caller]
    pub(super) fn check_events(&self, expected: Expect) {
        expected.assert_eq(&lines(&self.events, |_| true));
    }

    /// The Events of one reason.
    #[track_caller]
    pub(super) fn check_event(&self, reason: &str, expected: Expect) {
        expected.assert_eq(&lines(&self.events, |line| line.split(' ').nth(2) == Some(reason)));
    }

    #[track_caller]
    pub(super) fn check_state(&self, pod: &str, container: &str, expected: Expect) {
        let status = self.status(pod);
        let found = status["containerStatuses"].as_array().into_iter().flatten().find(|c| c["name"] == container);
        let found = found.expect("the container has a status");
        let text =
            format!("state={} lastState={} restarts={}\n", found["state"], found["lastState"], found["restartCount"]);
        expected.assert_eq(&text);
    }

    #[track_caller]
    pub(super) fn check_status(&self, pod: &str, expected: Expect) {
        expected.assert_eq(&(serde_json::to_string_pretty(&self.status(pod)).unwrap() + "\n"));
    }
}

fn condition(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or("absent").to_owned()
}

fn lines(lines: &[String], wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    for line in lines.iter().filter(|line| wanted(line)) {
        writeln!(text, "{line}").unwrap();
    }
    text
}

fn object(key: &ObjectKey, value: Value) -> Arc<Object> {
    let revision = value["metadata"]["resourceVersion"].as_str().and_then(Revision::parse).unwrap_or_default();
    Arc::new(Object::new(key.clone(), revision, value, Attributes::new()))
}
