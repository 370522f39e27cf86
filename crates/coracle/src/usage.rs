//! What the nodes of this process use: the last two readings of each, and the rates between them. It measures the machine, and decides
//! nothing.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_apiserver::{ContainerRates, NodeUsage, Rates};
use coracle_base::Now;
use coracle_node::Heartbeat;
use coracle_node::runtime::Usage;

/// What `/proc/stat` counts in a second: `USER_HZ`, the same on every Linux.
const TICKS: u64 = 100;

/// The readings of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Book {
    nodes: Mutex<BTreeMap<String, Page>>,
}

/// A node's.
#[derive(Debug)]
struct Page {
    /// When the next reading of its containers was asked for.
    asked: Now,
    last: Option<Reading>,
    rates: Option<NodeUsage>,
}

#[derive(Debug)]
struct Reading {
    at: Now,
    machine: Option<Usage>,
    containers: BTreeMap<String, Usage>,
}

impl Book {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Page>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's heartbeat: it carries what its containers used when the one before was sent. `machine` is what the machine uses, where
    /// that is to be the node's use; otherwise it is the sum of its containers'.
    pub(crate) fn record(&self, node: &str, now: Now, heartbeat: &Heartbeat, machine: Option<Usage>) {
        let mut nodes = self.nodes();
        let Some(page) = nodes.get_mut(node) else {
            nodes.insert(node.to_owned(), Page { asked: now, last: None, rates: None });
            return;
        };
        let at = std::mem::replace(&mut page.asked, now);
        let reading = Reading { at, machine, containers: heartbeat.usage.clone() };
        if let Some(last) = &page.last {
            page.rates = rates(node, last, &reading).or(page.rates.take());
        }
        page.last = Some(reading);
    }

    /// A node is gone.
    pub(crate) fn forget(&self, node: &str) {
        self.nodes().remove(node);
    }

    /// What is known of all nodes.
    pub(crate) fn all(&self) -> Vec<NodeUsage> {
        self.nodes().values().filter_map(|page| page.rates.clone()).collect()
    }
}

fn rates(node: &str, last: &Reading, now: &Reading) -> Option<NodeUsage> {
    let window = now.at.mono.saturating_since(last.at.mono);
    if window.is_zero() {
        return None;
    }
    let between = |before: &Usage, after: &Usage| Rates {
        cpu_nanos: a_second(after.cpu_nanos.saturating_sub(before.cpu_nanos), window),
        memory_bytes: after.memory_bytes,
    };
    let containers: Vec<ContainerRates> = now
        .containers
        .iter()
        .filter_map(|(id, after)| {
            // `<pod>/<container>/<instance>`: one that was started again begins anew.
            let (pod, name) = id.rsplit_once('/')?.0.rsplit_once('/')?;
            let rates = between(last.containers.get(id)?, after);
            Some(ContainerRates { pod: pod.into(), name: name.to_owned(), rates })
        })
        .collect();
    let whole = match (&last.machine, &now.machine) {
        (Some(before), Some(after)) => between(before, after),
        _ => Rates {
            cpu_nanos: containers.iter().map(|container| container.rates.cpu_nanos).sum(),
            memory_bytes: containers.iter().map(|container| container.rates.memory_bytes).sum(),
        },
    };
    Some(NodeUsage { node: node.to_owned(), at: now.at.wall, window, rates: whole, containers })
}

fn a_second(nanos: u64, window: Duration) -> u64 {
    let rate = u128::from(nanos) * 1_000_000_000 / window.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// What the machine has used of its processors since it started, and of its memory now without what could be had back at once; `None` where
/// the system does not say.
pub(crate) fn machine() -> Option<Usage> {
    let (stat, memory) = (fs::read_to_string("/proc/stat").ok()?, fs::read_to_string("/proc/meminfo").ok()?);
    read(&stat, &memory)
}

fn read(stat: &str, memory: &str) -> Option<Usage> {
    // user, nice, system, idle, waiting, interrupts, soft interrupts (`proc_stat(5)`); all but the fourth and fifth are work.
    let counts = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(|count| count.parse::<u64>().ok());
    let counts = counts.take(7).collect::<Option<Vec<u64>>>()?;
    let ticks: u64 =
        counts.iter().enumerate().filter(|(place, _)| !matches!(place, 3 | 4)).map(|(_, ticks)| ticks).sum();
    let kibibytes = |name: &str| -> Option<u64> {
        memory.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let used = kibibytes("MemTotal:")?.saturating_sub(kibibytes("MemAvailable:")?);
    Some(Usage { cpu_nanos: ticks * (1_000_000_000 / TICKS), memory_bytes: used << 10, fuel: None })
}

#[cfg(test)]
mod tests {
    use coracle_base::{Instant, Timestamp};

    use super::*;

    fn at(seconds: u64) -> Now {
        let passed = Duration::from_secs(seconds);
        Now { mono: Instant::ZERO + passed, wall: Timestamp::EPOCH + passed }
    }

    fn using(containers: &[(&str, u64, u64)]) -> Heartbeat {
        let usage = |&(id, cpu_nanos, memory_bytes): &(&str, u64, u64)| {
            (id.to_owned(), Usage { cpu_nanos, memory_bytes, fuel: None })
        };
        Heartbeat { usage: containers.iter().map(usage).collect() }
    }

    #[test]
    fn rates_are_those_between_the_last_two_readings_of_the_same_instance() {
        let book = Book::default();
        book.record("n", at(0), &using(&[]), None);
        book.record("n", at(10), &using(&[("u/web/0", 1_000_000_000, 5)]), None);
        assert!(book.all().is_empty(), "one reading is no rate");
        let both = [("u/web/0", 3_000_000_000, 7), ("u/side/1", 9_000_000_000, 1)];
        book.record("n", at(20), &using(&both), None);
        let [usage] = &book.all()[..] else { panic!("one node") };
        assert_eq!((usage.at, usage.window), (at(10).wall, Duration::from_secs(10)));
        let rates = Rates { cpu_nanos: 200_000_000, memory_bytes: 7 };
        assert_eq!(usage.containers, [ContainerRates { pod: "u".into(), name: "web".into(), rates }]);
        assert_eq!(usage.rates, rates, "a node that is no machine uses what its containers use");
        book.forget("n");
        assert!(book.all().is_empty());
    }

    #[test]
    fn a_machine_uses_what_is_not_idle_and_not_to_be_had_back() {
        let stat = "cpu  100 1 50 5000 9 2 3 0 0 0\ncpu0 1 1 1 1 1 1 1 0 0 0\n";
        let memory = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n";
        let used = read(stat, memory).unwrap();
        assert_eq!((used.cpu_nanos, used.memory_bytes), (1_560_000_000, 600 << 10));
        assert_eq!(read("intr 1", memory), None);
        assert_eq!(read(stat, "MemTotal: 1 kB"), None);
    }
}
