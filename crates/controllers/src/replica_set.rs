//! ReplicaSets: as many pods as asked for, no more and no fewer.
//!
//! Pods are created in batches that double as long as nothing is refused, so that a template that cannot run costs one request
//! at a time, and 50 at most at once; events of created and deleted pods follow when the API server has done it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_api::resources::{PODS, REPLICA_SET, REPLICA_SETS};
use coracle_api::{Object, ObjectKey};
use coracle_base::Rng;
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{
    controller_key, controller_reference, delete, number, owner_references, patch, read, selecting, selector_of,
};
use crate::pod::PodEntry;
use crate::{Action, Context, Controller, EventRecord, EventType, Failure, Outcome, Verb, Watch};

mod rank;
mod status;

/// How many pods are created or deleted at once: with their events, what the manager takes of a key.
const BATCH_MAX: usize = 50;
/// How long a set rests per pod between two looks at all of its pods: it bounds the share of time that a large set takes.
const REST_PER_POD: Duration = Duration::from_micros(20);

/// What is remembered of a set between reconciles.
#[derive(Debug, Default)]
struct Progress {
    /// How many pods the next batch creates.
    batch: usize,
    /// Pods that were created or deleted, for the events.
    created: BTreeSet<ObjectKey>,
    deleted: BTreeSet<ObjectKey>,
    /// What was refused last, as `FailedCreate` or `FailedDelete` and a message.
    failure: Option<(&'static str, String)>,
    /// Whether the refusal still wants an event.
    failure_is_news: bool,
}

/// The ReplicaSet controller.
#[derive(Debug)]
pub struct ReplicaSetController {
    rng: Rng,
    progress: BTreeMap<ObjectKey, Progress>,
}

impl ReplicaSetController {
    /// A controller that draws pod names from `rng`.
    pub fn new(rng: Rng) -> Self {
        Self { rng, progress: BTreeMap::new() }
    }
}

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own(REPLICA_SETS), Watch::of(PODS, sets_of_pod)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let Some((object, value)) = read(context.view, key) else {
            self.progress.remove(key);
            return Outcome::default();
        };
        let progress = self.progress.entry(key.clone()).or_default();
        let set = Set { object: &object, value: &value };
        let mut actions = Vec::new();
        let pods = set.claim(context.view, &mut actions);
        if !actions.is_empty() {
            return actions.into();
        }
        progress.report(context.view, &object, &mut actions);
        let active: Vec<PodEntry> = pods.iter().filter(|entry| entry.is_active()).cloned().collect();
        let scaled = object.metadata().deletion_timestamp.is_none()
            && set.scale(context, &active, progress, &mut self.rng, &mut actions);
        let (status, requeue_after) = status::of(context, &object, &value, &active, &pods, progress.failure.as_ref());
        actions.extend(status);
        let rest = if scaled { Duration::ZERO } else { REST_PER_POD * pods.len() as u32 };
        Outcome { actions, requeue_after, rest }
    }

    fn refused(&mut self, key: &ObjectKey, failures: &[Failure]) {
        let Some(progress) = self.progress.get_mut(key) else { return };
        for failure in failures.iter().filter(|failure| failure.target.resource == PODS) {
            let (reason, what) = match failure.verb {
                Verb::Create => ("FailedCreate", "creating"),
                Verb::Delete => ("FailedDelete", "deleting"),
                _ => continue,
            };
            progress.created.remove(&failure.target);
            progress.deleted.remove(&failure.target);
            progress.batch = 0;
            progress.failure = Some((reason, format!("Error {what}: {}", failure.status.message)));
            progress.failure_is_news = true;
        }
    }
}

fn sets_of_pod(view: &View, pod: &Object) -> Vec<ObjectKey> {
    if pod.metadata().controller().is_some() {
        return controller_key(pod, &REPLICA_SETS, "ReplicaSet").into_iter().collect();
    }
    if pod.metadata().labels.is_empty() { Vec::new() } else { selecting(view, &REPLICA_SETS, pod) }
}

