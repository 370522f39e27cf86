//! Exponential back-off as a value.

use std::time::Duration;

/// How long to wait before the next try: doubles from `initial` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    current: Option<Duration>,
}

impl Backoff {
    /// A back-off that has not waited yet.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, current: None }
    }

    /// The next wait: `initial` at first, then twice the one before, at most `max`.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.current.map_or(self.initial, |current| current.saturating_mul(2)).min(self.max);
        self.current = Some(wait);
        wait
    }

    /// The wait that [`Self::next_wait`] returned last.
    pub const fn current(&self) -> Option<Duration> {
        self.current
    }

    /// Starts anew from `initial`.
    pub fn reset(&mut self) {
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_its_maximum_and_starts_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_mins(5));
        let waits: Vec<u64> = (0..7).map(|_| backoff.next_wait().as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next_wait().as_secs(), 10);
    }
}
