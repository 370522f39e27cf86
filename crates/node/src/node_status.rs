//! The Node object: registered once, patched when something changes.
//!
//! Signs of life are no writes: they are [`crate::Output::Heartbeat`]. What is written is a transition.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_api::resources::NODES;
use coracle_api::{Method, Object, ObjectKey, Quantity, Request, Response, Revision, Uid, UserInfo};
use coracle_base::{Backoff, Instant, Timestamp};
use serde_json::{Value, json};

use crate::context::{Context, Purpose};
use crate::runtime::RuntimeKind;
use crate::{EventRecord, EventType, NodeConfig, Output, reasons};

/// The waits between tries to reach the API server.
const RETRY_INITIAL: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Type, reason and message of the conditions that say that nothing is short.
const PRESSURES: [(&str, &str, &str, &str); 3] = [
    (
        "MemoryPressure",
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
        "NodeHasSufficientMemory",
    ),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available", "NodeHasSufficientPID"),
];

/// The condition of a node one of whose runtimes is another program that may be missing, named as the node problem detector names it.
const CONTAINER_RUNTIME_UNHEALTHY: &str = "ContainerRuntimeUnhealthy";

/// How far the registration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Registration {
    /// The Node is to be created.
    #[default]
    Missing,
    /// It was there already: its labels and annotations are to be brought up to date.
    Found,
    /// It is there.
    Done,
}

/// The Node object's side of the agent.
#[derive(Debug)]
pub(crate) struct NodeReport {
    registration: Registration,
    /// Whether the API server has Ready as this; `None`: unknown, or somebody else changed a condition.
    acknowledged: Option<bool>,
    in_flight: Option<Sent>,
    backoff: Backoff,
    retry: Option<Instant>,
    /// The status and last transition of the conditions in the API, by type.
    observed: BTreeMap<String, (String, Timestamp)>,
    /// The revision of the last answer: what is watched from before it is old news.
    revision: Revision,
    /// How the runtimes are that are not always there.
    runtimes: BTreeMap<RuntimeKind, Result<String, String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Registration,
    Status { ready: bool },
}

impl Default for NodeReport {
    fn default() -> Self {
        Self {
            registration: Registration::default(),
            acknowledged: None,
            in_flight: None,
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            retry: None,
            observed: BTreeMap::new(),
            revision: Revision::default(),
            runtimes: BTreeMap::new(),
        }
    }
}

