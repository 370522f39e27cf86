//! Nodes die, are cut off, and come back.

use coracle_sim::{Script, TestCluster};
use expect_test::expect;

use crate::{mins, ready_pods, secs};

fn node_ready(c: &TestCluster, node: &str) -> String {
    let text = c.show(&format!("node/{node} conditions"));
    text.lines().find(|line| line.starts_with("Ready=")).unwrap_or_default().to_owned()
}

fn pods_on(c: &TestCluster, node: &str) -> usize {
    c.list("pods").iter().filter(|pod| pod["spec"]["nodeName"] == node).count()
}

#[test]
fn the_pods_of_a_dead_node_are_replaced_after_its_grace_and_their_toleration() {
    let mut c = TestCluster::members(1).nodes(2).seed(1).build();
    c.apply("deployment/web replicas=4 image=v1");
    c.run_until_converged();
    assert_eq!((pods_on(&c, "node-1"), pods_on(&c, "node-2")), (2, 2));
    c.kill_node("node-2");
    c.advance(secs(39));
    assert_eq!(node_ready(&c, "node-2"), "Ready=True KubeletReady");
    c.advance(secs(16));
    assert_eq!(node_ready(&c, "node-2"), "Ready=Unknown NodeStatusUnknown");
    assert_eq!(ready_pods(&c), 2, "the pods of a node that is not heard of are not Ready");
    c.advance(secs(280));
    assert_eq!(pods_on(&c, "node-1"), 2, "their toleration of 300 s is not over");
    c.advance(secs(25));
    assert_eq!(pods_on(&c, "node-1"), 4);
    assert_eq!(ready_pods(&c), 4);
    c.check(
        "deployment/web pods",
        expect![[r#"
        v1 node-1 Running, c: Running ready restarts=0
        v1 node-1 Running, c: Running ready restarts=0
        v1 node-1 Running, c: Running ready restarts=0
        v1 node-1 Running, c: Running ready restarts=0
        v1 node-2 Running, c: Running ready restarts=0 terminating
        v1 node-2 Running, c: Running ready restarts=0 terminating
    "#]],
    );
    c.restart_node("node-2");
    c.run_until_converged();
    assert_eq!((pods_on(&c, "node-1"), pods_on(&c, "node-2")), (4, 0));
    assert_eq!(node_ready(&c, "node-2"), "Ready=True KubeletReady");
}

#[test]
fn a_node_that_is_cut_off_for_a_moment_keeps_its_pods() {
    let mut c = TestCluster::members(1).nodes(1).seed(1).build();
    c.apply("deployment/web replicas=2 image=v1");
    c.run_until_converged();
    let before: Vec<_> = c.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
    c.cut_node("node-1");
    c.advance(mins(2));
    assert_eq!(ready_pods(&c), 0);
    c.heal_node("node-1");
    c.advance(secs(15));
    assert_eq!(ready_pods(&c), 2);
    let after: Vec<_> = c.list("pods").iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_pod_deleted_while_its_node_is_cut_off_is_stopped_when_it_is_back() {
    let mut c = TestCluster::members(1).nodes(1).seed(1).build();
    c.apply("pod/web image=v1");
    c.settle();
    c.cut_node("node-1");
    c.delete("pod/web", coracle_sim::Propagation::Background);
    c.advance(mins(1));
    assert_eq!(c.running_containers("node-1"), 1, "the node has not heard of it");
    assert!(c.get("pod/web").is_some(), "nobody has confirmed that it ended");
    c.heal_node("node-1");
    c.advance(secs(40));
    assert_eq!(c.running_containers("node-1"), 0);
    assert!(c.get("pod/web").is_none());
}

#[test]
fn an_agent_that_starts_again_takes_over_its_containers() {
    let mut c = TestCluster::members(1).nodes(1).seed(1).build();
    c.apply("pod/web image=v1");
    c.advance(secs(10));
    c.restart_agent("node-1");
    c.advance(secs(10));
    c.check(
        "pod/web timeline",
        expect![[r#"
        +0s    started restarts=0   running
    "#]],
    );
    c.check(
        "pods",
        expect![[r#"
        web v1 node-1 Running, c: Running ready restarts=0
    "#]],
    );
}

#[test]
fn a_node_that_starts_again_starts_its_containers_again_and_counts_it() {
    let mut c = TestCluster::members(1).nodes(1).seed(1).build();
    c.apply("pod/web image=v1");
    c.advance(secs(10));
    c.kill_node("node-1");
    c.advance(secs(5));
    c.restart_node("node-1");
    c.advance(secs(5));
    c.check(
        "pod/web timeline",
        expect![[r#"
        +0s    started restarts=0   exited +10s reason=lost with its node
        +15s   started restarts=1   running
    "#]],
    );
    c.check(
        "pods",
        expect![[r#"
        web v1 node-1 Running, c: Running ready restarts=1
    "#]],
    );
    let pod = c.get("pod/web").unwrap();
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["reason"], &last["exitCode"]), (&"ContainerStatusUnknown".into(), &137.into()));
}

#[test]
fn a_node_runs_and_restarts_its_pods_without_an_api_server() {
    let mut c = TestCluster::members(1).nodes(1).seed(1).script("flaky", Script::exits(secs(100), 1)).build();
    c.apply("pod/web image=flaky");
    c.settle();
    c.crash_member();
    c.advance(mins(8));
    c.restart_member();
    c.advance(secs(60));
    c.check(
        "pod/web timeline",
        expect![[r#"
        +0s    started restarts=0   exited +100s reason=Error
        +100s  started restarts=1   exited +200s reason=Error
        +210s  started restarts=2   exited +310s reason=Error
        +330s  started restarts=3   exited +430s reason=Error
        +470s  started restarts=4   running
    "#]],
    );
    c.check(
        "pods",
        expect![[r#"
        web flaky node-1 Running, c: Running ready restarts=4
    "#]],
    );
}
