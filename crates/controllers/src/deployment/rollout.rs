//! The two ways from one template to the next: rolling, and all at once.

use serde_json::Value;

use super::{Rollout, revision};
use crate::object::number;

/// `maxSurge` and `maxUnavailable` as numbers of pods: a percentage of the first rounds up, of the second down,
/// and at least one pod may be unavailable when none may be too many.
pub(super) fn fenceposts(deployment: &Value, replicas: i64) -> (i64, i64) {
    let strategy = &deployment["spec"]["strategy"];
    if strategy["type"] == "Recreate" {
        return (0, 0);
    }
    let rolling = &strategy["rollingUpdate"];
    let share = |value: &Value, up: bool| match value {
        Value::Number(number) => number.as_i64().unwrap_or(0),
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent.saturating_mul(replicas);
            if up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) }
        }
        _ if up => (25 * replicas + 99).div_euclid(100),
        _ => (25 * replicas).div_euclid(100),
    };
    let (surge, unavailable) = (share(&rolling["maxSurge"], true), share(&rolling["maxUnavailable"], false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

impl Rollout<'_> {
    /// How many replicas the new set gets, from how many it has.
    pub(super) fn size_of_new_set(&self, current: i64) -> i64 {
        if self.value["spec"]["strategy"]["type"] == "Recreate" {
            return self.replicas;
        }
        let room = self.replicas + self.max_surge - self.total();
        if room <= 0 { current } else { current + room.min(self.replicas - current).max(0) }
    }

    /// A rolling update: up with the new set if there is room, else down with the old ones as far as availability allows.
    pub(super) fn roll(&mut self) {
        let existed = self.keep_revisions(true);
        if existed && self.actions.is_empty() && !self.grow() {
            self.shrink();
        }
        self.finish(existed);
    }

    /// `Recreate`: first every old pod goes, then the new set comes.
    pub(super) fn recreate(&mut self) {
        let old_has_pods = self.old().any(|index| self.sets[index].replicas > 0);
        if old_has_pods {
            self.keep_revisions(false);
            for index in self.old() {
                self.sets[index].target = 0;
            }
            return self.finish(true);
        }
        if self.old().any(|index| revision::runs(self.context, &self.sets[index])) {
            return self.finish(true);
        }
        let existed = self.keep_revisions(true);
        if existed && self.actions.is_empty() {
            self.grow();
        }
        self.finish(existed);
    }

    fn finish(&mut self, existed: bool) {
        self.apply_targets();
        if existed && self.is_complete() {
            self.clean_up();
        }
        self.report_progress();
    }

    /// Sets the size of the new set; whether it changed.
    fn grow(&mut self) -> bool {
        let Some(index) = self.new else { return false };
        let current = self.sets[index].replicas;
        let target = if current > self.replicas { self.replicas } else { self.size_of_new_set(current) };
        self.sets[index].target = target;
        target != current
    }

    /// Takes replicas off the old sets, the ones that do not work first, and keeps enough available.
    fn shrink(&mut self) {
        let minimum = self.replicas - self.max_unavailable;
        let (new_size, new_available) =
            self.new.map_or((0, 0), |index| (self.sets[index].replicas, self.sets[index].available()));
        let mut may_go = self.total() - minimum - (new_size - new_available);
        if may_go <= 0 {
            return;
        }
        for index in self.old() {
            let set = &mut self.sets[index];
            let broken = (set.target - set.available()).max(0).min(may_go);
            set.target -= broken;
            may_go -= broken;
        }
        let available: i64 = self.sets.iter().map(super::ReplicaSet::available).sum();
        let mut surplus = available - minimum;
        for index in self.old() {
            let set = &mut self.sets[index];
            let taken = set.target.min(surplus).max(0);
            set.target -= taken;
            surplus -= taken;
        }
    }

    /// Whether the rollout has arrived, going by the sets as they are.
    pub(super) fn is_complete(&self) -> bool {
        let sum = |field: &str| self.sets.iter().map(|set| set.reported(field)).sum::<i64>();
        let updated = self.new.map_or(0, |index| self.sets[index].reported("replicas"));
        let untouched = self.sets.iter().all(|set| set.target == set.replicas);
        untouched
            && updated == self.replicas
            && sum("replicas") == self.replicas
            && sum("availableReplicas") == self.replicas
            && number(&self.value["status"]["observedGeneration"], 0) >= self.object.metadata().generation
    }
}
