//! Where tasks run: on threads of the runtime's own, or inline on the caller's runtime, by its clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_base::{Rng, Timestamp};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use wasmtime_wasi::{Deterministic, HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// Tasks after which those that are over are looked for the first time.
const TASKS_KEPT: usize = 256;
/// Bytes that one instance draws before they begin again.
const DRAWN_BYTES: usize = 64 << 10;

/// Spawns tasks on a runtime. On somebody else's they are remembered, because they have to end before it does.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    handle: Handle,
    spawned: Option<Arc<Mutex<Spawned>>>,
}

#[derive(Debug, Default)]
struct Spawned {
    tasks: Vec<AbortHandle>,
    look_at: usize,
}

impl Spawner {
    /// On a runtime that ends its tasks itself.
    pub(crate) fn on(handle: &Handle) -> Self {
        Self { handle: handle.clone(), spawned: None }
    }

    /// On a runtime that goes on after [`Self::end`].
    pub(crate) fn beside(handle: Handle) -> Self {
        Self { handle, spawned: Some(Arc::default()) }
    }

    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.handle.spawn(task);
        if let Some(spawned) = &self.spawned {
            let mut spawned = spawned.lock().unwrap_or_else(PoisonError::into_inner);
            if spawned.tasks.len() >= spawned.look_at.max(TASKS_KEPT) {
                spawned.tasks.retain(|task| !task.is_finished());
                spawned.look_at = spawned.tasks.len() * 2;
            }
            spawned.tasks.push(task.abort_handle());
        }
        task
    }

    pub(crate) fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.handle.spawn_blocking(work);
    }

    /// Ends what was spawned beside others.
    pub(crate) fn end(&self) {
        let Some(spawned) = &self.spawned else { return };
        for task in spawned.lock().unwrap_or_else(PoisonError::into_inner).tasks.drain(..) {
            task.abort();
        }
    }
}

/// The clocks and the randomness of guests that run inline.
#[derive(Debug)]
pub(crate) struct Inline {
    origin: Instant,
    wall: Timestamp,
    rng: Mutex<Rng>,
}

impl Inline {
    pub(crate) fn new(wall: Timestamp, seed: u64) -> Self {
        Self { origin: Instant::now(), wall, rng: Mutex::new(Rng::seeded(seed)) }
    }

    /// Gives an instance this time and this randomness.
    pub(crate) fn furnish(&self, builder: &mut WasiCtxBuilder) {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner).fork();
        let mut drawn =
            || Deterministic::new((0..DRAWN_BYTES / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect());
        let clock = VirtualClock { origin: self.origin, wall: self.wall };
        builder.wall_clock(clock).monotonic_clock(clock).secure_random(drawn()).insecure_random(drawn());
        builder.insecure_random_seed(u128::from(rng.next_u64()));
    }
}

/// tokio's clock, as guests read it.
#[derive(Clone, Copy, Debug)]
struct VirtualClock {
    origin: Instant,
    wall: Timestamp,
}

impl HostWallClock for VirtualClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(u64::try_from(self.wall.as_nanos()).unwrap_or_default()) + self.origin.elapsed()
    }
}

impl HostMonotonicClock for VirtualClock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
