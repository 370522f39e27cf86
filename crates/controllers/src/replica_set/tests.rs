use coracle_api::resources::PODS;
use expect_test::expect;

use super::*;
use crate::testing::{Harness, check};

fn controller() -> ReplicaSetController {
    ReplicaSetController::new(Rng::seeded(1))
}

#[test]
fn creates_what_lacks_in_batches_that_double() {
    check(
        controller(),
        "rs/web",
        "rs/web replicas=4",
        expect![[r#"
        # round 0
        create Pod/web-wsj4b
        status ReplicaSet/web observedGeneration=1 replicas=0 terminatingReplicas=0
        # round 1
        event ReplicaSet/web Normal SuccessfulCreate Created pod: web-wsj4b
        create Pod/web-425vg
        create Pod/web-cgb6d
        status ReplicaSet/web fullyLabeledReplicas=1 replicas=1
        # round 2
        event ReplicaSet/web Normal SuccessfulCreate Created pod: web-425vg
        event ReplicaSet/web Normal SuccessfulCreate Created pod: web-cgb6d
        create Pod/web-ntstx
        status ReplicaSet/web fullyLabeledReplicas=3 replicas=3
        # round 3
        event ReplicaSet/web Normal SuccessfulCreate Created pod: web-ntstx
        status ReplicaSet/web fullyLabeledReplicas=4 replicas=4
    "#]],
    );
}

#[test]
fn deletes_the_surplus() {
    check(
        controller(),
        "rs/web",
        "
        rs/web     replicas=1
        pod/web-0  owner=rs/web ready=true node=n1
        pod/web-1  owner=rs/web ready=false node=n1
        pod/web-2  owner=rs/web
        ",
        expect![[r#"
            # round 0
            delete Pod/web-2
            delete Pod/web-1
            status ReplicaSet/web availableReplicas=1 fullyLabeledReplicas=3 observedGeneration=1 readyReplicas=1 replicas=3 terminatingReplicas=0
            # round 1
            event ReplicaSet/web Normal SuccessfulDelete Deleted pod: web-1
            event ReplicaSet/web Normal SuccessfulDelete Deleted pod: web-2
            status ReplicaSet/web fullyLabeledReplicas=1 replicas=1
        "#]],
    );
}

#[test]
fn adopts_strays_and_releases_what_no_longer_matches() {
    check(
        controller(),
        "rs/web",
        "
        rs/web      replicas=1
        pod/stray   label=app:web
        pod/other   owner=rs/web label=app:debug
        ",
        expect![[r##"
            # round 0
            patch Pod/other metadata={"ownerReferences":null}
            patch Pod/stray metadata={"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"uid-1"}]}
            # round 1
            status ReplicaSet/web fullyLabeledReplicas=1 observedGeneration=1 replicas=1 terminatingReplicas=0
        "##]],
    );
}

#[test]
fn a_pod_is_available_after_min_ready_seconds() {
    let mut h = Harness::new(
        vec![Box::new(controller())],
        "
        rs/web     replicas=1 spec.minReadySeconds=10
        pod/web-0  owner=rs/web ready=true node=n1
        ",
    );
    h.advance(Duration::from_secs(9));
    assert_eq!(h.world.field("rs/web", "status.availableReplicas"), "null");
    h.advance(Duration::from_secs(1));
    assert_eq!(h.world.field("rs/web", "status.availableReplicas"), "1");
}

#[test]
fn a_refused_create_is_reported_and_retried_with_back_off() {
    let mut h = Harness::new(vec![Box::new(controller())], "rs/web replicas=2");
    h.world.refuse = Some((PODS, "pods \"web\" is forbidden: exceeded quota"));
    h.advance(Duration::from_millis(40));
    assert_eq!(h.world.conditions("rs/web"), "ReplicaFailure=True FailedCreate");
    let creates = h.world.log.lines().filter(|line| line.starts_with("create")).count();
    // At once, and after 5, 10, 20 ms.
    assert_eq!(creates, 4);
    assert!(h.world.log.contains("Warning FailedCreate Error creating: pods \"web\" is forbidden: exceeded quota"));
    h.world.refuse = None;
    h.advance(Duration::from_secs(1));
    assert_eq!(h.world.names(&PODS).len(), 2);
    assert_eq!(h.world.conditions("rs/web"), "");
}

#[test]
fn a_thousand_pods_take_few_rounds() {
    let mut h = Harness::new(vec![Box::new(controller())], "rs/web replicas=1000");
    h.advance(Duration::from_millis(300));
    assert_eq!(h.world.names(&PODS).len(), 1000);
    assert_eq!(h.world.field("rs/web", "status.replicas"), "1000");
    assert!(h.works < 40, "{} rounds", h.works);
}
