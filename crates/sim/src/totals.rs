//! How often what happened in a run: a swarm that never meets something proves nothing about it.

use std::fmt;

/// Something that a run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// Operations on registers that were acknowledged.
    Acknowledged,
    /// Operations on registers whose outcome is not known.
    Unknown,
    /// Terms that had a leader.
    Elections,
    /// Members whose process was killed.
    Crashes,
    /// Batches that a crash met in the middle of being written.
    TornWrites,
    /// Batches behind these, of which nothing was written.
    LostWrites,
    /// Disks that became slow for a while.
    SlowDisks,
    /// Partitions made, one-way ones among them.
    Partitions,
    /// Messages between members that were lost.
    LostMessages,
    /// Messages between members that came twice.
    DoubledMessages,
    /// States of other members installed.
    Snapshots,
    /// Changes of the group, as each member applied them.
    Memberships,
    /// Members that stopped because they were removed.
    Removals,
    /// Clocks set.
    ClockJumps,
    /// Processes that stood still for a while.
    Pauses,
    /// Nodes that lost their power, their agent or the network.
    NodeFaults,
    /// Containers started.
    Containers,
    /// Watches begun again where an earlier one ended.
    Rewatches,
    /// Times that a quorum was healed and the rest was not.
    Quorums,
    /// Clusters that were lost and restored from a backup.
    Restores,
}

/// Every class, with what its number is called.
const NAMES: [(Class, &str); 20] = [
    (Class::Acknowledged, "acknowledged"),
    (Class::Unknown, "unknown"),
    (Class::Elections, "elections"),
    (Class::Crashes, "crashes"),
    (Class::TornWrites, "torn writes"),
    (Class::LostWrites, "lost writes"),
    (Class::SlowDisks, "slow disks"),
    (Class::Partitions, "partitions"),
    (Class::LostMessages, "lost messages"),
    (Class::DoubledMessages, "doubled messages"),
    (Class::Snapshots, "snapshots installed"),
    (Class::Memberships, "membership changes"),
    (Class::Removals, "removals"),
    (Class::ClockJumps, "clock jumps"),
    (Class::Pauses, "pauses"),
    (Class::NodeFaults, "node faults"),
    (Class::Containers, "containers started"),
    (Class::Rewatches, "watches resumed"),
    (Class::Quorums, "quorums healed"),
    (Class::Restores, "backups restored"),
];

/// How often what happened, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([u64; NAMES.len()]);

impl Totals {
    /// How often something happened.
    pub fn of(&self, class: Class) -> u64 {
        self.0[class as usize]
    }

    /// It happened so often more.
    pub(crate) fn add(&mut self, class: Class, times: u64) {
        self.0[class as usize] += times;
    }

    /// Takes over what is otherwise counted in a history.
    pub(crate) fn keep_outcomes(&mut self, other: &Self) {
        for class in [Class::Acknowledged, Class::Unknown] {
            self.0[class as usize] = other.of(class);
        }
    }

    /// The classes of which there was nothing.
    pub fn missing(&self) -> Vec<&'static str> {
        NAMES.iter().filter(|(class, _)| self.of(*class) == 0).map(|(_, name)| *name).collect()
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (class, _) in NAMES {
            self.add(class, other.of(class));
        }
        self
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = NAMES.iter().map(|(class, name)| format!("{} {name}", self.of(*class))).collect();
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_own_place() {
        for (place, (class, _)) in NAMES.iter().enumerate() {
            assert_eq!(*class as usize, place, "{class:?}");
        }
    }

    #[test]
    fn sums_and_what_is_missing() {
        let mut totals = Totals::default();
        totals.add(Class::Crashes, 2);
        let both = totals.plus(&totals);
        assert_eq!(both.of(Class::Crashes), 4);
        assert!(!both.missing().contains(&"crashes") && both.missing().contains(&"elections"));
    }
}
