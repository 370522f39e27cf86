//! What happened, in order: a digest of all of it, and the last lines for who looks into a failure.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use coracle_base::Instant;
use sha2::{Digest as _, Sha256};

/// How many lines are kept where nobody says: enough to see what led to a failure.
pub(crate) const LINES: usize = 60;

/// The trace of a run. Equal seeds have equal digests.
pub(crate) struct Trace {
    keep: usize,
    digest: Sha256,
    lines: VecDeque<String>,
    line: String,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl Trace {
    /// A trace that keeps so many lines; without any a run is faster.
    pub(crate) fn keeping(keep: usize) -> Self {
        Self { keep, digest: Sha256::new(), lines: VecDeque::new(), line: String::new() }
    }

    /// Notes a line at a time.
    pub(crate) fn note(&mut self, at: Instant, what: fmt::Arguments<'_>) {
        let mut line = if self.lines.len() < self.keep { String::new() } else { std::mem::take(&mut self.line) };
        line.clear();
        let micros = at.as_nanos() / 1000;
        write!(line, "{:>7}.{:06} {what}", micros / 1_000_000, micros % 1_000_000).expect("a string takes any text");
        self.bytes(line.as_bytes());
        self.lines.push_back(line);
        if self.lines.len() > self.keep {
            self.line = self.lines.pop_front().unwrap_or_default();
        }
    }

    /// Takes bytes into the digest without a line of their own.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.digest.update((bytes.len() as u64).to_le_bytes());
        self.digest.update(bytes);
    }

    /// The digest of everything up to now, in hexadecimal.
    pub(crate) fn digest(&self) -> String {
        self.digest.clone().finalize().iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes any text");
            text
        })
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}
