//! Where pods go, and what is said of those that go nowhere.

use coracle_sim::{Propagation, TestCluster};
use expect_test::expect;

use crate::{mins, ready_pods, secs};

#[test]
fn a_pod_that_fits_nowhere_says_why_and_is_placed_as_soon_as_there_is_room() {
    let mut c = TestCluster::members(1).nodes(2).seed(1).build();
    c.apply(
        "pod/a image=v1 cpu=3
         pod/b image=v1 cpu=3",
    );
    c.advance(secs(1));
    c.apply("pod/c image=v1 cpu=3");
    c.advance(mins(2));
    c.check(
        "pod/c states",
        expect![[r#"
        +0s    Pending
    "#]],
    );
    c.check("pod/c events", expect![[r#"
        Warning FailedScheduling x1 0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.
    "#]]);
    c.delete("pod/a", Propagation::Background);
    c.advance(secs(2));
    assert_eq!(ready_pods(&c), 2);
    c.check(
        "pod/c states",
        expect![[r#"
        +0s    Pending
        +120s  Running, c: Running ready restarts=0
    "#]],
    );
}

#[test]
fn a_cordoned_node_gets_no_new_pods_and_keeps_its_own() {
    let mut c = TestCluster::members(1).nodes(2).seed(1).build();
    c.apply("deployment/web replicas=4 image=v1");
    c.run_until_converged();
    c.apply("node/node-1 spec.unschedulable=true");
    c.apply("deployment/web replicas=8");
    c.run_until_converged();
    let on = |node: &str| c.list("pods").iter().filter(|pod| pod["spec"]["nodeName"] == node).count();
    assert_eq!((on("node-1"), on("node-2")), (2, 6));
}

#[test]
fn a_recreating_deployment_never_runs_both_versions() {
    let mut c = TestCluster::members(1).nodes(2).seed(1).build();
    c.apply("deployment/web replicas=3 image=v1 spec.strategy.type=Recreate");
    c.run_until_converged();
    c.apply("deployment/web image=v2");
    c.run_until(|c| {
        let images: std::collections::BTreeSet<String> =
            c.list("pods").iter().map(|pod| pod["spec"]["containers"][0]["image"].to_string()).collect();
        assert!(images.len() < 2, "{images:?}");
        ready_pods(c) == 3 && images.contains("\"v2\"")
    });
    c.run_until_converged();
}

#[test]
fn a_paused_deployment_rolls_when_it_is_resumed() {
    let mut c = TestCluster::members(1).nodes(2).seed(1).build();
    c.apply("deployment/web replicas=3 image=v1");
    c.run_until_converged();
    c.apply("deployment/web paused=true image=v2");
    c.advance(mins(1));
    c.check(
        "deployment/web conditions",
        expect![[r#"
        Available=True MinimumReplicasAvailable
        Progressing=Unknown DeploymentPaused
    "#]],
    );
    assert!(!c.show("deployment/web pods").contains("v2"));
    c.apply("deployment/web paused=false");
    c.run_until_converged();
    c.check(
        "deployment/web pods",
        expect![[r#"
            v2 node-1 Running, c: Running ready restarts=0
            v2 node-1 Running, c: Running ready restarts=0
            v2 node-2 Running, c: Running ready restarts=0
        "#]],
    );
}
