//! A swarm: whole clusters whose every option is drawn from one seed, in two phases. First faults come in the middle of
//! everything, and nothing may go wrong; then a quorum is healed, and later everybody, and everything must come right in time.
//!
//! Invariants are looked at after every event and a broken one panics, so a run that returns was a good one. Nothing here knows a
//! clock or a thread: whoever runs many seeds has these.

mod fault;
mod heal;
mod load;
mod plan;

use std::fmt;
use std::time::Duration;

use coracle_base::Rng;

use crate::{MemberId, Script, TestCluster, Ticket, Totals, Weather};

use fault::Fault;
pub use plan::Plan;

/// How long the first phase is at least, and how much happens in it.
pub const PHASE: Duration = Duration::from_mins(1);
/// How many operations clients begin in it at least.
pub const OPERATIONS: u64 = 200;
/// How many faults it has at least.
pub const FAULTS: u64 = 10;
/// What sets the draws of a run apart from those of its world.
const DRAWS: u64 = 0x73_7761_726d;

/// What came of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What it was drawn from.
    pub seed: u64,
    /// How often what happened.
    pub totals: Totals,
    /// How much time passed in it.
    pub elapsed: Duration,
    /// How many events happened.
    pub events: u64,
    /// The operations of clients on registers.
    pub operations: u64,
    /// The faults.
    pub faults: u64,
    /// The digest of everything that happened.
    pub digest: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, elapsed, events, operations, faults, digest, .. } = self;
        let seconds = elapsed.as_secs_f64();
        write!(f, "seed {seed}: {seconds:.3} s, {events} events, {operations} operations, {faults} faults, {digest}")
    }
}

/// Runs a seed.
///
/// # Panics
///
/// When something that must hold does not.
pub fn run(seed: u64) -> Report {
    Plan::drawn(seed).run()
}

impl Plan {
    /// Runs it.
    ///
    /// # Panics
    ///
    /// When something that must hold does not.
    pub fn run(&self) -> Report {
        let mut run = Run::begin(self);
        run.under_faults();
        run.heal_a_quorum();
        run.heal_everybody();
        run.roll_out_in_peace();
        run.restore_a_backup();
        run.end()
    }
}

/// A run under way.
#[derive(Debug)]
struct Run<'a> {
    plan: &'a Plan,
    c: TestCluster,
    rng: Rng,
    faults: u64,
    operations: u64,
    /// The last value that was written: none is written twice.
    value: u64,
    /// Members that were asked to go.
    removed: Vec<MemberId>,
    dead_nodes: Vec<String>,
    cut_nodes: Vec<String>,
    /// Requests about workloads: each comes to an end.
    tickets: Vec<Ticket>,
}

impl<'a> Run<'a> {
    fn begin(plan: &'a Plan) -> Self {
        let mut c = TestCluster::members(plan.members)
            .nodes(plan.nodes)
            .seed(plan.seed)
            .snapshot_after(plan.snapshot_after)
            .tail(plan.tail)
            .window(plan.window)
            .disk(plan.disk.0, plan.disk.1)
            .trace_lines(plan.trace_lines)
            .mutation(plan.mutation)
            .replay(format!("cargo run --release -p coracle-sim -- --seed {}", plan.seed))
            .script("v1", Script::ready_after(plan.ready_after))
            .script("v2", Script { stop_after: plan.stop_after, ..Script::ready_after(plan.ready_after) })
            .build();
        c.weather(plan.weather);
        for (id, ahead) in c.member_ids().into_iter().zip(&plan.skew) {
            c.skew_clock(id, *ahead);
        }
        c.follow("configmaps", Some("default"));
        c.follow("pods", None);
        let rng = Rng::seeded(plan.seed ^ DRAWS);
        Self {
            plan,
            c,
            rng,
            faults: 0,
            operations: 0,
            value: 0,
            removed: Vec::new(),
            dead_nodes: Vec::new(),
            cut_nodes: Vec::new(),
            tickets: Vec::new(),
        }
    }

    fn under_faults(&mut self) {
        let begun = self.c.elapsed();
        let [mut operation, mut fault, mut work] = [begun; 3];
        while self.c.elapsed() < begun + PHASE || self.operations < OPERATIONS || self.faults < self.plan.faults_least {
            let next = operation.min(fault).min(work);
            self.c.run_for(next.saturating_sub(self.c.elapsed()));
            if next == operation {
                self.operate();
                operation = next + self.about(self.plan.operation_every);
            } else if next == fault {
                self.strike();
                fault = next + self.about(self.plan.fault_every);
            } else {
                self.work();
                work = next + self.about(self.plan.work_every);
            }
        }
    }

    /// A time around this one.
    fn about(&mut self, time: Duration) -> Duration {
        time / 2 + Duration::from_micros(self.rng.below(time.as_micros() as u64))
    }

    fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.rng.below(among.len() as u64) as usize].clone()
    }

    /// One fault, or the end of one: such as is possible now.
    fn strike(&mut self) {
        let sum: u64 = self.plan.faults.iter().map(|(_, weight)| *weight).sum();
        for _ in 0..8 {
            let mut drawn = self.rng.below(sum);
            let chosen = self.plan.faults.iter().find(|(_, weight)| {
                let here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                here
            });
            let Some((fault, _)) = chosen else { return };
            if fault.strike(self) {
                self.faults += u64::from(fault.hurts());
                return;
            }
        }
    }

    fn end(self) -> Report {
        Report {
            seed: self.plan.seed,
            totals: self.c.totals(),
            elapsed: self.c.elapsed(),
            events: self.c.steps(),
            operations: self.operations,
            faults: self.faults,
            digest: self.c.trace_digest(),
        }
    }
}

/// The network of a house in which nothing is wrong.
fn calm() -> Weather {
    Weather::default()
}
