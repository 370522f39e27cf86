//! A deployment whose size changed, or that is paused: its sets grow and shrink in proportion, and no template moves.

use std::cmp::Reverse;

use super::{Rollout, revision};

impl Rollout<'_> {
    /// Sizes the sets for the deployment's replicas.
    pub(super) fn scale(&mut self) {
        if !self.actions.is_empty() {
            // A set's annotations are being written: its size follows when they are.
            return;
        }
        let active: Vec<usize> = (0..self.sets.len()).filter(|index| self.sets[*index].replicas > 0).collect();
        match active.as_slice() {
            [] => {
                let latest = self.new.or_else(|| self.old().last());
                if let Some(index) = latest {
                    self.sets[index].target = self.replicas;
                }
            }
            [one] => self.sets[*one].target = self.replicas,
            _ if self.is_saturated() => {
                for index in self.old() {
                    self.sets[index].target = 0;
                }
            }
            _ if self.value["spec"]["strategy"]["type"] != "Recreate" => self.scale_in_proportion(active),
            _ => {}
        }
    }

    /// The new set has, and has available, all that the deployment wants.
    fn is_saturated(&self) -> bool {
        let Some(index) = self.new else { return false };
        let set = &self.sets[index];
        let desired = set.annotation(revision::DESIRED).and_then(|text| text.parse().ok());
        set.replicas == self.replicas && desired == Some(self.replicas) && set.available() == self.replicas
    }

    fn scale_in_proportion(&mut self, mut active: Vec<usize>) {
        let allowed = if self.replicas > 0 { self.replicas + self.max_surge } else { 0 };
        let change = allowed - active.iter().map(|index| self.sets[*index].replicas).sum::<i64>();
        // The largest first; of equal ones the newest grows and the oldest shrinks first. Sets are in order of age.
        active.sort_by_key(|index| {
            let age = if change > 0 { -(*index as i64) } else { *index as i64 };
            (Reverse(self.sets[*index].replicas), age)
        });
        let mut changed = 0;
        for index in &active {
            let share = self.share(*index, change, changed);
            self.sets[*index].target += share;
            changed += share;
        }
        if let Some(largest) = active.first() {
            let set = &mut self.sets[*largest];
            set.target = (set.target + change - changed).max(0);
        }
    }

    /// A set's part of a change, of which `changed` is given away already.
    fn share(&self, index: usize, change: i64, changed: i64) -> i64 {
        let set = &self.sets[index];
        if change == 0 || change == changed {
            return 0;
        }
        let remaining = change - changed;
        let fraction = if self.replicas == 0 {
            -set.replicas
        } else {
            let before = set.annotation(revision::MAX).and_then(|text| text.parse::<i64>().ok()).filter(|n| *n > 0);
            let before = before.unwrap_or_else(|| self.sets.iter().map(|set| set.replicas).sum::<i64>().max(1));
            let exact = (set.replicas * (self.replicas + self.max_surge)) as f64 / before as f64;
            exact.round() as i64 - set.replicas
        };
        if change > 0 { fraction.min(remaining) } else { fraction.max(remaining) }
    }
}
