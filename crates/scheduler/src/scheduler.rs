//! The scheduler: changes in, decisions out.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::resources::{NAMESPACES, NODES, PODS};
use coracle_api::{Object, ObjectKey};
use coracle_base::{Instant, Now, Rng};
use coracle_store::{Change, Sweep, View};
use serde_json::Value;

use crate::affinity::Surroundings;
use crate::cluster_view::{ClusterView, Node, NodeSpec};
use crate::decision::Decision;
use crate::filter::refusal;
use crate::pod_info::{self, PodInfo};
use crate::preempt::{Preemption, preempt};
use crate::queue::Queue;
use crate::reasons::{self, Refusal, summary};
use crate::score::scores;

/// The pods with this `schedulerName` are ours.
const NAME: &str = "default-scheduler";
/// With fewer nodes than this all are looked at, with more a share of them, but at least this many that fit.
const SAMPLE_MIN: usize = 100;
/// How many objects of a resync are looked at in one call: it stays under a millisecond.
const OBJECTS_PER_SLICE: usize = 64;

/// Places pods on nodes.
///
/// All that it knows is derived: [`Self::resync`] makes it anew from a view.
#[derive(Debug, Default)]
pub struct Scheduler {
    cluster: ClusterView,
    queue: Queue,
    pods: BTreeMap<ObjectKey, Arc<PodInfo>>,
    /// Bindings that are being carried out.
    assumed: BTreeMap<ObjectKey, Arc<PodInfo>>,
    /// What of a resync is still to be looked at: before its end nothing is placed, because what is placed already is not known.
    sweep: Sweep,
    /// Where the next pod begins to look, so that a sample is not always of the same nodes.
    next_node: usize,
    /// The latest time it was told: for what is queued between calls.
    now: Instant,
}

impl Scheduler {
    /// A scheduler that knows of nothing: call [`Self::resync`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything and begins with what there is: what a new leader does. [`Self::schedule`] looks at it, a slice at a time.
    pub fn resync(&mut self) {
        let (sweep, now) = (Sweep::of([NAMESPACES, NODES, PODS]), self.now);
        *self = Self { sweep, now, ..Self::default() };
    }

    fn sweep(&mut self, view: &View) {
        let mut room = OBJECTS_PER_SLICE;
        while room > 0 && !self.sweep.is_over() {
            let slice = self.sweep.next(view, room);
            room -= slice.len();
            for object in slice {
                self.take(view, object);
            }
        }
    }

    /// Takes note of a change; `view` is a state that has it.
    pub fn observe(&mut self, view: &View, change: &Change) {
        match (&change.old, &change.new) {
            (_, Some(new)) => self.take(view, new),
            (Some(old), None) => self.lose(old.key()),
            (None, None) => {}
        }
    }

    /// Decides on at most `budget` pods; one that the view no longer has is dropped. Nothing is decided before a resync is over.
    pub fn schedule(&mut self, view: &View, now: Now, rng: &mut Rng, budget: usize) -> Vec<Decision> {
        self.now = now.mono;
        self.sweep(view);
        if !self.sweep.is_over() {
            return Vec::new();
        }
        let mut decisions = Vec::new();
        while decisions.len() < budget {
            let Some(key) = self.queue.pop(now.mono) else { break };
            let is_there = |pod: &&Arc<PodInfo>| {
                view.object(&key).is_some_and(|object| object.metadata().uid.as_ref() == Some(&pod.uid))
            };
            let Some(pod) = self.pods.get(&key).filter(is_there).cloned() else {
                self.queue.remove(&key);
                continue;
            };
            decisions.push(self.decide(&pod, rng));
        }
        decisions
    }

    /// A decision on a pod was carried out, or refused.
    pub fn settled(&mut self, now: Now, pod: &ObjectKey, ok: bool) {
        self.now = now.mono;
        if ok {
            // It stays assumed until the bound pod is observed: changes from before its binding may still come.
            if self.assumed.contains_key(pod) {
                self.queue.remove(pod);
            }
            return;
        }
        let Some(assumed) = self.assumed.remove(pod) else { return };
        let still_there = self.pods.get(pod).is_some_and(|known| known.uid == assumed.uid);
        if still_there {
            self.cluster.remove(pod);
            self.queue.retry(pod, now.mono);
            self.queue.wake_all(now.mono);
        }
    }

    /// When [`Self::schedule`] has something to do: the origin means at once.
    pub fn next_wakeup(&self) -> Option<Instant> {
        if self.sweep.is_over() { self.queue.next_wakeup() } else { Some(Instant::ZERO) }
    }

    fn take(&mut self, view: &View, object: &Arc<Object>) {
        let resource = &object.key().resource;
        if *resource == PODS {
            self.take_pod(object);
        } else if *resource == NODES {
            let Some(value) = view.decode::<Value>(object) else { return };
            if self.cluster.set_node(&object.key().name, NodeSpec::of(object, &value)) {
                self.queue.wake_all(self.now);
            }
        } else if *resource == NAMESPACES {
            self.cluster.set_namespace(&object.key().name, Some(object.metadata().labels.clone()));
        }
    }

