//! What pods went through, noted as it happens: starts and ends from the runtimes, states from the API.

use std::collections::BTreeMap;

use coracle_api::resources::PODS;
use coracle_api::{ObjectKey, Uid};
use coracle_base::Instant;
use coracle_node::runtime::{ContainerId, Exit, RuntimeEvent};
use coracle_store::Change;
use serde_json::Value;

/// One instance of a container.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: ContainerId,
    pub(crate) node: String,
    pub(crate) started: Instant,
    pub(crate) ended: Option<(Instant, String)>,
}

/// One pod's way.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// When it was created.
    pub(crate) created: Instant,
    /// The instances of its containers, in the order in which they started.
    pub(crate) runs: Vec<Run>,
    /// Its phase and its containers' states in the API, whenever they changed.
    pub(crate) states: Vec<(Instant, String)>,
}

/// Every pod's.
#[derive(Debug, Default)]
pub(crate) struct Timelines {
    pods: BTreeMap<Uid, Timeline>,
    /// The latest pod of each name.
    names: BTreeMap<ObjectKey, Uid>,
}

impl Timelines {
    /// The way of the latest pod of a name.
    pub(crate) fn pod(&self, key: &ObjectKey) -> Option<&Timeline> {
        self.pods.get(self.names.get(key)?)
    }

    /// What runs: node, name of the pod, container.
    pub(crate) fn running(&self) -> impl Iterator<Item = String> {
        self.pods.iter().flat_map(move |(uid, timeline)| {
            let name = self.names.iter().find(|(_, named)| *named == uid).map_or("?", |(key, _)| &*key.name);
            let running = timeline.runs.iter().filter(|run| run.ended.is_none());
            running.map(move |run| format!("{} {name} {}", run.node, run.id))
        })
    }

    pub(crate) fn changed(&mut self, at: Instant, change: &Change) {
        let Some(pod) = change.new.as_ref().filter(|pod| pod.key().resource == PODS) else { return };
        let Some(uid) = pod.metadata().uid.clone() else { return };
        if change.old.is_none() {
            self.names.insert(pod.key().clone(), uid.clone());
            self.pods.insert(uid.clone(), Timeline { created: at, ..Timeline::default() });
        }
        let state = state(&pod.value(None)["status"]);
        let Some(timeline) = self.pods.get_mut(&uid) else { return };
        if timeline.states.last().is_none_or(|(_, last)| *last != state) {
            timeline.states.push((at, state));
        }
    }

    pub(crate) fn runtime(&mut self, at: Instant, node: &str, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::ContainerStarted { id, result: Ok(()) } => {
                let run = Run { id: id.clone(), node: node.to_owned(), started: at, ended: None };
                if let Some(timeline) = self.pods.get_mut(&id.pod) {
                    timeline.runs.push(run);
                }
            }
            RuntimeEvent::ContainerExited { id, exit } => {
                let runs = self.pods.get_mut(&id.pod).into_iter().flat_map(|timeline| &mut timeline.runs);
                // A container that was over when it was asked to end says so again.
                for run in runs.filter(|run| run.id == *id && run.ended.is_none()) {
                    run.ended = Some((at, reason(exit)));
                }
            }
            _ => {}
        }
    }

    /// A node's containers ended with it.
    pub(crate) fn node_lost(&mut self, at: Instant, node: &str) {
        let runs = self.pods.values_mut().flat_map(|timeline| &mut timeline.runs);
        for run in runs.filter(|run| run.node == node && run.ended.is_none()) {
            run.ended = Some((at, "lost with its node".into()));
        }
    }
}

fn reason(exit: &Exit) -> String {
    let plain = if exit.code == 0 { "Completed" } else { "Error" };
    exit.reason.clone().unwrap_or_else(|| plain.into())
}

/// A pod's status in a few words: its phase, then each container as `name: Waiting CrashLoopBackOff restarts=3`.
pub(crate) fn state(status: &Value) -> String {
    let mut text = status["phase"].as_str().unwrap_or("-").to_owned();
    if let Some(reason) = status["reason"].as_str() {
        text = format!("{text} {reason}");
    }
    let lists = ["initContainerStatuses", "containerStatuses"];
    for container in lists.into_iter().flat_map(|list| status[list].as_array().into_iter().flatten()) {
        let name = container["name"].as_str().unwrap_or_default();
        let mut what = String::from("Unknown");
        for (kind, label) in [("waiting", "Waiting"), ("running", "Running"), ("terminated", "Terminated")] {
            if let Some(state) = container["state"].get(kind) {
                let reason = state["reason"].as_str().unwrap_or_default();
                what = if reason.is_empty() { label.to_owned() } else { format!("{label} {reason}") };
            }
        }
        let ready = if container["ready"] == true { " ready" } else { "" };
        let restarts = container["restartCount"].as_u64().unwrap_or_default();
        text = format!("{text}, {name}: {what}{ready} restarts={restarts}");
    }
    text
}
