use std::time::Duration;

use coracle_api::resources::PODS;
use coracle_base::Rng;

use super::*;
use crate::ReplicaSetController;
use crate::testing::Harness;

fn harness(fixture: &str) -> Harness {
    let sets = ReplicaSetController::new(Rng::seeded(1));
    Harness::new(vec![Box::new(DeploymentController), Box::new(sets)], fixture)
}

/// `<replicas of each set>`, oldest first.
fn sizes(h: &Harness) -> Vec<i64> {
    let view = h.world.view();
    let mut sets: Vec<_> = view.list(&REPLICA_SETS, None).collect();
    sets.sort_by_key(|set| set.value(None)["metadata"]["annotations"]["deployment.kubernetes.io/revision"].to_string());
    sets.iter().map(|set| set.value(None)["spec"]["replicas"].as_i64().unwrap()).collect()
}

fn run_to_the_end(h: &mut Harness) {
    for _ in 0..50 {
        h.advance(Duration::from_millis(100));
        h.run_pods();
    }
    h.advance(Duration::from_millis(100));
}

#[test]
fn a_new_deployment_gets_its_pods_and_says_that_it_is_available() {
    let mut h = harness("deployment/web replicas=3 spec.progressDeadlineSeconds=600");
    h.settle();
    assert_eq!(sizes(&h), [3]);
    assert_eq!(
        h.world.conditions("deployment/web"),
        "Available=False MinimumReplicasUnavailable, Progressing=True ReplicaSetUpdated"
    );
    run_to_the_end(&mut h);
    assert_eq!(
        h.world.conditions("deployment/web"),
        "Available=True MinimumReplicasAvailable, Progressing=True NewReplicaSetAvailable"
    );
    assert_eq!(h.world.field("deployment/web", "status.availableReplicas"), "3");
    assert_eq!(h.world.field("deployment/web", "status.observedGeneration"), "1");
    assert_eq!(h.world.field("deployment/web", "metadata.annotations").matches("revision\":\"1\"").count(), 1);
    assert!(h.world.log.contains("Normal ScalingReplicaSet Scaled up replica set web-"));
}

#[test]
fn a_rolling_update_never_has_too_few_available_or_too_many_pods() {
    let mut h = harness("deployment/web replicas=4 spec.progressDeadlineSeconds=600");
    run_to_the_end(&mut h);
    h.apply("deployment/web image=v2");
    for _ in 0..60 {
        h.advance(Duration::from_millis(100));
        let pods = h.world.names(&PODS).len();
        assert!((3..=5).contains(&pods), "{pods} pods");
        h.run_pods();
    }
    assert_eq!(sizes(&h), [0, 4]);
    assert_eq!(h.world.field("deployment/web", "status.updatedReplicas"), "4");
    assert!(h.world.conditions("deployment/web").contains("Progressing=True NewReplicaSetAvailable"));
}

#[test]
fn undo_takes_the_earlier_set_again_with_a_new_revision() {
    let mut h = harness("deployment/web replicas=1");
    run_to_the_end(&mut h);
    h.apply("deployment/web image=v2");
    run_to_the_end(&mut h);
    h.apply("deployment/web image=v1");
    run_to_the_end(&mut h);
    assert_eq!(sizes(&h), [0, 1]);
    let annotations = h.world.field("deployment/web", "metadata.annotations");
    assert!(annotations.contains("\"deployment.kubernetes.io/revision\":\"3\""), "{annotations}");
    let view = h.world.view();
    let history: Vec<String> = view
        .list(&REPLICA_SETS, None)
        .map(|set| set.value(None)["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"].to_string())
        .collect();
    assert!(history.contains(&"\"1\"".to_owned()), "{history:?}");
}

#[test]
fn a_stalled_rollout_is_reported_at_its_deadline_and_not_before() {
    let mut h = harness("deployment/web replicas=1 spec.progressDeadlineSeconds=600");
    h.settle();
    h.advance(Duration::from_secs(599));
    assert!(h.world.conditions("deployment/web").ends_with("Progressing=True ReplicaSetUpdated"));
    h.advance(Duration::from_secs(1));
    assert!(h.world.conditions("deployment/web").ends_with("Progressing=False ProgressDeadlineExceeded"));
}

