//! What the scheduler decides, and how a decision is reported: events and the pod's condition.

use coracle_api::events::{EventRecord, EventType};
use coracle_api::{Fields, ObjectKey, Uid};
use coracle_base::Now;
use coracle_store::View;
use serde_json::{Value, json};

/// A pod that must go to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its key.
    pub pod: ObjectKey,
    /// Its uid: a successor of the same name is no victim.
    pub uid: Uid,
}

/// What to do with a pod. Each must be answered with [`crate::Scheduler::settled`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Bind it. Until that is refused, the scheduler counts it as placed.
    Bind {
        /// The pod.
        pod: ObjectKey,
        /// Its uid.
        uid: Uid,
        /// The node.
        node: String,
    },
    /// It cannot be placed now; the scheduler tries again when something relevant changes.
    Unschedulable {
        /// The pod.
        pod: ObjectKey,
        /// Its uid.
        uid: Uid,
        /// Why, as the condition and the event say it.
        message: String,
        /// The node that is kept for it while the victims go.
        nominated: Option<String>,
        /// Pods to delete so that it fits on that node.
        victims: Vec<Victim>,
    },
}

/// What is read of a pod whose status is written.
const STATUS: Fields = Fields::Only(&[("status", Fields::All)]);

impl Decision {
    /// The pod that it is about.
    pub fn pod(&self) -> &ObjectKey {
        match self {
            Self::Bind { pod, .. } | Self::Unschedulable { pod, .. } => pod,
        }
    }

    /// The events to record (as `default-scheduler`) once the decision is carried out.
    pub fn events(&self) -> Vec<EventRecord> {
        match self {
            Self::Bind { pod, uid, node } => {
                let message = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
                vec![EventRecord::new(pod, Some(uid), EventType::Normal, "Scheduled", message)]
            }
            Self::Unschedulable { pod, uid, message, nominated, victims } => {
                let failed = EventRecord::new(pod, Some(uid), EventType::Warning, "FailedScheduling", message.as_str());
                let node = nominated.as_deref().unwrap_or_default();
                let preempted = victims.iter().map(|victim| {
                    let message = format!("Preempted by pod {uid} on node {node}");
                    EventRecord::new(&victim.pod, Some(&victim.uid), EventType::Normal, "Preempted", message)
                });
                std::iter::once(failed).chain(preempted).collect()
            }
        }
    }

    /// The merge patch of the pod's `status` that says why it waits; `None` for a binding, or when the status says so already.
    pub fn status_patch(&self, view: &View, now: Now) -> Option<Value> {
        let Self::Unschedulable { pod, message, nominated, .. } = self else { return None };
        let object = view.object(pod)?;
        let value = object.fields(STATUS);
        let mut conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut wanted = json!({
            "type": "PodScheduled",
            "observedGeneration": object.metadata().generation,
            "status": "False",
            "lastProbeTime": null,
            "lastTransitionTime": now.wall.rfc3339(),
            "reason": "Unschedulable",
            "message": message,
        });
        let old = conditions.iter().position(|condition| condition["type"] == "PodScheduled");
        if let Some(old) = old.map(|index| conditions.remove(index))
            && old["status"] == "False"
        {
            wanted["lastTransitionTime"] = old["lastTransitionTime"].clone();
        }
        conditions.push(wanted);
        let nominated = nominated.as_deref().map_or(Value::Null, Value::from);
        let status = &value["status"];
        if status["conditions"].as_array() == Some(&conditions) && status["nominatedNodeName"] == nominated {
            return None;
        }
        let version = object.revision().to_string();
        Some(json!({
            "metadata": {"uid": object.metadata().uid.as_ref().map(Uid::as_str), "resourceVersion": version},
            "status": {"conditions": conditions, "nominatedNodeName": nominated},
        }))
    }

    /// The merge patch of a victim's `status` before it is deleted.
    pub fn victim_patch(view: &View, victim: &Victim, now: Now) -> Option<Value> {
        let object = view.object(&victim.pod)?;
        let value = object.fields(STATUS);
        let mut conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "DisruptionTarget");
        conditions.push(json!({
            "type": "DisruptionTarget",
            "status": "True",
            "lastTransitionTime": now.wall.rfc3339(),
            "reason": "PreemptionByScheduler",
            "message": "default-scheduler: preempting to accommodate a higher priority pod",
        }));
        let version = object.revision().to_string();
        let metadata = json!({"uid": victim.uid.as_str(), "resourceVersion": version});
        Some(json!({"metadata": metadata, "status": {"conditions": conditions}}))
    }
}
