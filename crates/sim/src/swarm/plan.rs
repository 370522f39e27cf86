//! What a run is drawn to be: sizes, probabilities, and which faults it has how often.

use std::fmt;
use std::time::Duration;

use coracle_base::Rng;

use super::Fault;
use crate::{Mutation, Weather};

/// What sets the draws of a plan apart from those of its run.
const DRAWS: u64 = 0x706c_616e;
/// How often a kind of fault comes in comparison with others, at most.
const WEIGHT_MAX: u64 = 8;
/// How much more often there is the fault that shows what is deliberately wrong.
const EMPHASIS: u64 = 60;
/// How much more often what is broken is mended.
const MENDS: u64 = 6;

/// A run's options, all of them drawn from its seed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// What the run is drawn from.
    pub seed: u64,
    /// The members at the beginning.
    pub members: usize,
    /// The nodes, which run pods.
    pub nodes: usize,
    /// How often a client begins an operation, on average.
    pub operation_every: Duration,
    /// How often there is a fault, or the end of one, on average.
    pub fault_every: Duration,
    /// How often somebody changes what the cluster runs.
    pub work_every: Duration,
    /// How many of the last events are printed when the run fails.
    pub trace_lines: usize,
    /// What is deliberately wrong: nothing, unless somebody says so.
    pub mutation: Option<Mutation>,
    pub(super) registers: u64,
    /// How many operations read, and how many delete; the others write. In thousandths.
    pub(super) reads: u64,
    pub(super) deletions: u64,
    pub(super) snapshot_after: usize,
    pub(super) tail: u64,
    pub(super) window: Duration,
    pub(super) disk: (Duration, Duration),
    pub(super) weather: Weather,
    pub(super) skew: Vec<Duration>,
    pub(super) ready_after: Duration,
    pub(super) stop_after: Option<Duration>,
    /// The longest that a process stands still, and that a clock jumps.
    pub(super) pause_max: Duration,
    pub(super) jump_max: Duration,
    /// How much slower a slow disk is.
    pub(super) slow_factor: u32,
    /// How many faults there are at least.
    pub(super) faults_least: u64,
    /// Each kind of fault with its weight.
    pub(super) faults: Vec<(Fault, u64)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn drawn(seed: u64) -> Self {
        let rng = &mut Rng::seeded(seed ^ DRAWS);
        let members = if rng.below(8) == 0 { 5 } else { 3 };
        // Half of the runs have pods, which cost most of the time.
        let nodes = [0, 0, 2, 3][rng.below(4) as usize];
        let least = micros(rng, 50, 300);
        let mut faults: Vec<(Fault, u64)> = Fault::ALL.iter().map(|fault| (*fault, weight(rng))).collect();
        // Whatever is drawn, there is a fault, and what is broken is mended now and then.
        for (fault, weight) in &mut faults {
            *weight += if fault.hurts() { u64::from(*fault == Fault::Crash) } else { MENDS };
        }
        Self {
            seed,
            members,
            nodes,
            operation_every: micros(rng, 80_000, 280_000),
            fault_every: micros(rng, 800_000, 4_000_000),
            work_every: micros(rng, 2_000_000, 8_000_000),
            trace_lines: crate::trace::LINES,
            mutation: None,
            registers: 8 + rng.below(8),
            reads: 200 + rng.below(500),
            deletions: rng.below(100),
            snapshot_after: [64 << 10, 256 << 10, 64 << 20][rng.below(3) as usize],
            tail: rng.below(40),
            window: Duration::from_secs([10, 30, 300][rng.below(3) as usize]),
            disk: (least, least + micros(rng, 300, 8_000)),
            weather: weather(rng),
            skew: (0..members).map(|_| micros(rng, 0, 400_000)).collect(),
            ready_after: micros(rng, 0, 3_000_000),
            stop_after: [Some(Duration::ZERO), Some(Duration::from_secs(3)), None][rng.below(3) as usize],
            pause_max: micros(rng, 500_000, 6_000_000),
            jump_max: micros(rng, 1_000_000, 600_000_000),
            slow_factor: 10 + rng.below(200) as u32,
            faults_least: super::FAULTS,
            faults,
        }
    }

    /// The plan of a seed with something deliberately wrong, and with more of the one fault that shows it where most runs would not:
    /// so a few seeds suffice, whatever else is drawn.
    #[must_use]
    pub fn against(mutation: Mutation, seed: u64) -> Self {
        let mut plan = Self { mutation: Some(mutation), ..Self::drawn(seed) };
        let shown_by = match mutation {
            Mutation::WordBeforeFsync => Some(Fault::LoseMajority),
            Mutation::VoteForgotten => Some(Fault::Flap),
            Mutation::OldLeaderActs => Some(Fault::CutWorkingLeader),
            _ => None,
        };
        for (fault, weight) in &mut plan.faults {
            *weight += if shown_by == Some(*fault) { EMPHASIS } else { 0 };
        }
        if shown_by == Some(Fault::CutWorkingLeader) {
            plan.nodes = plan.nodes.max(2);
        }
        plan
    }

    /// Three members without pods and faults in a good network, whose clients begin ten operations a second: what the simulator itself
    /// costs, with everything checked.
    #[must_use]
    pub fn steady(seed: u64) -> Self {
        let never = Duration::from_hours(1);
        Self {
            members: 3,
            nodes: 0,
            operation_every: Duration::from_millis(100),
            fault_every: never,
            work_every: never,
            faults_least: 0,
            registers: 16,
            weather: super::calm(),
            faults: Vec::new(),
            ..Self::drawn(seed)
        }
    }
}

/// A network between members that is anything from good to bad.
pub(super) fn weather(rng: &mut Rng) -> Weather {
    Weather { loss: rng.below(80), duplicates: rng.below(80), delay: micros(rng, 1_000, 50_000) }
}

/// How often there is something: in a third of the plans never.
fn weight(rng: &mut Rng) -> u64 {
    if rng.below(3) == 0 { 0 } else { 1 + rng.below(WEIGHT_MAX) }
}

/// A time between these, in microseconds.
fn micros(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_micros(least + rng.below(most - least))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, members, nodes, operation_every, fault_every, work_every, registers, reads, .. } = self;
        writeln!(f, "seed {seed}: {members} members, {nodes} nodes")?;
        writeln!(f, "  an operation every {operation_every:?}: {reads} of 1000 read one of {registers} registers")?;
        writeln!(f, "  and {} delete; a fault every {fault_every:?}, work every {work_every:?}", self.deletions)?;
        let (after, tail, window) = (self.snapshot_after, self.tail, self.window);
        writeln!(f, "  snapshots after {after} bytes with {tail} entries behind, a window of {window:?}")?;
        writeln!(f, "  disk {:?}, slow {} times; {:?}", self.disk, self.slow_factor, self.weather)?;
        writeln!(
            f,
            "  clocks ahead {:?}, jumps up to {:?}, pauses up to {:?}",
            self.skew, self.jump_max, self.pause_max
        )?;
        let (ready, stop) = (self.ready_after, self.stop_after);
        writeln!(f, "  containers ready after {ready:?} and stopped after {stop:?}")?;
        let faults = self.faults.iter().filter(|(_, weight)| *weight > 0);
        let faults: Vec<String> = faults.map(|(fault, weight)| format!("{fault:?} {weight}")).collect();
        write!(f, "  faults: {}", faults.join(", "))
    }
}
