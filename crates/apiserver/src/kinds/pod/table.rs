//! The row of a pod: what `kubectl get pods` shows.
//!
//! Source of the algorithm: `printPod` in Kubernetes' printers.

use coracle_api::Fields;
use coracle_base::{Now, Timestamp, human_duration};
use serde_json::{Value, json};

use super::super::table::{AGE, NAME, age, column, name, or, wide};
use super::super::value::{items, text};
use super::super::{descriptions, table};
use crate::strategy::{Column, Row};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
    column("Status", "string", "The aggregate status of the containers in this pod."),
    column(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide("IP", descriptions::POD_IP),
    wide("Node", descriptions::NODE_NAME),
    wide("Nominated Node", descriptions::NOMINATED_NODE),
    wide("Readiness Gates", descriptions::READINESS_GATES),
];

const CONTAINER: Fields = Fields::Only(&[("name", Fields::All), ("restartPolicy", Fields::All)]);

const CONTAINER_STATUS: Fields = Fields::Only(&[
    ("name", Fields::All),
    ("ready", Fields::All),
    ("started", Fields::All),
    ("restartCount", Fields::All),
    ("state", STATE),
    ("lastState", Fields::Only(&[("terminated", Fields::Only(&[("finishedAt", Fields::All)]))])),
]);

const STATE: Fields = Fields::Only(&[
    ("running", Fields::Only(&[])),
    ("waiting", Fields::Only(&[("reason", Fields::All)])),
    ("terminated", Fields::Only(&[("reason", Fields::All), ("exitCode", Fields::All), ("signal", Fields::All)])),
]);

const CONDITION: Fields = Fields::Only(&[("type", Fields::All), ("status", Fields::All), ("reason", Fields::All)]);

/// What a pod's row looks at.
pub(super) const FIELDS: Fields = Fields::Only(&[
    (
        "metadata",
        Fields::Only(&[("name", Fields::All), ("creationTimestamp", Fields::All), ("deletionTimestamp", Fields::All)]),
    ),
    (
        "spec",
        Fields::Only(&[
            ("nodeName", Fields::All),
            ("readinessGates", Fields::All),
            ("containers", CONTAINER),
            ("initContainers", CONTAINER),
        ]),
    ),
    (
        "status",
        Fields::Only(&[
            ("phase", Fields::All),
            ("reason", Fields::All),
            ("conditions", CONDITION),
            ("podIP", Fields::All),
            ("podIPs", Fields::All),
            ("nominatedNodeName", Fields::All),
            ("containerStatuses", CONTAINER_STATUS),
            ("initContainerStatuses", CONTAINER_STATUS),
        ]),
    ),
]);

/// A pod's row.
pub(super) fn row(pod: &Value, now: Now) -> Row {
    let summary = Summary::of(pod);
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let mut row = table::row([
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.clone().into(),
        summary.restarts_cell(now).into(),
        age(pod, now),
        or(super::pod_ip(pod), "<none>").into(),
        or(text(spec, "nodeName"), "<none>").into(),
        or(text(status, "nominatedNodeName"), "<none>").into(),
        readiness_gates(pod).into(),
    ]);
    if let Some((reason, message)) = completion(text(status, "phase")) {
        row.conditions = vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})];
    }
    row
}

fn completion(phase: &str) -> Option<(&'static str, &'static str)> {
    match phase {
        "Succeeded" => Some(("Succeeded", "The pod has completed successfully.")),
        "Failed" => Some(("Failed", "The pod failed.")),
        _ => None,
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| condition(pod, text(gate, "conditionType")) == "True").count();
    format!("{open}/{}", gates.len())
}

/// The status of a condition, empty where there is none.
fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let conditions = items(&pod["status"], "conditions");
    conditions.iter().find(|condition| text(condition, "type") == kind).map_or("", |found| text(found, "status"))
}

/// Restarts, and the end of the latest instance that was restarted.
#[derive(Clone, Copy, Debug, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container["restartCount"].as_i64().unwrap_or(0);
        let ended = container["lastState"]["terminated"]["finishedAt"].as_str();
        self.last = self.last.max(ended.and_then(|text| Timestamp::parse(text).ok()));
    }
}

