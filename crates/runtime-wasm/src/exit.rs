//! How guests end, in the terms of containers.
//!
//! A command's exit code is its own. A trap is 134, as an abort is for a process; stopped is 143 and killed 137, 128 and
//! the signal, as container runtimes report them. A guest that grew beyond its memory is `OOMKilled`, 137; one that used
//! up its instructions `FuelExhausted`, 137.

use std::fmt::Write as _;

use coracle_node::runtime::Exit;
use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use crate::account::{FuelExhausted, MemoryExceeded};

/// 128 and SIGABRT.
const TRAPPED: i32 = 134;
/// 128 and SIGKILL.
const KILLED: i32 = 137;
/// 128 and SIGTERM: WASI has no signals, so nothing handles it and the default is to end.
const TERMINATED: i32 = 143;
/// The most bytes of a message.
const MESSAGE_MAX: usize = 4_096;

/// The end of a guest that ran out by itself.
pub(crate) fn of(result: &wasmtime::Result<()>) -> Exit {
    let Err(error) = result else { return code(0) };
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return code(exit.0);
    }
    if let Some(exit) = over_a_limit(error) {
        return exit;
    }
    Exit { message: Some(bounded(&error.root_cause().to_string())), ..code(TRAPPED) }
}

/// The end of a container whose guest was ended by one of its limits.
pub(crate) fn over_a_limit(error: &wasmtime::Error) -> Option<Exit> {
    if let Some(exceeded) = error.downcast_ref::<MemoryExceeded>() {
        return Some(ended("OOMKilled", &exceeded.to_string()));
    }
    if let Some(exhausted) = error.downcast_ref::<FuelExhausted>() {
        return Some(ended("FuelExhausted", &exhausted.to_string()));
    }
    (error.downcast_ref::<Trap>() == Some(&Trap::OutOfFuel))
        .then(|| ended("FuelExhausted", "all units of fuel are used"))
}

/// Whether an error is a trap: nobody else has told the log why the guest ended.
pub(crate) fn is_unexplained(error: &wasmtime::Error) -> bool {
    error.downcast_ref::<I32Exit>().is_none()
}

/// What a guest's log says of its trap: where in the guest, and why. The error's own debug form would add the stack of this
/// process where the environment asks for backtraces.
pub(crate) fn explanation(error: &wasmtime::Error) -> String {
    let mut text = error.to_string();
    for (depth, cause) in error.chain().skip(1).enumerate() {
        let _ = write!(text, "{}{cause}", if depth == 0 { "\n\nCaused by:\n    " } else { "\n    " });
    }
    text
}

pub(crate) fn killed() -> Exit {
    code(KILLED)
}

pub(crate) fn terminated() -> Exit {
    code(TERMINATED)
}

pub(crate) fn code(code: i32) -> Exit {
    Exit { code, signal: None, reason: None, message: None, log_tail: None }
}

/// An end that the runtime brought about, with its own reason.
fn ended(reason: &str, message: &str) -> Exit {
    Exit { reason: Some(reason.to_owned()), message: Some(message.to_owned()), ..code(KILLED) }
}

/// A failure of the runtime itself.
pub(crate) fn failed(message: &str) -> Exit {
    Exit { message: Some(bounded(message)), ..code(1) }
}

/// At most as many bytes as a message may have, cut between characters.
fn bounded(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_explained_without_the_stack_of_this_process() {
        let error = wasmtime::Error::msg("wasm trap: unreachable").context("in the guest").context("at function 0");
        assert_eq!(explanation(&error), "at function 0\n\nCaused by:\n    in the guest\n    wasm trap: unreachable");
    }
}
