//! wasmtime, configured twice: for all guests, and for those whose instructions are counted.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::guest::Guest;
use crate::platform;
use crate::slices::Slicing;
use crate::sockets;

/// Core instances that one guest may consist of: a component of Rust's has four.
const CORE_INSTANCES_EACH: u32 = 6;
/// Tables that one guest may have.
const TABLES_EACH: u32 = 4;
/// Heaps for garbage collected guests at one time. Each reserves address space whether it is used or not.
const GC_HEAPS_MAX: u32 = 64;
/// Memory of a pooled slot that is cleared by writing zeros instead of being given back to the operating system.
const KEEP_RESIDENT_BYTES: usize = 64 << 10;
/// Freed slots that keep their pages.
const WARM_SLOTS: u32 = 32;
/// The most instances when address space for the pool cannot be had.
const UNPOOLED_INSTANCES_MAX: u32 = 200;

/// An engine with everything that guests may import.
pub(crate) struct Flavor {
    pub(crate) engine: Engine,
    pub(crate) modules: wasmtime::Linker<Guest>,
    pub(crate) components: wasmtime::component::Linker<Guest>,
    /// Tells compiled code of this engine from any other's.
    pub(crate) compatibility: String,
}

impl fmt::Debug for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flavor").field("compatibility", &self.compatibility).finish_non_exhaustive()
    }
}

/// The engines. Each is made when it is first needed: reserving a pool takes milliseconds that a start need not wait for.
#[derive(Debug)]
pub(crate) struct Engines {
    plain: OnceLock<Result<Arc<Flavor>, String>>,
    /// For containers that ask for fuel.
    metered: OnceLock<Result<Arc<Flavor>, String>>,
    max_instances: u32,
    /// One permit an instance.
    instances: Arc<Semaphore>,
    slicing: Slicing,
}

impl Engines {
    pub(crate) fn new(max_instances: u32, slicing: Slicing) -> Self {
        let instances = Arc::new(Semaphore::new(max_instances as usize));
        Self { plain: OnceLock::new(), metered: OnceLock::new(), max_instances, instances, slicing }
    }

    /// The permits of instances, as many as there may be at one time.
    pub(crate) fn instances(&self) -> Arc<Semaphore> {
        Arc::clone(&self.instances)
    }

    /// The engine for guests with or without counted instructions, or why wasmtime refuses this machine.
    pub(crate) fn flavor(&self, metering: Metering) -> Result<Arc<Flavor>, String> {
        let (flavor, start): (_, fn(&Self) -> wasmtime::Result<Flavor>) = match metering {
            Metering::Off => (&self.plain, Self::start_plain),
            // Not pooled: few ask for fuel, clusters under virtual time are small, and a second pool would reserve as much address
            // space again.
            Metering::On => (&self.metered, |_| Flavor::new(None, Metering::On)),
        };
        let started = flavor.get_or_init(|| {
            let flavor = start(self).map_err(|error| format!("wasmtime cannot run on this machine: {error:#}"))?;
            self.slicing.add(&flavor.engine);
            Ok(Arc::new(flavor))
        });
        started.clone()
    }

    fn start_plain(&self) -> wasmtime::Result<Flavor> {
        Flavor::new(Some(self.max_instances), Metering::Off).or_else(|error| {
            tracing::warn!(%error, "no pool of Wasm instances: fewer can run, and they start slower");
            self.instances.forget_permits(self.max_instances.saturating_sub(UNPOOLED_INSTANCES_MAX) as usize);
            Flavor::new(None, Metering::Off)
        })
    }
}

/// Whether instructions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metering {
    On,
    Off,
}

impl Flavor {
    fn new(pool: Option<u32>, metering: Metering) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        config.epoch_interruption(true).consume_fuel(metering == Metering::On);
        if let Some(instances) = pool {
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(instances)));
        }
        let engine = Engine::new(&config)?;
        let mut modules = wasmtime::Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut modules, |guest: &mut Guest| &mut guest.wasi)?;
        let mut components = wasmtime::component::Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut components)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut components)?;
        platform::link(&mut components)?;
        sockets::add_wasi2_to_linker(&mut components)?;
        wasmtime_wasi::p3::add_to_linker(&mut components)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut components)?;
        sockets::add_wasi3_to_linker(&mut components)?;
        let compatibility = compatibility(&engine);
        Ok(Self { engine, modules, components, compatibility })
    }
}

fn pooling(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances.saturating_mul(CORE_INSTANCES_EACH))
        .total_component_instances(instances)
        .total_memories(instances)
        .total_tables(instances.saturating_mul(TABLES_EACH))
        .total_stacks(instances)
        .total_gc_heaps(instances.min(GC_HEAPS_MAX))
        .max_tables_per_module(TABLES_EACH)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
    pool
}

fn compatibility(engine: &Engine) -> String {
    // `DefaultHasher::new` has fixed keys; another compiler's hash only costs compiling once more.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
