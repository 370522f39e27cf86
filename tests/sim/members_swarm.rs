//! Faults of members, of nodes and of the network between them, drawn from a seed: a phase in which nothing may go wrong, then one
//! in which everything must come right. What a run is, `coracle_sim::swarm` says.
//!
//! `CORACLE_SIM_SEED=7` runs that seed alone; `CORACLE_SIM_SEEDS=1000` runs so many.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_sim::{Totals, swarm};

/// How many seeds are tried when nobody says.
const SEEDS: u64 = 100;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let all = 1..=number("CORACLE_SIM_SEEDS").unwrap_or(SEEDS);
    number("CORACLE_SIM_SEED").map_or_else(|| all.collect(), |seed| vec![seed])
}

/// Runs seeds on every core; each run is on one thread.
fn run(seeds: &[u64]) -> Totals {
    let (next, totals) = (AtomicU64::new(0), Mutex::new(Totals::default()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let report = swarm::run(*seed);
                    assert!(report.elapsed >= swarm::PHASE, "{report}");
                    assert!(report.operations >= swarm::OPERATIONS && report.faults >= swarm::FAULTS, "{report}");
                    let mut totals = totals.lock().expect("no run has failed");
                    *totals = totals.plus(&report.totals);
                }
            });
        }
    });
    totals.into_inner().expect("no run has failed")
}

#[test]
#[expect(clippy::print_stdout, reason = "what the runs met is to be seen")]
fn members_that_die_stall_and_lose_each_other_stay_one_cluster() {
    let seeds = seeds();
    let totals = run(&seeds);
    println!("{} seeds: {totals}", seeds.len());
    if seeds.len() as u64 >= SEEDS {
        assert!(totals.missing().is_empty(), "no run had any {:?}: {totals}", totals.missing());
    }
}
