//! The command line: `coracle up`, `down`, `image`, `logs`, `version`.
//!
//! It is a program around the library: everything that it does to a cluster goes through the API.
//! What reaches the terminal is one readable line an error, never a panic or a debug dump.

use std::process::ExitCode;

use clap::Parser as _;

mod args;
mod command;
mod connection;
mod descriptions;
mod kubeconfig;
mod manifest;
mod progress;
mod terminal;

/// The images that the binary brings along, by name: the example's service in two releases.
pub const BUILTIN_IMAGES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    run_at(coracle::FEATURE_LEVEL)
}

/// The same as a version that understands this feature level ([`coracle::FEATURE_LEVEL`]): for tests of upgrades.
pub fn run_at(feature_level: u32) -> ExitCode {
    let mut args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if let args::Command::Up(up) = &mut args.command {
        up.feature_level = feature_level;
    }
    terminal::log(args.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start")),
    };
    let code = match runtime.block_on(command::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    };
    // A guest or a client that still holds a thread does not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// One line: what failed, and why.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.contains(&text) {
            continue; // some libraries repeat their cause in their own text
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    terminal::error(&line.replace('\n', " "));
    ExitCode::FAILURE
}
