use coracle_api::resources::{PODS, REPLICA_SETS};
use expect_test::expect;

use super::*;
use crate::testing::{Harness, check, key_of};

const TREE: &str = "
    deployment/web
    rs/web-1   owner=deployment/web
    pod/web-a  owner=rs/web-1
    pod/web-b  owner=rs/web-1
    pod/other
";

fn harness() -> Harness {
    Harness::new(vec![Box::new(GarbageCollector)], TREE)
}

#[test]
fn dependents_follow_an_owner_that_is_gone() {
    let mut h = harness();
    h.settle();
    assert_eq!(h.world.log, "");
    h.world.delete(&key_of("deployment/web"), Some("Background")).unwrap();
    h.settle();
    assert!(h.world.names(&REPLICA_SETS).is_empty());
    assert_eq!(h.world.names(&PODS), ["other"]);
}

#[test]
fn a_foreground_deletion_takes_the_leaves_first() {
    let mut h = harness();
    h.world.delete(&key_of("deployment/web"), Some("Foreground")).unwrap();
    h.settle();
    expect![[r#"
        delete ReplicaSet/web-1
        delete Pod/web-a
        delete Pod/web-b
        patch ReplicaSet/web-1 metadata={"finalizers":null}
        patch Deployment/web metadata={"finalizers":null}
    "#]]
    .assert_eq(&h.world.log);
    assert!(h.world.view().object(&key_of("deployment/web")).is_none());
}

#[test]
fn an_orphaning_deletion_leaves_the_dependents_without_owner() {
    let mut h = harness();
    h.world.delete(&key_of("deployment/web"), Some("Orphan")).unwrap();
    h.settle();
    assert!(h.world.view().object(&key_of("deployment/web")).is_none());
    assert_eq!(h.world.names(&REPLICA_SETS), ["web-1"]);
    assert_eq!(h.world.field("rs/web-1", "metadata.ownerReferences"), "null");
    assert_eq!(h.world.names(&PODS).len(), 3);
}

#[test]
fn one_owner_that_stays_is_enough_and_references_to_the_others_go() {
    let dangling = r#"{"apiVersion":"v1","kind":"ConfigMap","name":"gone","uid":"no-such-uid"}"#;
    let mut world = check(GarbageCollector, "pod/p", "cm/owner\npod/p owner=cm/owner", expect![[""]]);
    let view = world.view();
    let solid = view.object(&key_of("pod/p")).unwrap().value(None)["metadata"]["ownerReferences"][0].to_string();
    world.apply_line(&format!("pod/p metadata.ownerReferences=[{solid},{dangling}]"));
    crate::testing::run(&mut GarbageCollector, "pod/p", &mut world);
    assert!(world.field("pod/p", "metadata.ownerReferences").contains("owner"));
    assert!(!world.field("pod/p", "metadata.ownerReferences").contains("gone"));
}

#[test]
fn an_owner_in_another_namespace_is_none() {
    let world = check(
        GarbageCollector,
        "pod/p",
        "
        cm/far/owner
        pod/p  owner=cm/far/owner
        ",
        expect![[r#"
            # round 0
            event Pod/p Warning OwnerRefInvalidNamespace ownerRef [v1/ConfigMap, namespace: default, name: owner, uid: uid-1] does not exist in namespace "default"
            delete Pod/p
        "#]],
    );
    assert!(world.names(&PODS).is_empty());
}