/// What the containers of a pod amount to.
#[derive(Debug)]
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let sidecars = items(spec, "initContainers").iter().filter(|container| is_sidecar(container)).count();
        let mut summary = Self {
            ready: 0,
            total: items(spec, "containers").len() + sidecars,
            reason: or(text(status, "reason"), text(status, "phase")).to_owned(),
            restarts: Restarts::default(),
        };
        let gated = |c: &Value| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated";
        if items(status, "conditions").iter().any(gated) {
            summary.reason = "SchedulingGated".into();
        }
        let (initializing, sidecar_restarts) = summary.count_init_containers(pod);
        if !initializing || condition(pod, "Initialized") == "True" {
            summary.restarts = sidecar_restarts;
            summary.count_containers(pod);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if text(status, "reason") == "NodeLost" {
                summary.reason = "Unknown".into();
            } else if !matches!(text(status, "phase"), "Succeeded" | "Failed") {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    /// Looks at the init containers up to the first that is not done; gives whether there is one, and the sidecars' restarts.
    fn count_init_containers(&mut self, pod: &Value) -> (bool, Restarts) {
        let specs = items(&pod["spec"], "initContainers");
        let mut sidecar_restarts = Restarts::default();
        for (index, container) in items(&pod["status"], "initContainerStatuses").iter().enumerate() {
            self.restarts.add(container);
            let spec = specs.iter().find(|spec| text(spec, "name") == text(container, "name"));
            let sidecar = spec.is_some_and(is_sidecar);
            if sidecar {
                sidecar_restarts.add(container);
            }
            let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
            if !terminated.is_null() && terminated["exitCode"].as_i64().unwrap_or(0) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            self.reason = if !terminated.is_null() {
                format!("Init:{}", ending(terminated))
            } else if !matches!(text(waiting, "reason"), "" | "PodInitializing") {
                format!("Init:{}", text(waiting, "reason"))
            } else {
                format!("Init:{index}/{}", specs.len())
            };
            return (true, sidecar_restarts);
        }
        (false, sidecar_restarts)
    }

    /// Looks at the containers, the first one last, so that it has the last word.
    fn count_containers(&mut self, pod: &Value) {
        let (mut running, mut failure) = (false, None);
        for container in items(&pod["status"], "containerStatuses").iter().rev() {
            self.restarts.add(container);
            let state = &container["state"];
            let waiting = text(&state["waiting"], "reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if !state["terminated"].is_null() {
                self.reason = ending(&state["terminated"]);
                if state["terminated"]["exitCode"].as_i64().unwrap_or(0) != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if container["ready"] == true && !state["running"].is_null() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && condition(pod, "Ready") == "True" {
                self.reason = "Running".into();
            } else if let Some(failure) = failure {
                self.reason = failure;
            } else if running {
                self.reason = "NotReady".into();
            }
        }
    }

    fn restarts_cell(&self, now: Now) -> String {
        match self.restarts {
            Restarts { count, last: Some(last) } if count != 0 => {
                format!("{count} ({} ago)", human_duration(now.wall.saturating_since(last)))
            }
            Restarts { count, .. } => count.to_string(),
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// Why a container ended: its reason, else the signal or exit code.
fn ending(terminated: &Value) -> String {
    let reason = text(terminated, "reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match terminated["signal"].as_i64().unwrap_or(0) {
        0 => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::pod::PodStrategy;
    use crate::kinds::testing::{cells, now};

    /// READY, STATUS and RESTARTS of a pod.
    fn shown(pod: &Value) -> [String; 3] {
        let cells = cells(&PodStrategy, pod);
        [1, 2, 3].map(|index| cells[index].as_str().unwrap().to_owned())
    }

    fn pod(status: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}, "status": status})
    }

    fn with_state(phase: &str, state: Value) -> Value {
        pod(
            json!({"phase": phase, "containerStatuses": [{"name": "a", "ready": !state["running"].is_null(), "state": state}]}),
        )
    }

    #[test]
    fn a_pod_is_pending_until_its_containers_say_more() {
        assert_eq!(shown(&pod(json!({"phase": "Pending"}))), ["0/1", "Pending", "0"]);
        let creating = with_state("Pending", json!({"waiting": {"reason": "ContainerCreating"}}));
        assert_eq!(shown(&creating), ["0/1", "ContainerCreating", "0"]);
        let running = with_state("Running", json!({"running": {}}));
        assert_eq!(shown(&running), ["1/1", "Running", "0"]);
    }

    #[test]
    fn a_crash_loop_shows_its_restarts_and_when_the_last_one_was() {
        let looping = pod(json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-11-22T10:26:34Z"}}}]}));
        assert_eq!(shown(&looping), ["0/1", "CrashLoopBackOff", "3 (5m ago)"]);
    }

    #[test]
    fn an_ended_container_shows_its_reason_or_code_or_signal() {
        for (ended, status) in [
            (json!({"reason": "Completed"}), "Completed"),
            (json!({"reason": "OOMKilled", "exitCode": 137}), "OOMKilled"),
            (json!({"exitCode": 3}), "ExitCode:3"),
            (json!({"exitCode": 137, "signal": 9}), "Signal:9"),
        ] {
            assert_eq!(shown(&with_state("Running", json!({"terminated": ended})))[1], status);
        }
    }

    #[test]
    fn a_completed_container_does_not_hide_a_running_one() {
        let mut mixed =
            pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
            {"name": "a", "state": {"terminated": {"reason": "Completed"}}},
            {"name": "b", "ready": true, "state": {"running": {}}}]}));
        mixed["spec"]["containers"] = json!([{"name": "a"}, {"name": "b"}]);
        assert_eq!(shown(&mixed), ["1/2", "Running", "0"]);
        mixed["status"]["conditions"] = json!([]);
        assert_eq!(shown(&mixed)[1], "NotReady");
        mixed["status"]["containerStatuses"][1]["state"] = json!({"terminated": {"reason": "Error", "exitCode": 1}});
        assert_eq!(shown(&mixed)[1], "Error");
    }

    #[test]
    fn init_containers_come_first() {
        let mut initializing = pod(json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"running": {}}}], "containerStatuses": [
            {"name": "a", "state": {"waiting": {"reason": "PodInitializing"}}}]}));
        initializing["spec"]["initContainers"] = json!([{"name": "i"}]);
        assert_eq!(shown(&initializing), ["0/1", "Init:0/1", "0"]);
        let state = &mut initializing["status"]["initContainerStatuses"][0];
        state["restartCount"] = 2.into();
        state["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(shown(&initializing), ["0/1", "Init:CrashLoopBackOff", "2"]);
        initializing["status"]["initContainerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 2}});
        assert_eq!(shown(&initializing)[1], "Init:ExitCode:2");
        initializing["status"]["initContainerStatuses"][0]["state"] = json!({"terminated": {"exitCode": 0}});
        assert_eq!(shown(&initializing), ["0/1", "PodInitializing", "0"]);
    }

    #[test]
    fn a_sidecar_counts_among_the_containers() {
        let mut pod = with_state("Running", json!({"running": {}}));
        pod["spec"]["initContainers"] = json!([{"name": "s", "restartPolicy": "Always"}]);
        pod["status"]["initContainerStatuses"] =
            json!([{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}]);
        assert_eq!(shown(&pod), ["2/2", "Running", "1"]);
    }

    #[test]
    fn a_pod_that_is_going_away_is_terminating() {
        let mut pod = with_state("Running", json!({"running": {}}));
        pod["metadata"]["deletionTimestamp"] = "2026-11-22T10:31:34Z".into();
        assert_eq!(shown(&pod)[1], "Terminating");
        pod["status"]["reason"] = "NodeLost".into();
        assert_eq!(shown(&pod)[1], "Unknown");
        pod["status"] = json!({"phase": "Failed", "reason": "Evicted"});
        assert_eq!(shown(&pod)[1], "Evicted");
    }

    #[test]
    fn a_gated_pod_says_so() {
        let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
        assert_eq!(shown(&pod(gated))[1], "SchedulingGated");
    }

    #[test]
    fn the_wide_cells_are_none_or_what_is_known() {
        let mut pod = pod(json!({"phase": "Succeeded"}));
        let none = json!(["<none>", "<none>", "<none>", "<none>"]);
        assert_eq!(cells(&PodStrategy, &pod).as_array().unwrap()[5..], none.as_array().unwrap()[..]);
        let condition = json!({"type": "Completed", "status": "True", "reason": "Succeeded", "message": "The pod has completed successfully."});
        assert_eq!(row(&pod, now()).conditions, [condition]);
        pod["spec"]["readinessGates"] = json!([{"conditionType": "a"}, {"conditionType": "b"}]);
        pod["spec"]["nodeName"] = "n".into();
        pod["status"]["podIPs"] = json!([{"ip": "10.42.0.2"}]);
        pod["status"]["conditions"] = json!([{"type": "a", "status": "True"}]);
        let known = json!(["10.42.0.2", "n", "<none>", "1/2"]);
        assert_eq!(cells(&PodStrategy, &pod).as_array().unwrap()[5..], known.as_array().unwrap()[..]);
    }
}