#[test]
fn recreate_ends_every_old_pod_before_the_first_new_one() {
    let mut h = harness("deployment/web replicas=2 spec.strategy.type=Recreate");
    run_to_the_end(&mut h);
    // A pod that takes its time to end.
    let slow = h.world.names(&PODS)[0].clone();
    h.apply(&format!("pod/{slow} metadata.finalizers=[\"slow\"]"));
    h.apply("deployment/web image=v2");
    run_to_the_end(&mut h);
    assert_eq!(sizes(&h), [0]);
    assert_eq!(h.world.names(&PODS), [slow.as_str()]);
    h.world.remove(&format!("pod/{slow}"));
    run_to_the_end(&mut h);
    assert_eq!(sizes(&h), [0, 2]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut h = harness("deployment/web replicas=2 spec.progressDeadlineSeconds=600");
    run_to_the_end(&mut h);
    h.apply("deployment/web spec.paused=true image=v2 replicas=3");
    run_to_the_end(&mut h);
    assert_eq!(sizes(&h), [3]);
    assert!(h.world.conditions("deployment/web").contains("Progressing=Unknown DeploymentPaused"));
    h.apply("deployment/web spec.paused=false");
    run_to_the_end(&mut h);
    assert_eq!(sizes(&h), [0, 3]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_shared_out_in_proportion() {
    let mut h = harness(
        "deployment/web replicas=10 spec.strategy.rollingUpdate.maxSurge=3 spec.strategy.rollingUpdate.maxUnavailable=2",
    );
    run_to_the_end(&mut h);
    // The new template's pods never become ready: 8 old and 5 new.
    h.apply("deployment/web image=v2");
    h.advance(Duration::from_secs(1));
    assert_eq!(sizes(&h), [8, 5]);
    h.apply("deployment/web replicas=15");
    h.advance(Duration::from_secs(1));
    assert_eq!(sizes(&h), [11, 7]);
}

#[test]
fn old_sets_beyond_the_history_limit_go() {
    let mut h = harness("deployment/web replicas=1 spec.revisionHistoryLimit=1");
    for image in ["v1", "v2", "v3", "v4"] {
        h.apply(&format!("deployment/web image={image}"));
        run_to_the_end(&mut h);
    }
    assert_eq!(sizes(&h), [0, 1]);
}

#[test]
fn a_name_that_is_taken_is_counted_as_a_collision() {
    let mut h = harness("deployment/web replicas=1");
    let template = h.world.view().object(&crate::testing::key_of("deployment/web")).unwrap().value(None);
    let hash = revision::template_hash(&template["spec"]["template"], 0);
    h.apply(&format!("rs/web-{hash} replicas=0"));
    h.advance(Duration::from_secs(1));
    assert_eq!(h.world.field("deployment/web", "status.collisionCount"), "1");
    assert_eq!(h.world.names(&REPLICA_SETS).len(), 2);
}

#[test]
fn a_stray_set_is_adopted_and_one_that_no_longer_matches_is_let_go() {
    let mut h = harness(
        "
        deployment/web  replicas=1
        rs/stray        replicas=0 label=app:web
        rs/lost         replicas=0 owner=deployment/web label=app:other
        ",
    );
    h.advance(Duration::from_secs(1));
    assert!(h.world.field("rs/stray", "metadata.ownerReferences").contains("\"kind\":\"Deployment\""));
    assert_eq!(h.world.field("rs/lost", "metadata.ownerReferences"), "null");
}

#[test]
fn a_deployment_of_none_scales_up_again() {
    let mut h = harness("deployment/web replicas=2");
    run_to_the_end(&mut h);
    for (wanted, pods) in [("0", 0), ("3", 3)] {
        h.apply(&format!("deployment/web replicas={wanted}"));
        run_to_the_end(&mut h);
        assert_eq!(h.world.names(&PODS).len(), pods);
    }
    assert!(h.world.log.contains("Scaled up replica set"));
    assert!(h.world.log.contains(" from 0 to 3"));
}
