//! The binary `coracle`.

fn main() -> std::process::ExitCode {
    coracle_cli::run()
}
