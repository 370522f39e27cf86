//! A pod's status, worked out from its containers.
//!
//! Source of the rules: the kubelet's `getPhase` and `convertToAPIContainerStatuses`, and
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>.

use coracle_base::Timestamp;
use serde_json::{Map, Value, json};

use crate::NodeConfig;
use crate::container::{Container, Step};
use crate::pod_spec::{PodView, Role};
use crate::pod_worker::Verdict;
use crate::reasons;
use crate::restart::Termination;
use crate::runtime::RuntimeKind;

/// One condition, with the time of its last transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
    since: Timestamp,
    /// Whether the API server may have a reason and a message of it, which are then to be removed when there are none.
    explained: bool,
}

/// What a pod's status is made of.
#[derive(Debug)]
pub(crate) struct StatusParts<'a> {
    pub(crate) pod: &'a PodView,
    pub(crate) config: &'a NodeConfig,
    pub(crate) runtime: Option<RuntimeKind>,
    pub(crate) containers: &'a [Container],
    /// `status.podIP`.
    pub(crate) address: Option<std::net::IpAddr>,
    pub(crate) started_at: Timestamp,
    /// Whether the sandbox is there.
    pub(crate) sandboxed: bool,
    /// Whether every init container is over (or a sidecar that started).
    pub(crate) initialized: bool,
    /// Whether nothing of it runs or will run again.
    pub(crate) ended: bool,
    /// `status.reason` and `status.message`, where the node ended the pod.
    pub(crate) verdict: Option<&'a Verdict>,
}

