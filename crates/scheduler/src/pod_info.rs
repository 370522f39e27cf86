//! What the scheduler knows of a pod: read once, when the pod changes.

use coracle_api::{Fields, Object, ObjectKey, Uid};
use coracle_base::Timestamp;
use serde_json::Value;

use crate::resources::{Resources, requests_of, weights_of};
use crate::terms::{Labels, NodeTerm, PodTerm, Spread, Toleration, items, text};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    port: i64,
    protocol: String,
    ip: String,
}

impl HostPort {
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodInfo {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Uid,
    /// Rises with the spec.
    pub(crate) generation: i64,
    pub(crate) labels: Labels,
    /// The managing controller: pods of one are spread by default.
    pub(crate) owner: Option<Uid>,
    pub(crate) priority: i64,
    pub(crate) may_preempt: bool,
    pub(crate) scheduler_name: String,
    pub(crate) node_name: String,
    pub(crate) nominated_node: String,
    pub(crate) is_gated: bool,
    pub(crate) is_going: bool,
    pub(crate) is_terminal: bool,
    pub(crate) started: Option<Timestamp>,
    pub(crate) requests: Resources,
    pub(crate) weights: Resources,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) node_selector: Labels,
    /// Any of these must match, where there are some.
    pub(crate) required_nodes: Option<Vec<NodeTerm>>,
    pub(crate) preferred_nodes: Vec<(i64, NodeTerm)>,
    pub(crate) affinity: Vec<PodTerm>,
    pub(crate) anti_affinity: Vec<PodTerm>,
    /// Weighted terms; a negative weight keeps away.
    pub(crate) preferred_pods: Vec<(i64, PodTerm)>,
    pub(crate) spread: Vec<Spread>,
}

/// What of a container does not say where it may run.
const CONTAINERS: Fields = Fields::Except(&[
    ("args", Fields::Nothing),
    ("command", Fields::Nothing),
    ("env", Fields::Nothing),
    ("envFrom", Fields::Nothing),
    ("lifecycle", Fields::Nothing),
    ("livenessProbe", Fields::Nothing),
    ("readinessProbe", Fields::Nothing),
    ("securityContext", Fields::Nothing),
    ("startupProbe", Fields::Nothing),
    ("volumeMounts", Fields::Nothing),
]);

/// What is read of a pod: every pod that is created is read, and most of its text is of no interest here.
pub(crate) const FIELDS: Fields = Fields::Only(&[
    (
        "spec",
        Fields::Except(&[("containers", CONTAINERS), ("initContainers", CONTAINERS), ("volumes", Fields::Nothing)]),
    ),
    ("status", Fields::Only(&[("nominatedNodeName", Fields::All), ("phase", Fields::All), ("startTime", Fields::All)])),
]);

impl PodInfo {
    /// Reads a pod out of its [`FIELDS`]; `None` when it has no uid, which the API server never stores.
    pub(crate) fn of(object: &Object, pod: &Value) -> Option<Self> {
        let metadata = object.metadata();
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let (labels, namespace) = (&metadata.labels, &object.key().namespace);
        let affinity = &spec["affinity"];
        let terms = |list: &Value| -> Vec<PodTerm> {
            items(list).iter().map(|term| PodTerm::of(term, namespace, labels)).collect()
        };
        let weighted = |list: &Value, sign: i64| -> Vec<(i64, PodTerm)> {
            let one = |term: &Value| {
                let weight = term["weight"].as_i64().unwrap_or(0) * sign;
                (weight, PodTerm::of(&term["podAffinityTerm"], namespace, labels))
            };
            items(list).iter().map(one).collect()
        };
        let mut preferred_pods = weighted(&affinity["podAffinity"][PREFERRED], 1);
        preferred_pods.extend(weighted(&affinity["podAntiAffinity"][PREFERRED], -1));
        let node_affinity = &affinity["nodeAffinity"];
        let required = &node_affinity[REQUIRED]["nodeSelectorTerms"];
        let preferred = |term: &Value| (term["weight"].as_i64().unwrap_or(0), NodeTerm::of(&term["preference"]));
        Some(Self {
            key: object.key().clone(),
            uid: metadata.uid.clone()?,
            generation: metadata.generation,
            labels: labels.clone(),
            owner: metadata.controller().map(|owner| owner.uid.clone()),
            priority: spec["priority"].as_i64().unwrap_or(0),
            may_preempt: spec["preemptionPolicy"] != "Never",
            scheduler_name: text(&spec["schedulerName"]).to_owned(),
            node_name: text(&spec["nodeName"]).to_owned(),
            nominated_node: text(&status["nominatedNodeName"]).to_owned(),
            is_gated: !items(&spec["schedulingGates"]).is_empty(),
            is_going: metadata.deletion_timestamp.is_some(),
            is_terminal: matches!(text(&status["phase"]), "Succeeded" | "Failed"),
            started: Timestamp::parse(text(&status["startTime"])).ok().or(metadata.creation_timestamp),
            requests: requests_of(pod),
            weights: weights_of(pod),
            host_ports: host_ports(spec),
            tolerations: items(&spec["tolerations"]).iter().map(Toleration::of).collect(),
            node_selector: string_map(&spec["nodeSelector"]),
            required_nodes: required.as_array().map(|terms| terms.iter().map(NodeTerm::of).collect()),
            preferred_nodes: items(&node_affinity[PREFERRED]).iter().map(preferred).collect(),
            affinity: terms(&affinity["podAffinity"][REQUIRED]),
            anti_affinity: terms(&affinity["podAntiAffinity"][REQUIRED]),
            preferred_pods,
            spread: items(&spec["topologySpreadConstraints"]).iter().map(|c| Spread::of(c, labels)).collect(),
        })
    }

    /// Whether placing other pods must look at this one's terms.
    pub(crate) fn has_pod_terms(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty() || !self.preferred_pods.is_empty()
    }
}

fn host_ports(spec: &Value) -> Vec<HostPort> {
    let on_host = spec["hostNetwork"] == true;
    let ports = items(&spec["containers"]).iter().flat_map(|container| items(&container["ports"]));
    ports
        .filter_map(|port| {
            let number = port["hostPort"].as_i64().or_else(|| port["containerPort"].as_i64().filter(|_| on_host))?;
            let protocol = if port["protocol"].is_null() { "TCP" } else { text(&port["protocol"]) };
            (number > 0).then(|| HostPort {
                port: number,
                protocol: protocol.to_owned(),
                ip: text(&port["hostIP"]).to_owned(),
            })
        })
        .collect()
}

pub(crate) fn string_map(value: &Value) -> Labels {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
}
