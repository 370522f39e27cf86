//! A quota as a token bucket that may go into debt: what a slice took too much is waited for before the next.

use std::time::{Duration, Instant};

/// Tokens that flow in at a rate.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: u64,
    /// The most tokens that gather while nothing runs: one period's.
    capacity: i128,
    /// Tokens times a thousand million, so that nothing is rounded away.
    level: i128,
    filled: Instant,
}

/// Nanoseconds in a second: the scale of `level` and `capacity`.
const SCALE: i128 = 1_000_000_000;

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_second: u64, period: Duration, now: Instant) -> Self {
        let capacity = i128::from(per_second) * period.as_nanos() as i128;
        Self { per_second, capacity, level: capacity, filled: now }
    }

    pub(super) fn spend(&mut self, units: u64) {
        self.level -= i128::from(units) * SCALE;
    }

    /// How long until it is half full, if it is empty.
    ///
    /// Half, not full: a timer that fires late must not spill tokens, or the long-run rate would be too low.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let elapsed = now.saturating_duration_since(self.filled).as_nanos() as i128;
        self.filled = now;
        self.level = (self.level + elapsed * i128::from(self.per_second)).min(self.capacity);
        if self.level > 0 {
            return None;
        }
        let missing = self.capacity / 2 - self.level;
        let nanos = (missing / i128::from(self.per_second)).max(1);
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn half_a_core_runs_half_of_the_time_however_late_its_timers_fire() {
        let mut now = Instant::now();
        let start = now;
        let mut bucket = Bucket::new(500_000_000, 20 * MS, now);
        let mut ran = Duration::ZERO;
        while now < start + 1_000 * MS {
            if let Some(pause) = bucket.pause(now) {
                now += pause + 2 * MS;
            } else {
                bucket.spend(1_000_000);
                ran += MS;
                now += MS;
            }
        }
        let share = ran.as_secs_f64() / now.duration_since(start).as_secs_f64();
        assert!((0.485..0.515).contains(&share), "{share}");
    }

    #[test]
    fn idle_time_gathers_no_more_than_one_period() {
        let now = Instant::now();
        let mut bucket = Bucket::new(1_000_000_000, 20 * MS, now);
        let later = now + 10_000 * MS;
        assert_eq!(bucket.pause(later), None);
        bucket.spend(20_000_000);
        assert_eq!(bucket.pause(later), Some(10 * MS));
    }
}
