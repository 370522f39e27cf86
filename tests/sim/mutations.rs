//! The swarm finds what is deliberately wrong: each fault of [`Mutation`] by a seed that shows it.
//!
//! Without the fault the same seeds are among those of the swarm, and pass.

use std::panic::{AssertUnwindSafe, catch_unwind};

use coracle_sim::Mutation;
use coracle_sim::swarm::Plan;

/// Every fault with the first seed that shows it.
const CAUGHT: [(Mutation, u64); 12] = [
    (Mutation::SkippedFsync, 1),
    (Mutation::WordBeforeFsync, 42),
    (Mutation::AnswerBeforeCommit, 1),
    (Mutation::AppliedTwice, 2),
    (Mutation::StaleRead, 1),
    (Mutation::ServedTooEarly, 1),
    (Mutation::LostWatchEvent, 1),
    (Mutation::RevisionReused, 2),
    (Mutation::ForwardedTwice, 3),
    (Mutation::VoteForgotten, 7),
    (Mutation::HalfSnapshot, 1),
    (Mutation::OldLeaderActs, 7),
];

/// How many seeds from the recorded one on are tried: a change of what is drawn moves it.
const SEEDS: u64 = 12;

/// What a run says when it fails.
fn failure(seed: u64, mutation: Mutation) -> Option<String> {
    let mut plan = Plan::against(mutation, seed);
    plan.trace_lines = 0;
    let panic = catch_unwind(AssertUnwindSafe(|| plan.run())).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
}

#[test]
#[expect(clippy::print_stdout, reason = "a seed that moved is to be recorded")]
fn whatever_is_deliberately_wrong_is_found_by_its_seed() {
    for mutation in Mutation::ALL {
        let (_, recorded) = CAUGHT.iter().find(|(caught, _)| *caught == mutation).expect("it has a seed");
        let found = (*recorded..recorded + SEEDS).find_map(|seed| Some((seed, failure(seed, mutation)?)));
        let (seed, failure) =
            found.unwrap_or_else(|| {
            panic!("{SEEDS} seeds from {recorded} on do not find {mutation:?}: look for another with `coracle-sim --mutation`")
        });
        println!(
            "{mutation:?} is found by seed {seed}, recorded {recorded}: {}",
            failure.lines().next().unwrap_or_default()
        );
    }
}
