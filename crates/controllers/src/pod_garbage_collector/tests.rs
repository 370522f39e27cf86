use super::*;
use crate::testing::Harness;

#[test]
fn pods_of_a_node_that_is_gone_fail_and_go_after_a_while() {
    let fixture = "node/a\npod/p node=a phase=Running";
    let mut h = Harness::new(vec![Box::new(PodGarbageCollector::default())], fixture);
    h.settle();
    h.world.remove("node/a");
    h.advance(Duration::from_secs(39));
    assert_eq!(h.world.names(&PODS), ["p"]);
    h.advance(Duration::from_secs(1));
    assert!(h.world.names(&PODS).is_empty());
    assert!(h.world.log.contains("phase=\"Failed\""));
}

#[test]
fn a_node_that_comes_back_keeps_its_pods() {
    let mut h = Harness::new(vec![Box::new(PodGarbageCollector::default())], "pod/p node=a phase=Running");
    h.advance(Duration::from_secs(30));
    h.apply("node/a");
    h.advance(Duration::from_secs(1000));
    assert_eq!(h.world.names(&PODS), ["p"]);
}

#[test]
fn the_oldest_of_too_many_ended_pods_go() {
    let mut h = Harness::new(vec![Box::new(PodGarbageCollector::keeping(2))], "node/n");
    for n in 0..4 {
        h.apply(&format!("pod/p{n} node=n phase=Succeeded"));
        h.advance(Duration::from_secs(1));
    }
    assert_eq!(h.world.names(&PODS), ["p2", "p3"]);
}
