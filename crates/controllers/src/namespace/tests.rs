use std::time::Duration;

use coracle_api::resources::CONFIG_MAPS;
use coracle_base::Now;

use super::*;
use crate::testing::{Harness, key_of};
use crate::{RootCaPublisher, ServiceAccountController};

fn harness(fixture: &str) -> Harness {
    Harness::new(vec![Box::new(NamespaceController)], fixture)
}

#[test]
fn a_new_namespace_gets_what_pods_need_and_an_empty_one_goes_at_once() {
    let controllers: Vec<Box<dyn Controller>> =
        vec![Box::new(NamespaceController), Box::new(ServiceAccountController), Box::new(RootCaPublisher::new("PEM"))];
    let mut h = Harness::new(controllers, "namespace/test");
    h.settle();
    assert_eq!(h.world.field("cm/test/kube-root-ca.crt", "data"), r#"{"ca.crt":"PEM"}"#);
    assert!(h.world.view().object(&key_of("sa/test/default")).is_some());
    h.world.delete(&key_of("namespace/test"), None).unwrap();
    let before: Now = h.world.now;
    h.settle();
    assert_eq!(h.world.now, before);
    assert!(h.world.names(&NAMESPACES).is_empty());
    assert!(h.world.names(&CONFIG_MAPS).is_empty());
}

#[test]
fn pods_go_before_everything_else_and_what_remains_is_said() {
    let mut h = harness(
        "
        namespace/test
        pod/test/slow  metadata.finalizers=[\"example.com/wait\"]
        cm/test/config
        ",
    );
    h.world.delete(&key_of("namespace/test"), None).unwrap();
    h.advance(Duration::from_secs(1));
    assert_eq!(h.world.names(&CONFIG_MAPS), ["config"]);
    let conditions = h.world.field("namespace/test", "status.conditions");
    assert!(conditions.contains("Some resources are remaining: pods. has 1 resource instances"), "{conditions}");
    assert!(
        conditions.contains(
            "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances"
        ),
        "{conditions}"
    );
    h.world.remove("pod/test/slow");
    h.advance(Duration::from_secs(1));
    assert!(h.world.names(&CONFIG_MAPS).is_empty());
    assert!(h.world.names(&NAMESPACES).is_empty());
}

#[test]
fn a_namespace_with_another_finalizer_stays_until_that_is_gone() {
    let mut h = harness("namespace/test spec.finalizers=[\"kubernetes\",\"example.com/hold\"]");
    h.world.delete(&key_of("namespace/test"), None).unwrap();
    h.advance(Duration::from_secs(1));
    assert_eq!(h.world.field("namespace/test", "spec.finalizers"), r#"["example.com/hold"]"#);
}
