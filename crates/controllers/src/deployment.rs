//! Deployments: ReplicaSets that are rolled from one template to the next.
//!
//! A reconcile looks at the deployment and its sets, moves the rollout one step (never more: the next step depends on what
//! becomes of this one), and says where it stands.
//! The rules are those of <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/>.

use std::sync::Arc;

use coracle_api::resources::{DEPLOYMENT, DEPLOYMENTS, PODS, REPLICA_SETS};
use coracle_api::{Object, ObjectKey};
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{
    controller_key, controller_reference, list, number, owner_references, patch, read, selecting, selector_of, text,
    value_of,
};
use crate::{Action, Context, Controller, EventRecord, EventType, Outcome, Watch};

mod revision;
mod rollout;
mod scale;
mod status;

/// The Deployment controller.
#[derive(Debug, Default)]
pub struct DeploymentController;

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own(DEPLOYMENTS),
            Watch::of(REPLICA_SETS, deployments_of_set),
            Watch::of(PODS, recreating_deployment_of_pod),
        ]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let Some((object, value)) = read(context.view, key) else { return Outcome::default() };
        if selector_of(&value).is_everything() {
            return refuse_to_select_everything(&object, &value);
        }
        let (sets, claims) = claim(context.view, &object, &value);
        if !claims.is_empty() {
            return claims.into();
        }
        let mut rollout = Rollout::new(context, &object, &value, sets);
        rollout.step();
        rollout.outcome()
    }
}

fn deployments_of_set(view: &View, set: &Object) -> Vec<ObjectKey> {
    if set.metadata().controller().is_some() {
        return controller_key(set, &DEPLOYMENTS, "Deployment").into_iter().collect();
    }
    if set.metadata().labels.is_empty() { Vec::new() } else { selecting(view, &DEPLOYMENTS, set) }
}

/// Only `Recreate` waits for pods; every other strategy goes by what the sets say.
fn recreating_deployment_of_pod(view: &View, pod: &Object) -> Vec<ObjectKey> {
    let recreating = || {
        let set = view.by_uid(&pod.metadata().controller()?.uid)?;
        let key = controller_key(set, &DEPLOYMENTS, "Deployment")?;
        let deployment = value_of(view, view.object(&key)?)?;
        (deployment["spec"]["strategy"]["type"] == "Recreate").then_some(key)
    };
    recreating().into_iter().collect()
}

fn refuse_to_select_everything(object: &Object, value: &Value) -> Outcome {
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    let uid = object.metadata().uid.as_ref();
    let mut actions =
        vec![Action::Event(EventRecord::new(object.key(), uid, EventType::Warning, "SelectingAll", message))];
    if number(&value["status"]["observedGeneration"], 0) < object.metadata().generation {
        actions.push(patch(
            object,
            Some("status"),
            json!({"status": {"observedGeneration": object.metadata().generation}}),
        ));
    }
    actions.into()
}

/// The deployment's sets, oldest first; strays that its selector matches are adopted, sets that no longer match released.
fn claim(view: &View, object: &Object, value: &Value) -> (Vec<ReplicaSet>, Vec<Action>) {
    let selector = selector_of(value);
    let own = &object.metadata().uid;
    let going = object.metadata().deletion_timestamp.is_some();
    let (mut sets, mut claims) = (Vec::new(), Vec::new());
    for set in view.list(&REPLICA_SETS, Some(&object.key().namespace)) {
        let metadata = set.metadata();
        let matches = selector.matches(&metadata.labels);
        let without_own = || owner_references(set, |reference| Some(&reference.uid) != own.as_ref(), None);
        match metadata.controller() {
            Some(reference) if Some(&reference.uid) != own.as_ref() => {}
            Some(_) if matches => sets.extend(ReplicaSet::of(view, set)),
            Some(_) => claims.push(patch(set, None, json!({"metadata": {"ownerReferences": without_own()}}))),
            None if !matches || going || metadata.deletion_timestamp.is_some() => {}
            None => {
                let own = controller_reference(object, &DEPLOYMENT);
                let references = owner_references(set, |_| true, Some(own));
                claims.push(patch(set, None, json!({"metadata": {"ownerReferences": references}})));
            }
        }
    }
    sets.sort_by_key(|set| (set.object.metadata().creation_timestamp, set.object.key().clone()));
    (sets, claims)
}

/// A set of the deployment.
#[derive(Clone, Debug)]
struct ReplicaSet {
    object: Arc<Object>,
    value: Arc<Value>,
    /// `spec.replicas` as stored.
    replicas: i64,
    /// `spec.replicas` as this reconcile wants it.
    target: i64,
}

impl ReplicaSet {
    fn of(view: &View, object: &Arc<Object>) -> Option<Self> {
        let value = value_of(view, object)?;
        let replicas = number(&value["spec"]["replicas"], 1);
        Some(Self { object: Arc::clone(object), value, replicas, target: replicas })
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.value["metadata"]["annotations"][name].as_str()
    }

