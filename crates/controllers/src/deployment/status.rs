//! Where a rollout stands: counts, conditions, and the deadline for progress.

use serde_json::{Value, json};

use super::Rollout;
use crate::Verb;
use crate::object::{condition, count, list, number, patch_status, text, time};

const PROGRESSING: &str = "Progressing";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

#[derive(Clone, Copy, Debug)]
struct Counts {
    replicas: i64,
    updated: i64,
    ready: i64,
    available: i64,
}

impl Counts {
    fn reported(value: &Value) -> Self {
        let field = |name: &str| number(&value["status"][name], 0);
        Self {
            replicas: field("replicas"),
            updated: field("updatedReplicas"),
            ready: field("readyReplicas"),
            available: field("availableReplicas"),
        }
    }

    fn is_ahead_of(self, before: Self) -> bool {
        self.updated > before.updated
            || self.replicas - self.updated < before.replicas - before.updated
            || self.ready > before.ready
            || self.available > before.available
    }
}

impl Rollout<'_> {
    fn counts(&self) -> Counts {
        let sum = |field: &str| self.sets.iter().map(|set| set.reported(field)).sum::<i64>();
        Counts {
            replicas: sum("replicas"),
            updated: self.new.map_or(0, |index| self.sets[index].reported("replicas")),
            ready: sum("readyReplicas"),
            available: sum("availableReplicas"),
        }
    }

    /// The counts and the condition `Available`, without a word on progress.
    pub(super) fn report(&mut self) {
        let counts = self.counts();
        let (status, reason, message) = if counts.available >= self.replicas - self.max_unavailable.min(self.replicas) {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        self.set_condition("Available", status, reason, message);
        let sum = |field: &str| self.sets.iter().map(|set| set.reported(field)).sum::<i64>();
        let total: i64 = self.sets.iter().map(|set| set.target).sum();
        let wanted = json!({
            "observedGeneration": count(self.object.metadata().generation),
            "replicas": count(counts.replicas),
            "updatedReplicas": count(counts.updated),
            "readyReplicas": count(counts.ready),
            "availableReplicas": count(counts.available),
            "unavailableReplicas": count((total - counts.available).max(0)),
            "terminatingReplicas": sum("terminatingReplicas"),
            "conditions": if self.conditions.is_empty() { Value::Null } else { self.conditions.clone().into() },
        });
        // A collision was written to the status already: the revision that was read is gone by then.
        if !self.actions.iter().any(|action| action.target() == self.object.key() && action.verb() == Verb::Patch) {
            self.actions.extend(patch_status(self.object, self.value, wanted));
        }
    }

    /// The status with the condition `Progressing`, and a look at the deadline.
    pub(super) fn report_progress(&mut self) {
        let now = self.context.now.wall;
        self.copy_failure();
        let Some(deadline) = self.deadline() else {
            self.conditions.retain(|condition| condition["type"] != PROGRESSING);
            return self.report();
        };
        let (counts, before) = (self.counts(), Counts::reported(self.value));
        let current = condition(&self.conditions, PROGRESSING).cloned();
        let reason = current.as_ref().map_or("", |condition| text(&condition["reason"]));
        let settled = counts.replicas == counts.updated && reason == NEW_SET_AVAILABLE;
        let complete = counts.updated == self.replicas
            && counts.replicas == self.replicas
            && counts.available == self.replicas
            && self.sets.iter().all(|set| set.target == set.replicas);
        let last_progress = current.as_ref().and_then(|condition| time(&condition["lastUpdateTime"]));
        let overdue = last_progress.is_some_and(|last| now >= last + deadline);
        let subject = self.subject();
        if !settled {
            if complete {
                self.set_condition(
                    PROGRESSING,
                    "True",
                    NEW_SET_AVAILABLE,
                    &format!("{subject} has successfully progressed."),
                );
            } else if counts.is_ahead_of(before) {
                self.conditions.retain(|condition| condition["type"] != PROGRESSING);
                self.set_condition(PROGRESSING, "True", "ReplicaSetUpdated", &format!("{subject} is progressing."));
                let same_status = current.as_ref().filter(|condition| condition["status"] == "True");
                if let (Some(old), Some(new)) = (same_status, self.conditions.last_mut()) {
                    new["lastTransitionTime"] = old["lastTransitionTime"].clone();
                }
            } else if reason == TIMED_OUT || (overdue && reason != NEW_SET_AVAILABLE) {
                self.set_condition(PROGRESSING, "False", TIMED_OUT, &format!("{subject} has timed out progressing."));
            } else if let Some(last) = last_progress {
                self.outcome.requeue_after = Some((last + deadline).saturating_since(now));
            }
        }
        self.report();
    }

    /// A set was made for the template.
    pub(super) fn note_new_set(&mut self, name: &str) {
        if self.deadline().is_some() {
            let message = format!("Created new replica set {name:?}");
            self.set_condition(PROGRESSING, "True", "NewReplicaSetCreated", &message);
        }
    }

    /// A set of an earlier revision has the template.
    pub(super) fn note_found_set(&mut self) {
        if let Some(index) = self.new
            && self.deadline().is_some()
            && condition(&self.conditions, PROGRESSING).is_none()
        {
            let message = format!("Found new replica set {:?}", self.sets[index].object.key().name);
            self.set_condition(PROGRESSING, "True", "FoundNewReplicaSet", &message);
        }
    }

    /// Pausing stops the clock of the deadline, resuming starts it.
    pub(super) fn note_pause(&mut self) {
        if self.deadline().is_none() {
            return;
        }
        let reason = condition(&self.conditions, PROGRESSING).map_or("", |condition| text(&condition["reason"]));
        if reason == TIMED_OUT {
            return;
        }
        if self.is_paused() && reason != PAUSED {
            self.set_condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused");
        } else if !self.is_paused() && reason == PAUSED {
            self.set_condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
        }
    }

    /// `ReplicaFailure` is the newest set's, or else any set's.
    fn copy_failure(&mut self) {
        let newest = self.new.map(|index| &self.sets[index]);
        let failure = newest
            .into_iter()
            .chain(&self.sets)
            .find_map(|set| condition(list(&set.value["status"]["conditions"]), "ReplicaFailure"))
            .cloned();
        match failure {
            Some(failure) => {
                let [status, reason, message] =
                    ["status", "reason", "message"].map(|field| text(&failure[field]).to_owned());
                self.set_condition("ReplicaFailure", &status, &reason, &message);
            }
            None => self.conditions.retain(|condition| condition["type"] != "ReplicaFailure"),
        }
    }

    /// Sets a condition unless its status and reason are so already; deployments' conditions have a time of update, too.
    fn set_condition(&mut self, r#type: &str, status: &str, reason: &str, message: &str) {
        let now = self.context.now.wall.rfc3339();
        let old = condition(&self.conditions, r#type).cloned();
        if old.as_ref().is_some_and(|old| old["status"] == status && old["reason"] == reason) {
            return;
        }
        let transition = old
            .filter(|old| old["status"] == status)
            .map_or(Value::from(now.as_str()), |old| old["lastTransitionTime"].clone());
        self.conditions.retain(|condition| condition["type"] != r#type);
        self.conditions.push(json!({
            "type": r#type, "status": status, "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": transition,
        }));
    }
}
