use super::*;
use crate::testing::Harness;

const TAINT: &str = r#"spec.taints=[{"key":"k","effect":"NoExecute","timeAdded":"2026-11-22T10:00:00Z"}]"#;

fn harness(tolerations: &str) -> Harness {
    let fixture = format!("node/a\npod/p node=a spec.tolerations={tolerations}");
    let mut h = Harness::new(vec![Box::new(TaintEvictionController::default())], &fixture);
    h.settle();
    assert_eq!(h.world.log, "");
    h.apply(&format!("node/a {TAINT}"));
    h
}

#[test]
fn a_pod_without_a_toleration_goes_at_once() {
    let mut h = harness("[]");
    h.settle();
    assert!(h.world.names(&PODS).is_empty());
    assert!(h.world.log.contains("Normal TaintManagerEviction Marking for deletion Pod default/p"));
    assert!(h.world.log.contains("conditions=DisruptionTarget:True"));
}

#[test]
fn a_pod_stays_for_as_long_as_it_tolerates_the_taint() {
    let mut h = harness(r#"[{"operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]"#);
    h.advance(Duration::from_secs(299));
    assert_eq!(h.world.names(&PODS), ["p"]);
    h.advance(Duration::from_secs(1));
    assert!(h.world.names(&PODS).is_empty());
}

#[test]
fn a_taint_that_goes_in_time_spares_the_pod() {
    let mut h = harness(r#"[{"key":"k","operator":"Exists","tolerationSeconds":300}]"#);
    h.advance(Duration::from_secs(100));
    h.apply("node/a spec.taints=null");
    h.advance(Duration::from_secs(1000));
    assert_eq!(h.world.names(&PODS), ["p"]);
    assert!(h.world.log.contains("Cancelling deletion of Pod default/p"));
}

#[test]
fn a_toleration_without_seconds_is_for_ever() {
    let mut h = harness(r#"[{"key":"k","operator":"Exists"}]"#);
    h.advance(Duration::from_secs(100_000));
    assert_eq!(h.world.names(&PODS), ["p"]);
}
