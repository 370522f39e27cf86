//! The core that guests have under virtual time: how long instructions take there.

use std::time::Duration;

/// Instructions (units of fuel) that a virtual core carries out in a microsecond.
///
/// A core of ten million instructions a second is slow enough that an hour of a guest that spins is over in about a minute,
/// and fast enough that what a program does at its start takes milliseconds.
const FUEL_A_MICROSECOND: u64 = 10;
/// The same in a second.
pub(crate) const FUEL_A_SECOND: u64 = FUEL_A_MICROSECOND * 1_000_000;
/// The longest turn of a guest, in instructions: ten milliseconds. One that spins can be stopped after each.
pub(crate) const SLICE_FUEL_MAX: u64 = FUEL_A_SECOND / 100;

/// What so many instructions take.
pub(crate) fn core_time(fuel: u64) -> Duration {
    Duration::from_nanos(fuel.saturating_mul(1_000 / FUEL_A_MICROSECOND))
}
