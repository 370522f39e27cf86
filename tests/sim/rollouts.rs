//! Deployments roll, stall, and are rolled back.

use coracle_sim::{Script, TestCluster};
use expect_test::expect;
use serde_json::Value;

use crate::{mins, ready_pods, secs};

fn cluster(seed: u64) -> TestCluster {
    TestCluster::members(1)
        .nodes(2)
        .seed(seed)
        .script("v1", Script::ready_after(secs(3)))
        .script("v2", Script::ready_after(secs(3)))
        .build()
}

/// The pods that are not on their way out.
fn active_pods(c: &TestCluster) -> usize {
    c.list("pods").iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count()
}

#[test]
fn a_deployment_rolls_and_keeps_its_bounds_at_every_step() {
    for seed in 1..=5 {
        let mut c = cluster(seed);
        c.apply("deployment/web replicas=4 maxSurge=1 maxUnavailable=1 image=v1 probe=1");
        c.run_until_converged();
        c.apply("deployment/web image=v2");
        c.run_until(|c| {
            let (active, ready) = (active_pods(c), ready_pods(c));
            assert!(active <= 5, "{active} pods, and 4 + 1 are allowed");
            assert!(ready >= 3, "{ready} Ready pods, and 4 - 1 are promised");
            let status = &c.get("deployment/web").expect("it is there")["status"];
            status["updatedReplicas"] == 4 && status["availableReplicas"] == 4 && status["replicas"] == 4
        });
        c.run_until_converged();
        let sets = c.list("replicasets");
        assert_eq!(sets.len(), 2, "the old ReplicaSet stays, for a rollback");
        let replicas = |set: &Value| {
            (
                set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone(),
                set["spec"]["replicas"].clone(),
            )
        };
        let mut replicas: Vec<String> = sets.iter().map(|set| format!("{:?}", replicas(set))).collect();
        replicas.sort();
        assert_eq!(replicas, [r#"(String("1"), Number(0))"#, r#"(String("2"), Number(4))"#]);
    }
}

#[test]
fn a_rollout_to_an_image_that_cannot_be_had_stops_and_leaves_the_old_pods_serving() {
    let mut c = cluster(1);
    c.script("broken", Script::pull_error("no such image"));
    c.apply("deployment/web replicas=4 image=v1");
    c.run_until_converged();
    c.apply("deployment/web image=broken");
    c.advance(mins(9));
    assert_eq!(ready_pods(&c), 3, "a quarter of 4 may be unavailable");
    c.check(
        "deployment/web conditions",
        expect![[r#"
        Available=True MinimumReplicasAvailable
        Progressing=True ReplicaSetUpdated
    "#]],
    );
    c.advance(mins(2));
    c.check(
        "deployment/web conditions",
        expect![[r#"
        Available=True MinimumReplicasAvailable
        Progressing=False ProgressDeadlineExceeded
    "#]],
    );
    c.apply("deployment/web image=v1");
    c.run_until_converged();
    c.check(
        "deployment/web pods",
        expect![[r#"
        v1 node-1 Running, c: Running ready restarts=0
        v1 node-1 Running, c: Running ready restarts=0
        v1 node-2 Running, c: Running ready restarts=0
        v1 node-2 Running, c: Running ready restarts=0
    "#]],
    );
    assert_eq!(c.list("replicasets").len(), 2, "the first ReplicaSet is used again");
}

#[test]
fn a_stalled_rollout_is_reported_at_its_deadline_and_not_before() {
    let mut c = TestCluster::members(1).seed(1).build();
    c.apply("deployment/web replicas=1 progressDeadlineSeconds=600");
    c.settle();
    c.advance(secs(598));
    c.check(
        "deployment/web conditions",
        expect![[r#"
        Available=False MinimumReplicasUnavailable
        Progressing=True ReplicaSetUpdated
    "#]],
    );
    c.advance(secs(2));
    c.check(
        "deployment/web conditions",
        expect![[r#"
        Available=False MinimumReplicasUnavailable
        Progressing=False ProgressDeadlineExceeded
    "#]],
    );
}

#[test]
fn a_pod_counts_as_available_only_after_its_minimum_of_ready_seconds() {
    let mut c = cluster(1);
    c.apply("deployment/web replicas=1 minReadySeconds=30 image=v1 probe=1");
    c.advance(secs(30));
    assert_eq!(c.get("deployment/web").unwrap()["status"]["availableReplicas"], Value::Null);
    c.advance(secs(6));
    assert_eq!(c.get("deployment/web").unwrap()["status"]["availableReplicas"], 1);
}

#[test]
fn scaling_down_and_up_again_ends_at_what_was_asked_last() {
    let mut c = cluster(1);
    c.apply("deployment/web replicas=6 image=v1");
    c.run_until_converged();
    for replicas in [2, 5, 0, 3] {
        c.apply(&format!("deployment/web replicas={replicas}"));
    }
    c.run_until_converged();
    assert_eq!(ready_pods(&c), 3);
}

#[test]
fn an_endpoint_slice_lists_the_ready_pods_of_a_service_only() {
    let mut c = cluster(1);
    c.apply(
        "service/web
         deployment/web replicas=3 image=v1 probe=1",
    );
    let ready = |c: &TestCluster| {
        let slices = c.list("endpointslices");
        let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
    };
    c.advance(secs(2));
    assert_eq!(ready(&c), 0);
    c.run_until_converged();
    c.advance(secs(1));
    assert_eq!(ready(&c), 3);
    c.apply("deployment/web replicas=1");
    c.run_until_converged();
    c.advance(secs(1));
    assert_eq!(ready(&c), 1);
}
