//! Scenarios in simulation: the whole cluster under a virtual clock, one seed each.

#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

mod containers;
mod crashes;
mod deletion;
mod determinism;
mod guests;
mod members;
mod members_swarm;
mod mutations;
mod nodes;
mod placement;
mod rollouts;
mod scale;
mod swarm;

use std::time::Duration;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn mins(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

fn hours(hours: u64) -> Duration {
    Duration::from_hours(hours)
}

/// The Ready pods.
fn ready_pods(cluster: &coracle_sim::TestCluster) -> usize {
    let is_ready = |pod: &serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    cluster.list("pods").iter().filter(|pod| is_ready(pod)).count()
}
