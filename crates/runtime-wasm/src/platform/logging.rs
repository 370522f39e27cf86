//! `wasi:logging/logging`: lines of the container's log, with their level and context.

use std::fmt::Write as _;

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker};

use crate::guest::Guest;

/// The longest message and context of a line, in bytes; a line of the log has 16 KiB.
const MESSAGE_MAX: usize = 15 << 10;
const CONTEXT_MAX: usize = 256;

/// The proposal has no version of its own; bindings are made with either name.
const NAMES: [&str; 2] = ["wasi:logging/logging@0.1.0-draft", "wasi:logging/logging"];

#[expect(dead_code, reason = "guests make them")]
#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in NAMES {
        let mut logging = linker.instance(name)?;
        logging.func_wrap_async(
            "log",
            |guest: StoreContextMut<'_, Guest>, (level, context, message): (Level, String, String)| {
                Box::new(async move {
                    let log = &guest.data().platform.log;
                    // Whoever is attached and reads nothing holds the guest up.
                    log.writable().await;
                    log.line(&line(level, &context, &message));
                    Ok(())
                })
            },
        )?;
    }
    Ok(())
}

/// `WARN database: connection lost`, in one line whatever is in it.
fn line(level: Level, context: &str, message: &str) -> String {
    let level = match level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
        Level::Critical => "CRITICAL",
    };
    let mut line = level.to_owned();
    if !context.is_empty() {
        line.push(' ');
        push(&mut line, context, CONTEXT_MAX);
    }
    line.push_str(": ");
    push(&mut line, message.trim_end(), MESSAGE_MAX);
    line
}

/// Appends a text as far as it fits; a control character, line ends among them, is written as its escape.
fn push(line: &mut String, text: &str, max: usize) {
    let end = line.len() + max;
    for character in text.chars() {
        let before = line.len();
        match character {
            '\t' => line.push('\t'),
            control if control.is_control() => {
                let _ = write!(line, "{}", control.escape_default());
            }
            other => line.push(other),
        }
        if line.len() > end {
            line.truncate(before);
            line.push('…');
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_level_and_context() {
        assert_eq!(line(Level::Warn, "database", "connection lost\n"), "WARN database: connection lost");
        assert_eq!(line(Level::Critical, "", "fire"), "CRITICAL: fire");
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(line(Level::Info, "a\nb", "one\r\ntwo\u{1b}[0m"), "INFO a\\nb: one\\r\\ntwo\\u{1b}[0m");
        let long = line(Level::Trace, &"é".repeat(1_000), &"\n".repeat(100_000).replace('\n', "\nx"));
        assert!(long.len() < 16 << 10 && long.contains('…'), "{}", long.len());
    }
}
