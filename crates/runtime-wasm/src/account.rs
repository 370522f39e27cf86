//! What one container may use and has used: CPU time, memory, instructions.
//!
//! Every instance of a container (one for a command, one a request for a service) draws on the same account.

mod bucket;
mod memory;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle_node::runtime::{Limits, Usage};

use crate::slices::Slicing;
use crate::virtual_core::{SLICE_FUEL_MAX, core_time};

use self::bucket::Bucket;
pub(crate) use self::memory::{Held, InstanceMemory, MemoryAccount, MemoryExceeded, NodeMemory};

/// The period over which CPU and fuel quotas are kept: short enough that a limited service answers evenly, long enough
/// that an epoch tick is a small part of it.
const PERIOD: Duration = Duration::from_millis(20);
/// Thousandths of a core of `requests.cpu` for each epoch tick of a time slice: guests that all want more than there
/// is take turns, so the length of a turn is the share.
const MILLIS_A_TICK: u64 = 100;
/// The longest time slice in ticks; every guest thread is free for another guest after that long.
const SLICE_TICKS_MAX: u64 = 10;
/// Instructions after which a guest's count is brought up to date, where no rate asks for more often.
const FUEL_INTERVAL_MAX: u64 = 10_000_000;
/// The least: below it a guest would do little but count.
const FUEL_INTERVAL_MIN: u64 = 10_000;
/// Nanoseconds of CPU a second in a thousandth of a core.
const NANOS_A_MILLI: u64 = 1_000_000;

/// The account of one container.
#[derive(Debug)]
pub(crate) struct Account {
    cpu_nanos: AtomicU64,
    cpu: Option<Mutex<Bucket>>,
    pub(crate) memory: Arc<MemoryAccount>,
    /// Whether the container asks for instructions to be counted.
    pub(crate) metered: bool,
    /// Whether its time slices are counts of instructions.
    by_fuel: bool,
    /// Instructions after which an instance's count is brought up to date: a part of a period's, where there is a rate.
    pub(crate) fuel_interval: u64,
    fuel_used: AtomicU64,
    fuel_total: Option<u64>,
    fuel: Option<Mutex<Bucket>>,
    /// Epoch ticks in a time slice.
    pub(crate) slice_ticks: u64,
}

/// A container has used the instructions that it was given for its life.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("all {total} units of fuel are used")]
pub(crate) struct FuelExhausted {
    total: u64,
}

impl Account {
    pub(crate) fn new(limits: &Limits, node: &Arc<NodeMemory>, slicing: &Slicing) -> Self {
        let now = slicing.now();
        let by_fuel = slicing.is_by_fuel();
        let bucket = |per_second| Mutex::new(Bucket::new(per_second, PERIOD, now));
        let often = (limits.fuel_per_second.unwrap_or(u64::MAX) / 200).clamp(FUEL_INTERVAL_MIN, FUEL_INTERVAL_MAX);
        // A slice longer than the quota of a period would only make debt.
        let quota_ticks = limits.cpu_millis.map_or(u64::MAX, |millis| millis * PERIOD.as_millis() as u64 / 1_000);
        let longest = quota_ticks.clamp(1, SLICE_TICKS_MAX);
        Self {
            cpu_nanos: AtomicU64::new(0),
            cpu: limits.cpu_millis.map(|millis| bucket(millis.max(1).saturating_mul(NANOS_A_MILLI))),
            memory: Arc::new(MemoryAccount::new(limits.memory, Arc::clone(node))),
            metered: limits.fuel.is_some() || limits.fuel_per_second.is_some(),
            by_fuel,
            fuel_interval: if by_fuel { SLICE_FUEL_MAX } else { often },
            fuel_used: AtomicU64::new(0),
            fuel_total: limits.fuel,
            fuel: limits.fuel_per_second.map(|per_second| bucket(per_second.max(1))),
            slice_ticks: (limits.cpu_weight / MILLIS_A_TICK).clamp(1, longest),
        }
    }

    /// How long the container's instances have to pause before they may run on; `None`: they may run.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        let wait = |bucket: &Option<Mutex<Bucket>>| {
            let bucket = bucket.as_ref()?;
            bucket.lock().unwrap_or_else(PoisonError::into_inner).pause(now)
        };
        wait(&self.cpu).max(wait(&self.fuel))
    }

    /// Charges CPU time.
    pub(crate) fn charge_cpu(&self, nanos: u64) {
        self.cpu_nanos.fetch_add(nanos, Ordering::Relaxed);
        spend(self.cpu.as_ref(), nanos);
    }

    /// Whether its instances have a tank.
    pub(crate) fn has_tank(&self) -> bool {
        self.metered || self.by_fuel
    }

    /// A whole slice of instructions was used: the time that it takes.
    pub(crate) fn charge_slice(&self) -> Duration {
        let took = core_time(self.fuel_interval);
        self.charge_cpu(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        spend(self.fuel.as_ref(), self.fuel_interval);
        took
    }

    /// Charges instructions; answers how many are left for the instance to take at once.
    pub(crate) fn charge_fuel(&self, units: u64) -> Result<u64, FuelExhausted> {
        let used = self.fuel_used.fetch_add(units, Ordering::Relaxed).saturating_add(units);
        // Whole slices were spent as they were used.
        spend(self.fuel.as_ref(), if self.by_fuel { units % self.fuel_interval } else { units });
        match self.fuel_total {
            None => Ok(u64::MAX),
            Some(total) if used < total => Ok(total - used),
            Some(total) => Err(FuelExhausted { total }),
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            cpu_nanos: self.cpu_nanos.load(Ordering::Relaxed),
            memory_bytes: self.memory.used(),
            fuel: self.metered.then(|| self.fuel_used.load(Ordering::Relaxed)),
        }
    }
}

fn spend(bucket: Option<&Mutex<Bucket>>, units: u64) {
    if let Some(bucket) = bucket {
        bucket.lock().unwrap_or_else(PoisonError::into_inner).spend(units);
    }
}
