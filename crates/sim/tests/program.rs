//! The program: what it prints, and that a seed is the same run in any process.

#![expect(clippy::disallowed_types, reason = "it is a program that is tested")]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coracle-sim")).args(arguments).output().expect("the program runs")
}

/// The digest in it is that of every event, of every byte that was stored, and of what containers wrote.
#[test]
fn a_seed_is_the_same_run_in_two_processes() {
    for seed in ["5", "8"] {
        let (first, second) = (run(&["--seed", seed]), run(&["--seed", seed]));
        assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
        assert_eq!(String::from_utf8_lossy(&first.stdout), String::from_utf8_lossy(&second.stdout));
    }
}

#[test]
fn seeds_are_counted_and_their_rate_is_told() {
    let output = run(&["--seeds", "2", "--steady"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("2 seeds,") && text.contains("virtual seconds"), "{text}");
}

#[test]
fn a_wrong_argument_is_told_how_it_is_used() {
    let output = run(&["--sedes", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: coracle-sim"));
}