    fn reported(&self, field: &str) -> i64 {
        number(&self.value["status"][field], 0)
    }

    fn available(&self) -> i64 {
        self.reported("availableReplicas")
    }
}

/// One reconcile of a deployment.
#[derive(Debug)]
struct Rollout<'a> {
    context: Context<'a>,
    object: &'a Object,
    value: &'a Value,
    /// Every set, oldest first.
    sets: Vec<ReplicaSet>,
    /// Which of the sets has the deployment's template.
    new: Option<usize>,
    replicas: i64,
    max_surge: i64,
    max_unavailable: i64,
    conditions: Vec<Value>,
    actions: Vec<Action>,
    /// The patch of the deployment's own revision, the last of all.
    numbering: Option<Action>,
    outcome: Outcome,
}

impl<'a> Rollout<'a> {
    fn new(context: Context<'a>, object: &'a Object, value: &'a Value, sets: Vec<ReplicaSet>) -> Self {
        let replicas = number(&value["spec"]["replicas"], 1);
        let (max_surge, max_unavailable) = rollout::fenceposts(value, replicas);
        let new = sets.iter().position(|set| revision::same_template(&set.value, value));
        let conditions = list(&value["status"]["conditions"]).to_vec();
        Self {
            context,
            object,
            value,
            sets,
            new,
            replicas,
            max_surge,
            max_unavailable,
            conditions,
            actions: Vec::new(),
            numbering: None,
            outcome: Outcome::default(),
        }
    }

    /// One step of the rollout, and the status behind it.
    fn step(&mut self) {
        if self.object.metadata().deletion_timestamp.is_some() {
            return self.report();
        }
        self.note_pause();
        if self.is_paused() || self.was_scaled() {
            self.keep_revisions(false);
            self.scale();
            if self.is_paused() {
                self.clean_up();
            }
            self.apply_targets();
            return self.report();
        }
        if self.value["spec"]["strategy"]["type"] == "Recreate" { self.recreate() } else { self.roll() }
    }

    fn is_paused(&self) -> bool {
        self.value["spec"]["paused"] == true
    }

    /// A set with pods that was sized for another number of replicas.
    fn was_scaled(&self) -> bool {
        let wanted = self.replicas;
        self.sets.iter().filter(|set| set.replicas > 0).any(|set| {
            set.annotation(revision::DESIRED).and_then(|text| text.parse::<i64>().ok()).is_some_and(|n| n != wanted)
        })
    }

    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |index| Some(*index) != new)
    }

    /// The pods that all sets are to have.
    fn total(&self) -> i64 {
        self.sets.iter().map(|set| set.target).sum()
    }

    /// Writes the sizes that differ, with the annotations that later tell a scaled deployment from a rolling one.
    fn apply_targets(&mut self) {
        let mut actions = Vec::new();
        for set in &self.sets {
            let annotations = self.size_annotations();
            let stale = set.target > 0
                && annotations
                    .as_object()
                    .into_iter()
                    .flatten()
                    .any(|(name, value)| set.annotation(name) != value.as_str());
            if set.target == set.replicas && !stale {
                continue;
            }
            let body = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": set.target}});
            actions.push(patch(&set.object, None, body));
            if set.target != set.replicas {
                actions.push(self.scaling_event(&set.object.key().name, set.replicas, set.target));
            }
        }
        self.actions.extend(actions);
    }

    fn size_annotations(&self) -> Value {
        let max = self.replicas + self.max_surge;
        json!({revision::DESIRED: self.replicas.to_string(), revision::MAX: max.to_string()})
    }

    fn scaling_event(&self, set: &str, from: i64, to: i64) -> Action {
        let direction = if to > from { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        let uid = self.object.metadata().uid.as_ref();
        Action::Event(EventRecord::new(self.object.key(), uid, EventType::Normal, "ScalingReplicaSet", message))
    }

    fn deadline(&self) -> Option<std::time::Duration> {
        let seconds = u64::try_from(self.value["spec"]["progressDeadlineSeconds"].as_i64()?).ok()?;
        // The largest value means none.
        (seconds != i32::MAX as u64).then(|| std::time::Duration::from_secs(seconds))
    }

    fn outcome(mut self) -> Outcome {
        self.outcome.actions = self.actions;
        self.outcome.actions.extend(self.numbering);
        self.outcome
    }

    /// The name of the set that conditions speak of, or of the deployment before there is one.
    fn subject(&self) -> String {
        match self.new {
            Some(index) => format!("ReplicaSet {:?}", text(&self.sets[index].value["metadata"]["name"])),
            None => format!("Deployment {:?}", self.object.key().name),
        }
    }
}

#[cfg(test)]
mod tests;
