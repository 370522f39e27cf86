//! Waiting for a condition: looked at again and again until it holds, and never longer than a minute.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Far more than anything takes on a slow machine, so that only what never happens fails.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits for `look` to answer `Ok`; its last `Err` says in a failure what was there instead.
#[track_caller]
pub(crate) fn eventually<T, E: Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// The same for what takes long by its nature.
#[track_caller]
pub(crate) fn eventually_within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) if Instant::now() > deadline => panic!("it never came to be that {what}: {instead:#?}"),
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}
