//! Faults and load drawn from a seed: a phase in which nothing may be lost, then one in which everything must come right.
//!
//! `CORACLE_SIM_SEED=7` runs that seed alone; `CORACLE_SIM_SEEDS=1000` runs so many.

use coracle_sim::{Outcome, Propagation, Script, TestCluster, Ticket};
use serde_json::json;

use crate::{ready_pods, secs};

/// How many seeds are tried when nobody says: enough to meet the common interleavings in a few seconds.
const SEEDS: u64 = 8;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let all = 1..=number("CORACLE_SIM_SEEDS").unwrap_or(SEEDS);
    number("CORACLE_SIM_SEED").map_or_else(|| all.collect(), |seed| vec![seed])
}

/// Creates a ConfigMap, and does not wait.
fn write(c: &mut TestCluster, number: u64) -> Ticket {
    let object = json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": format!("load-{number}"), "namespace": "default"}, "data": {"number": number.to_string()},
    });
    let user = coracle_api::UserInfo::admin("load");
    let request = coracle_api::Request::new(coracle_api::Method::Post, "/api/v1/namespaces/default/configmaps", user);
    c.submit(request.json(object))
}

#[test]
fn kills_at_random_moments_lose_no_acknowledged_write_and_leave_no_pod_twice() {
    for seed in seeds() {
        let mut c = TestCluster::members(1).nodes(3).seed(seed).script("v2", Script::ready_after(secs(2))).build();
        let mut rng = c.rng();
        if rng.below(2) == 0 {
            c = TestCluster::members(1).nodes(3).seed(seed).snapshot_after(32 << 10).build();
        }
        let mut tickets = Vec::new();
        c.apply(
            "deployment/web replicas=4 image=v1 probe=1
             deployment/api replicas=2 image=v1",
        );
        for kill in 0..6 {
            // In the middle of whatever is going on.
            for _ in 0..rng.below(60) {
                tickets.push((tickets.len() as u64, write(&mut c, tickets.len() as u64)));
                c.advance_events(rng.below(40));
            }
            c.crash_member();
            c.advance(std::time::Duration::from_millis(rng.below(3_000)));
            c.restart_member();
            c.settle();
            let image = if kill % 2 == 0 { "v2" } else { "v1" };
            c.apply(&format!("deployment/web image={image} replicas={}", 2 + rng.below(5)));
            if rng.below(3) == 0 {
                let nodes = c.running_nodes();
                let node = nodes[rng.below(nodes.len() as u64) as usize].clone();
                c.kill_node(&node);
                c.advance_events(rng.below(200));
                c.restart_node(&node);
            }
        }
        c.run_until_converged();
        let (mut acknowledged, mut unknown) = (0, 0);
        for (number, ticket) in tickets {
            match c.history().outcome(ticket) {
                Outcome::Acknowledged(_) => {
                    let found = c.get(&format!("configmap/load-{number}"));
                    let found = found.unwrap_or_else(|| panic!("write {number} was acknowledged and is lost"));
                    assert_eq!(found["data"]["number"], number.to_string());
                    acknowledged += 1;
                }
                Outcome::Unknown => unknown += 1,
                Outcome::Refused(status) => {
                    assert_eq!(status.code, 503, "{}", status.message);
                    assert!(c.get(&format!("configmap/load-{number}")).is_none(), "a refused write was done");
                }
                Outcome::Pending => panic!("write {number} was never answered"),
            }
        }
        assert!(acknowledged > 0, "no write was acknowledged, {unknown} are unknown");
        let replicas: u64 =
            c.list("deployments").iter().map(|deployment| deployment["spec"]["replicas"].as_u64().unwrap()).sum();
        assert_eq!((ready_pods(&c) as u64, c.list("pods").len() as u64), (replicas, replicas));
        c.delete("deployment/web", Propagation::Foreground);
        c.delete("deployment/api", Propagation::Background);
        c.run_until_converged();
        assert_eq!(c.list("pods").len(), 0);
    }
}

#[test]
fn nodes_that_die_or_are_cut_off_leave_no_container_behind_and_no_pod_missing() {
    for seed in seeds() {
        let mut c = TestCluster::members(1)
            .nodes(3)
            .seed(seed)
            .script("flaky", Script::exits(secs(40), 1))
            .script("stubborn", Script { stop_after: None, ..Script::runs() })
            .build();
        let mut rng = c.rng();
        c.apply(
            "deployment/web replicas=5 image=v1 probe=1
             deployment/old replicas=2 image=stubborn
             deployment/bad replicas=1 image=flaky",
        );
        c.advance(secs(rng.below(30)));
        let (mut dead, mut cut) = (Vec::new(), Vec::new());
        for _ in 0..12 {
            let node = format!("node-{}", 1 + rng.below(3));
            let (is_dead, is_cut) = (dead.contains(&node), cut.contains(&node));
            match rng.below(5) {
                0 if !is_dead => {
                    c.kill_node(&node);
                    dead.push(node);
                }
                1 if !is_dead => c.restart_agent(&node),
                2 if !is_cut => {
                    c.cut_node(&node);
                    cut.push(node);
                }
                3 if is_dead => {
                    c.restart_node(&node);
                    dead.retain(|other| *other != node);
                }
                4 if is_cut => {
                    c.heal_node(&node);
                    cut.retain(|other| *other != node);
                }
                _ => c.apply(&format!("deployment/web replicas={}", 1 + rng.below(7))),
            }
            // From a moment to longer than a node's grace and its pods' toleration together.
            let longest = [1, 20, 100, 600][rng.below(4) as usize];
            c.advance(std::time::Duration::from_millis(rng.below(longest * 1000)));
        }
        for node in &dead {
            c.restart_node(node);
        }
        for node in &cut {
            c.heal_node(node);
        }
        c.delete("deployment/bad", Propagation::Foreground);
        c.run_until_converged();
        let wanted: u64 =
            c.list("deployments").iter().map(|deployment| deployment["spec"]["replicas"].as_u64().unwrap()).sum();
        assert_eq!((ready_pods(&c) as u64, c.list("pods").len() as u64), (wanted, wanted));
        let running: usize = (1..=3).map(|node| c.running_containers(&format!("node-{node}"))).sum();
        assert_eq!(running as u64, wanted, "a container of no pod runs, or a pod has none");
    }
}
