//! The member dies and comes back.

use coracle_sim::TestCluster;
use expect_test::expect;

use crate::{ready_pods, secs};

#[test]
fn a_member_that_starts_again_changes_nothing_that_runs() {
    let mut c = TestCluster::members(1).nodes(1).seed(1).build();
    c.apply("deployment/web replicas=3 image=v1");
    c.run_until_converged();
    let before = c.show("pods");
    c.crash_member();
    c.advance(secs(20));
    c.restart_member();
    c.advance(secs(60));
    assert_eq!(c.show("pods"), before);
}

#[test]
fn a_rollout_goes_on_where_it_was_when_the_member_died() {
    let mut c = TestCluster::members(1).nodes(2).seed(1).build();
    c.apply("deployment/web replicas=4 image=v1");
    c.run_until_converged();
    c.apply("deployment/web image=v2");
    c.run_until(|c| c.list("replicasets").len() == 2);
    c.crash_member();
    c.advance(secs(2));
    c.restart_member();
    c.settle();
    c.run_until_converged();
    c.check(
        "deployment/web pods",
        expect![[r#"
        v2 node-1 Running, c: Running ready restarts=0
        v2 node-1 Running, c: Running ready restarts=0
        v2 node-2 Running, c: Running ready restarts=0
        v2 node-2 Running, c: Running ready restarts=0
    "#]],
    );
    assert_eq!(ready_pods(&c), 4);
}

#[test]
fn snapshots_stand_for_the_log_before_them() {
    let mut c = TestCluster::members(1).nodes(1).seed(1).snapshot_after(64 << 10).build();
    for round in 0..60 {
        c.apply(&format!("configmap/settings data.padding={}", "x".repeat(4000 + round)));
    }
    c.apply("deployment/web replicas=2 image=v1");
    c.run_until_converged();
    c.crash_member();
    c.restart_member();
    c.settle();
    let padding = c.get("configmap/settings").unwrap()["data"]["padding"].as_str().map(str::len);
    assert_eq!(padding, Some(4059));
    c.run_until_converged();
    assert_eq!(ready_pods(&c), 2);
}
