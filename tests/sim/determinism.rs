//! Equal seeds give equal runs, event by event.

use coracle_sim::TestCluster;

use crate::{mins, secs};

fn run(seed: u64) -> String {
    let mut c = TestCluster::members(1).nodes(2).seed(seed).build();
    c.apply("deployment/web replicas=3 image=v1");
    c.run_until_converged();
    c.crash_member();
    c.advance(secs(1));
    c.restart_member();
    c.settle();
    c.apply("deployment/web image=v2");
    c.kill_node("node-1");
    c.advance(mins(7));
    c.trace_digest()
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    assert_eq!(run(1), run(1));
    assert_eq!(run(2), run(2));
    assert_ne!(run(1), run(2));
}