impl StatusParts<'_> {
    /// `status.phase`.
    pub(crate) fn phase(&self) -> &'static str {
        let mains = || self.containers.iter().filter(|container| container.role == Role::Main);
        if self.ended {
            let good = self.verdict.is_none() && self.initialized && mains().all(succeeded);
            return if good { "Succeeded" } else { "Failed" };
        }
        if !self.initialized {
            return "Pending";
        }
        let (mut waits, mut runs, mut stopped) = (false, false, false);
        for container in mains() {
            if container.step == Step::Running {
                runs = true;
            } else if container.terminated.is_some() || container.last.is_some() {
                stopped = true;
            } else {
                waits = true;
            }
        }
        if !waits && (runs || stopped) { "Running" } else { "Pending" }
    }

    /// The status. `conditions` is the one before on entry and this one on return: only what changes gets a new time.
    pub(crate) fn build(&self, conditions: &mut Vec<Condition>, now: Timestamp) -> Value {
        if let Some(verdict) = self.verdict.filter(|verdict| verdict.rejected) {
            return self.rejected(verdict);
        }
        let phase = self.phase();
        self.update_conditions(phase, conditions, now);
        let generation = self.pod.metadata.generation;
        let mut status = Map::new();
        let mut set = |name: &str, value: Value| status.insert(name.into(), value);
        set("phase", json!(phase));
        set("qosClass", json!(self.pod.qos_class()));
        set("startTime", json!(self.started_at.rfc3339()));
        set("hostIP", json!(self.config.address.to_string()));
        set("hostIPs", json!([{"ip": self.config.address.to_string()}]));
        if let Some(address) = self.address {
            set("podIP", json!(address.to_string()));
            set("podIPs", json!([{"ip": address.to_string()}]));
        }
        if generation > 0 {
            set("observedGeneration", json!(generation));
        }
        if let Some(verdict) = self.verdict {
            set("reason", json!(verdict.reason));
            set("message", json!(verdict.message));
        }
        set("conditions", conditions.iter().map(|condition| condition.value(generation)).collect());
        let list = |init: bool| -> Vec<Value> {
            let wanted = self.containers.iter().filter(|container| (container.role != Role::Main) == init);
            wanted.map(|container| self.container(container)).collect()
        };
        set("containerStatuses", json!(list(false)));
        let init = list(true);
        if !init.is_empty() {
            set("initContainerStatuses", json!(init));
        }
        Value::Object(status)
    }

    /// The status of a pod that was never taken.
    fn rejected(&self, verdict: &Verdict) -> Value {
        let mut status = json!({
            "phase": "Failed",
            "reason": verdict.reason,
            "message": verdict.message,
            "qosClass": self.pod.qos_class(),
            "startTime": self.started_at.rfc3339(),
        });
        if self.pod.metadata.generation > 0 {
            status["observedGeneration"] = json!(self.pod.metadata.generation);
        }
        status
    }

    fn update_conditions(&self, phase: &str, conditions: &mut Vec<Condition>, now: Timestamp) {
        let holds = ("", String::new());
        let unready = |role: &dyn Fn(Role) -> bool, done: &dyn Fn(&Container) -> bool| -> Vec<&str> {
            let wanted = self.containers.iter().filter(|container| role(container.role) && !done(container));
            wanted.map(Container::name).collect()
        };
        let names = |prefix: &str, names: &[&str]| format!("containers with {prefix} status: [{}]", names.join(" "));
        let incomplete = unready(&|role| role != Role::Main, &|c| self.initialized || c.lets_next_begin());
        let initialized = if incomplete.is_empty() || phase == "Succeeded" {
            holds.clone()
        } else {
            (reasons::CONTAINERS_NOT_INITIALIZED, names("incomplete", &incomplete))
        };
        let not_ready = unready(&|role| role != Role::Init, &Container::is_ready);
        let containers_ready = match phase {
            "Succeeded" => (reasons::POD_COMPLETED, String::new()),
            "Failed" => (reasons::POD_FAILED, String::new()),
            _ if not_ready.is_empty() && self.initialized => holds.clone(),
            _ => (reasons::CONTAINERS_NOT_READY, names("unready", &not_ready)),
        };
        let ready = if containers_ready.0.is_empty() { self.readiness_gates() } else { containers_ready.clone() };
        let mut set = |kind, (reason, message): (&'static str, String), holds: bool| {
            let before = conditions.iter_mut().find(|condition| condition.kind == kind);
            let since = before.as_ref().filter(|before| before.holds == holds).map_or(now, |before| before.since);
            let explained = !reason.is_empty() || before.as_ref().is_some_and(|before| before.explained);
            let condition = Condition { kind, holds, reason, message, since, explained };
            match before {
                Some(before) => *before = condition,
                None => conditions.push(condition),
            }
        };
        set("PodReadyToStartContainers", holds.clone(), self.sandboxed);
        set("Initialized", initialized.clone(), initialized.0.is_empty());
        set("Ready", ready.clone(), ready.0.is_empty());
        set("ContainersReady", containers_ready.clone(), containers_ready.0.is_empty());
        set("PodScheduled", holds, true);
    }

    /// `Ready` waits for the conditions of `spec.readinessGates`, which others set.
    fn readiness_gates(&self) -> (&'static str, String) {
        let conditions = self.pod.value["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut missing = Vec::new();
        for gate in self.pod.spec.readiness_gates.iter().flatten() {
            let kind = &gate.condition_type;
            match conditions.iter().find(|condition| condition["type"] == **kind) {
                None => missing.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
                Some(condition) if condition["status"] != "True" => missing.push(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    condition["status"].as_str().unwrap_or_default()
                )),
                Some(_) => {}
            }
        }
        if missing.is_empty() { ("", String::new()) } else { (reasons::READINESS_GATES_NOT_READY, missing.join(", ")) }
    }

    fn container(&self, container: &Container) -> Value {
        let id = container.id(self.pod).map(|id| format!("{}://{id}", self.config.runtime_scheme(self.runtime)));
        let mut status = json!({
            "name": container.name(),
            "image": container.image(),
            "imageID": container.image_id,
            "ready": !self.ended && container.is_ready() && container.role != Role::Init,
            "started": !self.ended && container.started,
            "restartCount": container.instance.unwrap_or(0),
            "state": self.state(container),
            "lastState": {},
        });
        if let Some(id) = id {
            status["containerID"] = json!(id);
        }
        // An init container that is over counts as ready.
        if container.role == Role::Init && container.has_succeeded() {
            status["ready"] = json!(true);
        }
        // While it waits, how it ended is its last state; else what was before.
        let last = if shows_terminated(container) { &container.last } else { &container.terminated };
        if let Some(last) = last.as_ref().or(container.last.as_ref()) {
            status["lastState"] = self.terminated(container, last);
        }
        if let Some(resources) = &container.spec.resources {
            status["resources"] = json!(resources);
            if let Some(requests) = &resources.requests {
                status["allocatedResources"] = json!(requests);
            }
        }
        let mounts: Vec<Value> = container.spec.volume_mounts.iter().flatten().map(mount_status).collect();
        if !mounts.is_empty() {
            status["volumeMounts"] = json!(mounts);
        }
        status
    }

    fn state(&self, container: &Container) -> Value {
        if container.step == Step::Running {
            let since = container.running_since.unwrap_or(self.started_at);
            return json!({"running": {"startedAt": since.rfc3339()}});
        }
        if let Some((reason, message)) = &container.waiting {
            return json!({"waiting": {"reason": reason, "message": message}});
        }
        if shows_terminated(container)
            && let Some(end) = &container.terminated
        {
            return self.terminated(container, end);
        }
        let initializing = container.role == Role::Main && self.pod.spec.init_containers.iter().flatten().count() > 0
            || container.role != Role::Main && container.step == Step::Idle && self.sandboxed;
        let reason = if initializing { reasons::POD_INITIALIZING } else { reasons::CONTAINER_CREATING };
        json!({"waiting": {"reason": reason}})
    }

    fn terminated(&self, container: &Container, end: &Termination) -> Value {
        let finished = end.finished_at.rfc3339();
        let mut state = json!({
            "exitCode": end.exit_code,
            "reason": end.reason,
            "startedAt": end.started_at.map_or_else(|| finished.clone(), Timestamp::rfc3339),
            "finishedAt": finished,
            "containerID": format!(
                "{}://{}/{}/{}", self.config.runtime_scheme(self.runtime), self.pod.uid, container.name(), end.instance
            ),
        });
        if let Some(signal) = end.signal {
            state["signal"] = json!(signal);
        }
        if let Some(message) = &end.message {
            state["message"] = json!(message);
        }
        json!({"terminated": state})
    }
}