impl NodeReport {
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        self.retry
    }

    /// Says that the node starts.
    pub(crate) fn begin(context: &mut Context<'_>) {
        event(context, reasons::STARTING, "Starting kubelet.".into());
    }

    /// A runtime that is not always there can be used, or not.
    pub(crate) fn runtime_health(
        &mut self,
        runtime: RuntimeKind,
        result: Result<String, String>,
        context: &mut Context<'_>,
    ) {
        let before = self.runtimes.insert(runtime, result.clone());
        if before.as_ref() == Some(&result) {
            return;
        }
        self.acknowledged = None;
        match result {
            Err(why) => {
                record(context, EventType::Warning, reasons::CONTAINER_RUNTIME_UNHEALTHY, why);
            }
            Ok(version) if before.is_some() => {
                event(context, reasons::CONTAINER_RUNTIME_IS_HEALTHY, format!("{version} can be used again"));
            }
            Ok(_) => {}
        }
    }

    /// What was reported is not so any more.
    pub(crate) fn report_again(&mut self) {
        self.acknowledged = None;
    }

    /// Sends what is to be sent, one request at a time.
    pub(crate) fn advance(&mut self, ready: bool, context: &mut Context<'_>) {
        if self.in_flight.is_some() || self.retry.is_some_and(|retry| retry > context.now.mono) {
            return;
        }
        self.retry = None;
        match self.registration {
            Registration::Missing => self.register(context),
            Registration::Found => self.update_labels(context),
            Registration::Done if self.acknowledged != Some(ready) => self.send_status(ready, context),
            Registration::Done => {}
        }
    }

    fn register(&mut self, context: &mut Context<'_>) {
        let config = &context.shared.config;
        let (network, prefix) = config.pod_range;
        let range = format!("{network}/{prefix}");
        let mut node = json!({
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": metadata(config),
            "spec": {"podCIDR": range, "podCIDRs": [range]},
            "status": status(config, false, self, context.now.wall),
        });
        if !config.taints.is_empty() {
            node["spec"]["taints"] = json!(config.taints);
        }
        let request = Request::new(Method::Post, "/api/v1/nodes", UserInfo::node(&config.name)).json(node);
        context.request(Purpose::RegisterNode, request);
        self.in_flight = Some(Sent::Registration);
    }

    fn update_labels(&mut self, context: &mut Context<'_>) {
        let config = &context.shared.config;
        let request =
            Request::new(Method::Patch, format!("/api/v1/nodes/{}", config.name), UserInfo::node(&config.name))
                .content_type("application/merge-patch+json")
                .json(json!({"metadata": metadata(config)}));
        context.request(Purpose::RegisterNode, request);
        self.in_flight = Some(Sent::Registration);
    }

    fn send_status(&mut self, ready: bool, context: &mut Context<'_>) {
        let config = &context.shared.config;
        let status = status(config, ready, self, context.now.wall);
        let path = format!("/api/v1/nodes/{}/status", config.name);
        let request = Request::new(Method::Patch, path, UserInfo::node(&config.name))
            .content_type("application/strategic-merge-patch+json")
            .json(json!({"status": status}));
        context.request(Purpose::NodeStatus, request);
        self.in_flight = Some(Sent::Status { ready });
        self.say_transitions(ready, context);
    }

    fn say_transitions(&self, ready: bool, context: &mut Context<'_>) {
        let name = context.shared.config.name.clone();
        let mut say = |reason: &'static str| event(context, reason, format!("Node {name} status is now: {reason}"));
        let was = |kind: &str| self.observed.get(kind).map(|(status, _)| status.as_str());
        for (kind, .., reason) in PRESSURES.iter().filter(|(kind, ..)| was(kind) != Some("False")) {
            tracing::debug!(kind, "nothing is short");
            say(reason);
        }
        match (was("Ready") == Some("True"), ready) {
            (false, true) => say("NodeReady"),
            (true, false) => say("NodeNotReady"),
            _ => {}
        }
    }

    /// The Node changed in the API.
    pub(crate) fn watch(&mut self, node: &Object, deleted: bool, context: &mut Context<'_>) {
        if *node.key().name != *context.shared.config.name || node.revision() < self.revision {
            return;
        }
        self.revision = node.revision();
        if deleted {
            self.registration = Registration::Missing;
            self.acknowledged = None;
            self.observed.clear();
        } else {
            context.shared.node_labels.clone_from(&node.metadata().labels);
            self.observe(&node.value(None));
        }
    }

    fn observe(&mut self, node: &Value) {
        let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.observed = conditions
            .iter()
            .filter_map(|condition| {
                let since = Timestamp::parse(condition["lastTransitionTime"].as_str()?).ok()?;
                Some((condition["type"].as_str()?.to_owned(), (condition["status"].as_str()?.to_owned(), since)))
            })
            .collect();
        // Who did not hear from the node for a while wrote `Unknown` over what it said.
        let is = |kind: &str, status: &str| self.observed.get(kind).is_some_and(|(known, _)| known == status);
        let ready = self.acknowledged == Some(true);
        let same = is("Ready", if ready { "True" } else { "False" });
        let unhealthy = |unhealthy| is(CONTAINER_RUNTIME_UNHEALTHY, if unhealthy { "True" } else { "False" });
        let runtimes = self.runtimes.is_empty() || unhealthy(self.runtimes.values().any(Result::is_err));
        if !same || !runtimes || PRESSURES.iter().any(|(kind, ..)| !is(kind, "False")) {
            self.acknowledged = None;
        }
    }

    /// The API server answered.
    pub(crate) fn answered(&mut self, purpose: &Purpose, response: &Response, context: &Context<'_>) {
        let Some(sent) = self.in_flight.take() else { return };
        let node = response.value();
        let revision = node["metadata"]["resourceVersion"].as_str().and_then(Revision::parse).unwrap_or_default();
        // The watch may have told of a later write already, somebody else's: then that is what counts.
        let newest = revision >= self.revision;
        self.revision = self.revision.max(revision);
        match (sent, response.status) {
            (Sent::Registration, 409) if *purpose == Purpose::RegisterNode => self.registration = Registration::Found,
            (_, 404) => {
                self.registration = Registration::Missing;
                self.acknowledged = None;
            }
            (Sent::Registration, 200..300) => {
                self.registration = Registration::Done;
                if newest {
                    self.observe(&node);
                }
            }
            (Sent::Status { ready }, 200..300) => {
                if newest {
                    self.acknowledged = Some(ready);
                    self.observe(&node);
                }
            }
            (_, status) => {
                tracing::warn!(node = context.shared.config.name, status, "the API server refused the node's report");
                self.retry = Some(context.now.mono + self.backoff.next_wait());
                return;
            }
        }
        self.backoff.reset();
    }
}

