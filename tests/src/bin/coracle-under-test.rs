//! The binary `coracle`, built beside the tests that run it.

fn main() -> std::process::ExitCode {
    coracle_cli::run()
}