impl Condition {
    fn value(&self, generation: i64) -> Value {
        let mut value = json!({
            "type": self.kind,
            "status": if self.holds { "True" } else { "False" },
            "lastProbeTime": null,
            "lastTransitionTime": self.since.rfc3339(),
        });
        if !self.reason.is_empty() {
            value["reason"] = json!(self.reason);
        } else if self.explained {
            value["reason"] = Value::Null;
        }
        if !self.message.is_empty() {
            value["message"] = json!(self.message);
        } else if self.explained {
            value["message"] = Value::Null;
        }
        if generation > 0 {
            value["observedGeneration"] = json!(generation);
        }
        value
    }

    /// The conditions that a pod's status has already, for the times of their transitions.
    pub(crate) fn known(status: &Value) -> Vec<Self> {
        let kinds = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
        let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let known = kinds.into_iter().filter_map(|kind| {
            let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
            let since = Timestamp::parse(condition["lastTransitionTime"].as_str()?).ok()?;
            let explained = condition.get("reason").is_some() || condition.get("message").is_some();
            let holds = condition["status"] == "True";
            Some(Self { kind, holds, reason: "", message: String::new(), since, explained })
        });
        known.collect()
    }
}

fn succeeded(container: &Container) -> bool {
    container.terminated.as_ref().is_some_and(|end| end.exit_code == 0)
}

/// Whether how it ended is its present state: it is over, or about to start again without a wait.
fn shows_terminated(container: &Container) -> bool {
    container.step != Step::Running && container.waiting.is_none() && container.terminated.is_some()
}

fn mount_status(mount: &k8s_openapi::api::core::v1::VolumeMount) -> Value {
    let mut value = json!({"name": mount.name, "mountPath": mount.mount_path});
    if mount.read_only == Some(true) {
        value["readOnly"] = json!(true);
        value["recursiveReadOnly"] = json!("Disabled");
    }
    value
}
