use super::*;
use crate::testing::Harness;

fn harness(fixture: &str) -> Harness {
    Harness::new(vec![Box::new(NodeLifecycleController::default())], fixture)
}

fn taints(h: &Harness, node: &str) -> String {
    let value: Value = serde_json::from_str(&h.world.field(node, "spec.taints")).unwrap();
    let one = |taint: &Value| {
        format!("{}:{}", text(&taint["key"]).trim_start_matches("node.kubernetes.io/"), text(&taint["effect"]))
    };
    list(&value).iter().map(one).collect::<Vec<_>>().join(" ")
}

fn beat(h: &mut Harness, nodes: &[&str], seconds: u64) {
    for _ in 0..seconds / 10 {
        h.advance(Duration::from_secs(10));
        for node in nodes {
            let now = h.world.now;
            h.manager.heartbeat(node, now);
        }
    }
}

#[test]
fn a_silent_node_is_unknown_after_its_grace_and_not_before() {
    let mut h = harness("node/a Ready=True\nnode/b Ready=True\npod/p node=a ready=true");
    h.settle();
    beat(&mut h, &["a", "b"], 100);
    assert_eq!(h.world.field("node/a", "status.conditions").matches("Unknown").count(), 0);
    beat(&mut h, &["b"], 40);
    h.advance(Duration::from_secs(9));
    assert_eq!(h.world.field("node/a", "status.conditions").matches("\"Unknown\"").count(), 0);
    h.advance(Duration::from_secs(1));
    assert!(h.world.conditions("node/a").contains("Ready=Unknown NodeStatusUnknown"));
    assert_eq!(taints(&h, "node/a"), "unreachable:NoSchedule unreachable:NoExecute");
    assert!(h.world.conditions("pod/p").starts_with("Ready=False"));
    assert!(h.world.log.contains("event Pod/p Warning NodeNotReady Node is not ready"));
}

#[test]
fn after_the_machine_slept_every_node_gets_a_whole_grace() {
    let mut h = harness("node/a Ready=True\nnode/b Ready=True");
    h.settle();
    beat(&mut h, &["a", "b"], 40);
    h.world.now = h.world.now.after(Duration::from_hours(1));
    let (view, now) = (h.world.view(), h.world.now);
    h.manager.clock_jumped(&view, now);
    h.advance(Duration::from_secs(49));
    assert_eq!(h.world.field("node/a", "status.conditions").matches("Unknown").count(), 0);
    assert_eq!(taints(&h, "node/a"), "");
    h.advance(Duration::from_secs(2));
    assert!(h.world.conditions("node/a").contains("Ready=Unknown NodeStatusUnknown"));
}

#[test]
fn a_node_that_reports_again_loses_its_taints() {
    let mut h = harness("node/a Ready=False\nnode/b Ready=True");
    h.settle();
    assert_eq!(taints(&h, "node/a"), "not-ready:NoSchedule not-ready:NoExecute");
    h.apply("node/a Ready=True");
    h.settle();
    assert_eq!(taints(&h, "node/a"), "");
}

#[test]
fn pods_are_not_driven_off_when_no_node_is_left() {
    let mut h = harness("node/a Ready=False");
    h.advance(Duration::from_secs(20));
    assert_eq!(taints(&h, "node/a"), "not-ready:NoSchedule");
}

#[test]
fn nodes_are_given_up_one_by_one() {
    let mut h = harness("node/a Ready=False\nnode/b Ready=False\nnode/c Ready=True\nnode/d Ready=True");
    h.settle();
    let evicted =
        |h: &Harness| ["node/a", "node/b"].iter().filter(|node| taints(h, node).contains("NoExecute")).count();
    assert_eq!(evicted(&h), 1);
    h.advance(Duration::from_secs(10));
    assert_eq!(evicted(&h), 2);
}

#[test]
fn a_cordoned_node_is_tainted_and_taints_of_others_stay() {
    let mut h =
        harness("node/a Ready=True spec.unschedulable=true spec.taints=[{\"key\":\"mine\",\"effect\":\"NoExecute\"}]");
    h.settle();
    assert_eq!(taints(&h, "node/a"), "mine:NoExecute unschedulable:NoSchedule");
}
