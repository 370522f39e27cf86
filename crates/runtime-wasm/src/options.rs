//! What an embedder chooses about the runtime.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_base::Timestamp;

use crate::registry::Registries;

/// Images that come with the program: the bytes of a canonical name (`docker.io/library/web:latest`), or nothing.
pub type BuiltinImages = Arc<dyn Fn(&str) -> Option<Arc<[u8]>> + Send + Sync>;

/// Where guests run, and by which clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// On threads of the runtime's own, by the machine's clocks.
    #[default]
    Threads,
    /// On the tokio runtime that [`WasmRuntime::new`](crate::WasmRuntime::new) is called in, by its clock, paused or not. It must be a
    /// current_thread runtime.
    ///
    /// Guests have turns of 100,000 instructions, which take ten milliseconds of that clock: a guest that spins takes time like any
    /// other, and a paused clock goes on only when every guest waits. What they draw comes from the seed; an instance that draws more
    /// than 64 KiB gets the same again.
    Inline {
        /// The wall time when the runtime is made.
        wall: Timestamp,
        /// Where guests' randomness begins.
        seed: u64,
    },
}

/// How a [`WasmRuntime`](crate::WasmRuntime) is set up.
#[derive(Clone)]
#[non_exhaustive]
pub struct WasmOptions {
    /// Where images, compiled code and volumes are kept. `None`: images in memory, volumes in a temporary folder that
    /// goes with the runtime.
    pub state_dir: Option<PathBuf>,
    /// Where guests run. The threads below are those of [`Placement::Threads`].
    pub placement: Placement,
    /// Threads that run guests and nothing else, 1 or more. The default is one a core.
    pub guest_threads: usize,
    /// The most instances at one time (a command is one, and so is each request in flight of a service),
    /// from 1 to 10,000. Each reserves 4 GiB of address space, of which only what is touched is memory.
    pub max_instances: u32,
    /// The most images that are compiled at one time, 1 or more.
    pub compile_concurrency: usize,
    /// The most linear memory of all guests together, in bytes.
    pub memory_total: u64,
    /// How registries are reached; `None`: nothing is fetched, and images are imported or built in. Nothing is fetched inline either: what
    /// comes from outside takes time that a paused clock knows nothing of.
    pub registries: Option<Registries>,
    /// Images that come with the program. The store's own images go before them.
    pub builtin_images: Option<BuiltinImages>,
}

impl Default for WasmOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            state_dir: None,
            placement: Placement::Threads,
            guest_threads: cores,
            max_instances: 1_000,
            // A compilation uses every core itself; a second one keeps them busy where the first is sequential.
            compile_concurrency: 2,
            memory_total: 16 << 30,
            registries: Some(Registries::default()),
            builtin_images: None,
        }
    }
}

impl fmt::Debug for WasmOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmOptions")
            .field("state_dir", &self.state_dir)
            .field("placement", &self.placement)
            .field("guest_threads", &self.guest_threads)
            .field("max_instances", &self.max_instances)
            .field("compile_concurrency", &self.compile_concurrency)
            .field("memory_total", &self.memory_total)
            .field("registries", &self.registries)
            .field("builtin_images", &self.builtin_images.is_some())
            .finish()
    }
}
