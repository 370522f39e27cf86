//! Sizes: what is asserted is how much happens, never how long it takes.

use coracle_sim::TestCluster;

use crate::ready_pods;

#[test]
fn a_thousand_pods_run_on_twenty_nodes_after_a_bounded_number_of_events() {
    let mut c = TestCluster::members(1).fake_nodes(20).seed(1).build();
    let (steps, revision) = (c.steps(), c.view().revision());
    c.apply("deployment/web replicas=1000 image=v1");
    c.run_until_converged();
    assert_eq!(ready_pods(&c), 1000);
    let busiest = (0..20).map(|node| c.running_containers(&format!("fake-{node}"))).max();
    assert!(busiest <= Some(60), "{busiest:?} pods on one of 20 nodes");
    let (steps, writes) = (c.steps() - steps, c.view().revision().0 - revision.0);
    // A pod is created, bound and reported on a few times, and has a handful of Events.
    assert!(writes < 15_000, "{writes} writes for 1,000 pods");
    assert!(steps < 150_000, "{steps} events for 1,000 pods");
}