impl Progress {
    /// Events of what was done or refused since the last time.
    fn report(&mut self, view: &View, set: &Object, actions: &mut Vec<Action>) {
        let uid = set.metadata().uid.as_ref();
        let mut event = |event_type, reason, message: String| {
            actions.push(Action::Event(EventRecord::new(set.key(), uid, event_type, reason, message)));
        };
        for pod in std::mem::take(&mut self.created) {
            if view.object(&pod).is_some() {
                event(EventType::Normal, "SuccessfulCreate", format!("Created pod: {}", pod.name));
            }
        }
        for pod in std::mem::take(&mut self.deleted) {
            event(EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name));
        }
        if let Some((reason, message)) = self.failure.as_ref().filter(|_| self.failure_is_news) {
            event(EventType::Warning, reason, message.clone());
            self.failure_is_news = false;
        }
    }
}

#[derive(Debug)]
struct Set<'a> {
    object: &'a Object,
    value: &'a Value,
}

impl Set<'_> {
    /// The set's pods, ended and going ones too; strays are adopted and pods that no longer match released.
    fn claim(&self, view: &View, actions: &mut Vec<Action>) -> Vec<PodEntry> {
        let selector = selector_of(self.value);
        let own = &self.object.metadata().uid;
        let set_is_going = self.object.metadata().deletion_timestamp.is_some();
        let mut pods = Vec::new();
        for object in view.list(&PODS, Some(&self.object.key().namespace)) {
            let metadata = object.metadata();
            let matches = selector.matches(&metadata.labels);
            match metadata.controller() {
                Some(reference) if Some(&reference.uid) != own.as_ref() => {}
                Some(_) if matches => pods.extend(PodEntry::of(view, object)),
                Some(_) => actions.push(self.release(object)),
                None if !matches || set_is_going || metadata.deletion_timestamp.is_some() => {}
                None => {
                    if PodEntry::of(view, object).is_some_and(|entry| entry.is_active()) {
                        actions.push(self.adopt(object));
                    }
                }
            }
        }
        pods
    }

    fn adopt(&self, pod: &Object) -> Action {
        let own = controller_reference(self.object, &REPLICA_SET);
        let references = owner_references(pod, |_| true, Some(own));
        patch(pod, None, json!({"metadata": {"ownerReferences": references}}))
    }

    fn release(&self, pod: &Object) -> Action {
        let own = self.object.metadata().uid.as_ref();
        let references = owner_references(pod, |reference| Some(&reference.uid) != own, None);
        patch(pod, None, json!({"metadata": {"ownerReferences": references}}))
    }

    /// Creates what lacks or deletes what is too much; whether there was anything to do.
    fn scale(
        &self,
        context: Context<'_>,
        active: &[PodEntry],
        progress: &mut Progress,
        rng: &mut Rng,
        actions: &mut Vec<Action>,
    ) -> bool {
        let wanted = usize::try_from(number(&self.value["spec"]["replicas"], 1)).unwrap_or(0);
        if active.len() == wanted {
            progress.batch = 0;
            progress.failure = None;
            return false;
        }
        if active.len() < wanted {
            progress.batch = (progress.batch * 2).clamp(1, BATCH_MAX);
            for _ in 0..progress.batch.min(wanted - active.len()) {
                let (key, object) = self.new_pod(rng);
                progress.created.insert(key.clone());
                actions.push(Action::Create { key, object });
            }
            // A refusal is retried one pod at a time; what succeeds now clears it.
            if progress.batch > 1 {
                progress.failure = None;
            }
            return true;
        }
        for entry in rank::first_to_go(context, self.object, active, active.len() - wanted).into_iter().take(BATCH_MAX)
        {
            progress.deleted.insert(entry.object.key().clone());
            actions.push(delete(&entry.object, None));
        }
        true
    }

    /// A pod from the template. The name is drawn here, so that its event can name it.
    fn new_pod(&self, rng: &mut Rng) -> (ObjectKey, Value) {
        let (namespace, set) = (&self.object.key().namespace, &self.object.key().name);
        // A name has 63 characters where it becomes a host name; generated names are cut to leave room for their end.
        let prefix: String = format!("{set}-").chars().take(58).collect();
        let name = format!("{prefix}{}", rng.name_suffix(5));
        let template = &self.value["spec"]["template"];
        let mut metadata = json!({
            "generateName": format!("{set}-"),
            "name": name,
            "namespace": &**namespace,
            "ownerReferences": [controller_reference(self.object, &REPLICA_SET)],
        });
        for field in ["labels", "annotations", "finalizers"] {
            if !template["metadata"][field].is_null() {
                metadata[field] = template["metadata"][field].clone();
            }
        }
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": template["spec"]});
        (ObjectKey::new(PODS, namespace, &name), pod)
    }
}

#[cfg(test)]
mod tests;
