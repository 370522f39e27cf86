//! The clocks that a driver may have: the machine's, or tokio's paused one for virtual time.

use std::time::{Duration, SystemTime};

use coracle_base::{Instant, Now, Timestamp};

/// Where `Now` comes from. Everything in the process that needs time asks the cluster's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: tokio::time::Instant,
    /// With virtual time: the wall time at the origin. Otherwise the operating system is asked.
    wall_at_origin: Option<Timestamp>,
}

impl Clock {
    /// The machine's clocks.
    pub(crate) fn system() -> Self {
        Self { origin: tokio::time::Instant::now(), wall_at_origin: None }
    }

    /// tokio's clock, paused or not, from a wall time that is the same in every run.
    pub(crate) fn virtual_from(wall: Timestamp) -> Self {
        Self { origin: tokio::time::Instant::now(), wall_at_origin: Some(wall) }
    }

    /// Whether time is made up, so that nothing may be measured of the machine.
    pub(crate) fn is_virtual(self) -> bool {
        self.wall_at_origin.is_some()
    }

    /// Both readings.
    pub(crate) fn now(self) -> Now {
        let elapsed = self.origin.elapsed();
        let mono = Instant::ZERO + elapsed;
        let wall = self.wall_at_origin.map_or_else(system_wall, |wall| wall + elapsed);
        Now { mono, wall }
    }

    /// Waits until a monotonic reading.
    pub(crate) async fn sleep_until(self, instant: Instant) {
        tokio::time::sleep_until(self.origin + Duration::from_nanos(instant.as_nanos())).await;
    }
}

fn system_wall() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH + since
}