/// Tells of something that is wrong with the node.
pub(crate) fn warn(context: &mut Context<'_>, reason: &'static str, message: String) {
    record(context, EventType::Warning, reason, message);
}

fn event(context: &mut Context<'_>, reason: &'static str, message: String) {
    record(context, EventType::Normal, reason, message);
}

fn record(context: &mut Context<'_>, event_type: EventType, reason: &'static str, message: String) {
    let name = context.shared.config.name.as_str();
    context.out.push(Output::Event(EventRecord {
        regarding: ObjectKey::new(NODES, "", name),
        uid: Some(Uid::from(name)),
        field_path: None,
        event_type,
        reason,
        message,
    }));
}

/// Whether the runtimes that are not always there can be used, and what is said of it; `None` where there are none.
fn runtime_health(runtimes: &BTreeMap<RuntimeKind, Result<String, String>>) -> Option<(bool, String)> {
    let first = runtimes.values().next()?;
    let problem = runtimes.values().find_map(|health| health.as_ref().err());
    Some(match (problem, first) {
        (Some(why), _) => (false, why.clone()),
        (None, health) => (true, format!("{} can be used", health.as_deref().unwrap_or_default())),
    })
}

/// The labels that a node registers with.
pub(crate) fn labels(config: &NodeConfig) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    labels.insert("kubernetes.io/hostname".into(), config.name.clone());
    labels.insert("kubernetes.io/arch".into(), config.architecture.clone());
    labels.insert("kubernetes.io/os".into(), config.operating_system.clone());
    labels
}

fn metadata(config: &NodeConfig) -> Value {
    let mut metadata = json!({"name": config.name, "labels": labels(config)});
    if !config.annotations.is_empty() {
        metadata["annotations"] = json!(config.annotations);
    }
    metadata
}

fn status(config: &NodeConfig, ready: bool, report: &NodeReport, now: Timestamp) -> Value {
    let mut capacity = json!({
        "cpu": Quantity::from_millis(config.capacity.cpu_millis as i64).to_string(),
        "memory": format!("{}Ki", config.capacity.memory / 1024),
        "pods": config.capacity.pods.to_string(),
    });
    for (name, amount) in &config.extended {
        capacity[name] = json!(amount.to_string());
    }
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let same = report.observed.get(kind).filter(|(known, _)| known == status);
        json!({
            "type": kind,
            "status": status,
            "lastHeartbeatTime": now.rfc3339(),
            "lastTransitionTime": same.map_or(now, |(_, since)| *since).rfc3339(),
            "reason": reason,
            "message": message,
        })
    };
    let mut conditions: Vec<Value> =
        PRESSURES.iter().map(|(kind, reason, message, _)| condition(kind, "False", reason, message)).collect();
    if let Some((healthy, message)) = runtime_health(&report.runtimes) {
        let (status, reason) = if healthy {
            ("False", reasons::CONTAINER_RUNTIME_IS_HEALTHY)
        } else {
            ("True", reasons::CONTAINER_RUNTIME_UNHEALTHY)
        };
        conditions.push(condition(CONTAINER_RUNTIME_UNHEALTHY, status, reason, &message));
    }
    conditions.push(if ready {
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")
    } else {
        let message = "[container runtime status check may not have completed yet]";
        condition("Ready", "False", "KubeletNotReady", message)
    });
    json!({
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": config.address.to_string()},
            {"type": "Hostname", "address": config.name},
        ],
        "nodeInfo": {
            "machineID": config.machine_id,
            "systemUUID": config.machine_id,
            "bootID": config.boot_id,
            "kernelVersion": config.kernel_version,
            "osImage": config.os_image,
            "containerRuntimeVersion": config.container_runtime_version,
            "kubeletVersion": config.kubelet_version,
            "kubeProxyVersion": "",
            "operatingSystem": config.operating_system,
            "architecture": config.architecture,
        },
    })
}
