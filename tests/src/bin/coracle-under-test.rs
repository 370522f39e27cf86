//! The binary `coracle`, built beside the tests that run it. With `CORACLE_FEATURE_LEVEL` it takes itself for another version.

fn main() -> std::process::ExitCode {
    match std::env::var("CORACLE_FEATURE_LEVEL").ok().and_then(|level| level.parse().ok()) {
        Some(level) => coracle_cli::run_at(level),
        None => coracle_cli::run(),
    }
}
