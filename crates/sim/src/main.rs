//! `coracle-sim`: many seeds of the swarm one after the other, or one of them again.
//!
//! The one part of this crate that has a clock, to say how fast it is; what a run does depends on its seed alone.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle_sim::swarm::{Plan, Report};
use coracle_sim::{Mutation, Totals};

const USAGE: &str =
    "usage: coracle-sim [--seeds N] [--first SEED] [--seed SEED] [--trace LINES] [--mutation NAME] [--steady]

  --seeds N      runs so many seeds (100), prints totals and the rate, and fails at the first seed that fails
  --first SEED   begins with this one (1)
  --seed SEED    runs this one again, and prints its plan, what came of it and, when it fails, the last events
  --trace LINES  with so many of the last events (60)
  --mutation NAME  with something deliberately wrong, as Mutation names it
  --steady       without pods and faults, ten operations a second: what the simulator itself costs";

/// What was asked for.
#[derive(Debug)]
struct Arguments {
    seeds: u64,
    first: u64,
    seed: Option<u64>,
    trace: Option<usize>,
    mutation: Option<Mutation>,
    steady: bool,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut arguments = Self { seeds: 100, first: 1, seed: None, trace: None, mutation: None, steady: false };
        while let Some(word) = words.next() {
            if word == "--mutation" {
                arguments.mutation = Some(Mutation::named(&words.next()?)?);
                continue;
            }
            let mut number = || words.next()?.parse::<u64>().ok();
            match &*word {
                "--seeds" => arguments.seeds = number()?,
                "--first" => arguments.first = number()?,
                "--seed" => arguments.seed = Some(number()?),
                "--trace" => arguments.trace = Some(usize::try_from(number()?).ok()?),
                "--steady" => arguments.steady = true,
                _ => return None,
            }
        }
        Some(arguments)
    }

    fn plan(&self, seed: u64) -> Plan {
        let mut plan = match self.mutation {
            Some(mutation) => Plan::against(mutation, seed),
            None if self.steady => Plan::steady(seed),
            None => Plan::drawn(seed),
        };
        plan.trace_lines = self.trace.unwrap_or(plan.trace_lines);
        plan
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let good = match arguments.seed {
        Some(seed) => again(&arguments.plan(seed)),
        None => many(&arguments),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a plan; a failure has printed itself, with the last events and the command that shows it again.
fn attempt(plan: &Plan) -> Option<Report> {
    catch_unwind(AssertUnwindSafe(|| plan.run())).ok()
}

fn again(plan: &Plan) -> bool {
    println!("{plan}");
    let report = attempt(plan);
    if let Some(report) = &report {
        println!("{report}\n{}", report.totals);
    }
    report.is_some()
}

/// Seeds one after the other, with a line now and then.
fn many(arguments: &Arguments) -> bool {
    let mut pace = Pace::begin();
    let mut totals = Totals::default();
    for (done, seed) in (1..).zip(arguments.first..arguments.first + arguments.seeds) {
        let Some(report) = attempt(&arguments.plan(seed)) else {
            println!("seed {seed} failed after {} good ones: {totals}", done - 1);
            return false;
        };
        totals = totals.plus(&report.totals);
        if let Some(rate) = pace.add(report.elapsed) {
            println!("{done} seeds, {rate}");
        }
    }
    println!("{} seeds, {}: {totals}", arguments.seeds, pace.rate());
    true
}

/// How much virtual time passes in how much real time.
#[derive(Debug)]
struct Pace {
    begun: Instant,
    told: Duration,
    simulated: Duration,
}

/// How often there is a line.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Pace {
    fn begin() -> Self {
        Self { begun: now(), told: Duration::ZERO, simulated: Duration::ZERO }
    }

    /// Notes what was simulated; the rate, when it is time to tell it.
    fn add(&mut self, simulated: Duration) -> Option<String> {
        self.simulated += simulated;
        let taken = now() - self.begun;
        (taken >= self.told + TELL_EVERY).then(|| {
            self.told = taken;
            self.rate()
        })
    }

    fn rate(&self) -> String {
        let (simulated, taken) = (self.simulated.as_secs_f64(), (now() - self.begun).as_secs_f64());
        format!("{simulated:.0} virtual seconds in {taken:.1} s, {:.0} a second", simulated / taken)
    }
}

#[expect(clippy::disallowed_methods, reason = "the program says how fast it is")]
fn now() -> Instant {
    Instant::now()
}