    fn take_pod(&mut self, object: &Arc<Object>) {
        let key = object.key();
        if self.cluster.is_up_to_date(object) {
            // Most changes of a placed pod are of its status, and not worth decoding.
            return;
        }
        let pod = PodInfo::of(object, &object.fields(pod_info::FIELDS));
        let Some(pod) = pod.filter(|pod| !pod.is_terminal).map(Arc::new) else { return self.lose(key) };
        if !pod.node_name.is_empty() {
            self.queue.remove(key);
            self.pods.remove(key);
            self.assumed.remove(key);
            let node: Arc<str> = pod.node_name.as_str().into();
            let is_new = !self.cluster.is_placed(key);
            self.cluster.place(&pod, &node);
            if is_new && pod.has_pod_terms() {
                // It may be the company that another pod waits for.
                self.queue.wake_all(self.now);
            }
            return;
        }
        if self.assumed.get(key).is_some_and(|assumed| assumed.uid == pod.uid) {
            // Its binding is on the way; a status of it changes nothing.
            self.pods.insert(key.clone(), pod);
            return;
        }
        if pod.is_going || pod.is_gated || pod.scheduler_name != NAME {
            self.queue.remove(key);
            self.cluster.forget_nomination(key);
            self.pods.remove(key);
            return;
        }
        let before = self.pods.insert(key.clone(), Arc::clone(&pod));
        if !pod.nominated_node.is_empty() {
            self.cluster.nominate(&pod, Some(&pod.nominated_node.as_str().into()));
        }
        // A pod's own status is written by its decisions: only another wish is worth another look.
        let wishes = |pod: &PodInfo| PodInfo { nominated_node: String::new(), ..pod.clone() };
        if before.is_none_or(|before| wishes(&before) != wishes(&pod)) {
            self.queue.add(key, pod.priority, self.now);
        }
    }

    fn lose(&mut self, key: &ObjectKey) {
        if key.resource == NODES {
            self.cluster.remove_node(&key.name);
        } else if key.resource == NAMESPACES {
            self.cluster.set_namespace(&key.name, None);
        } else if key.resource == PODS {
            self.pods.remove(key);
            self.assumed.remove(key);
            self.queue.remove(key);
            self.cluster.forget_nomination(key);
            if self.cluster.remove(key).is_some() {
                self.queue.wake_all(self.now);
            }
        }
    }

    fn decide(&mut self, pod: &Arc<PodInfo>, rng: &mut Rng) -> Decision {
        let (key, uid) = (pod.key.clone(), pod.uid.clone());
        if self.cluster.nodes().len() == 0 {
            self.queue.put_aside(&key, self.now);
            let message = reasons::NO_NODES.to_owned();
            return Decision::Unschedulable { pod: key, uid, message, nominated: None, victims: Vec::new() };
        }
        let refusals = match self.find(pod, rng) {
            Ok(node) => {
                self.cluster.place(pod, &node);
                self.assumed.insert(key.clone(), Arc::clone(pod));
                return Decision::Bind { pod: key, uid, node: node.to_string() };
            }
            Err(refusals) => refusals,
        };
        let reasons = refusals.iter().flat_map(|(_, refusal)| &refusal.reasons).map(String::as_str);
        let mut message = summary(refusals.len(), reasons);
        let (nominated, victims) = match preempt(&mut self.cluster, pod, &refusals) {
            Preemption::Room { node, victims } => {
                self.cluster.nominate(pod, Some(&node));
                (Some(node.to_string()), victims)
            }
            Preemption::Hopeless(why) => {
                message = format!("{message} {why}");
                // It keeps the node that it was promised while the victims go.
                (Some(pod.nominated_node.clone()).filter(|node| !node.is_empty()), Vec::new())
            }
        };
        self.queue.put_aside(&key, self.now);
        Decision::Unschedulable { pod: key, uid, message, nominated, victims }
    }

    /// The best node, or why each of them does not do.
    fn find(&mut self, pod: &PodInfo, rng: &mut Rng) -> Result<Arc<str>, Vec<(Arc<str>, Refusal)>> {
        let around = Surroundings::of(&self.cluster, pod);
        let cluster = &self.cluster;
        let total = cluster.nodes().len();
        let enough = sample(total);
        let start = self.next_node % total.max(1);
        let (mut fit, mut refusals): (Vec<&Node>, Vec<(Arc<str>, Refusal)>) = (Vec::new(), Vec::new());
        let mut looked_at = 0;
        for node in cluster.nodes().skip(start).chain(cluster.nodes().take(start)) {
            looked_at += 1;
            match refusal(cluster, pod, &around, node) {
                None => fit.push(node),
                Some(refusal) => refusals.push((Arc::clone(&node.name), refusal)),
            }
            if fit.len() >= enough {
                break;
            }
        }
        let best = best(pod, &around, &fit, rng);
        self.next_node = (start + looked_at) % total.max(1);
        best.ok_or(refusals)
    }
}

/// The node of the highest score; of several, any.
fn best(pod: &PodInfo, around: &Surroundings, fit: &[&Node], rng: &mut Rng) -> Option<Arc<str>> {
    if let [only] = fit {
        return Some(Arc::clone(&only.name));
    }
    let scores = scores(pod, around, fit);
    let highest = scores.iter().max()?;
    let top: Vec<&&Node> =
        fit.iter().zip(&scores).filter(|(_, score)| *score == highest).map(|(node, _)| node).collect();
    let chosen = top[rng.below(top.len() as u64) as usize];
    Some(Arc::clone(&chosen.name))
}

/// How many nodes that fit are enough: all of a small cluster, down to a twentieth of a large one.
fn sample(nodes: usize) -> usize {
    if nodes < SAMPLE_MIN {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(SAMPLE_MIN)
}

#[cfg(test)]
mod tests;
