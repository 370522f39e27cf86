//! What simulated nodes run: modules by name, compiled and linked with the hosts of this module.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::{Config, Engine, InstancePre, Linker, Module, WasmBacktraceDetails};

use super::guest::Guest;
use super::wasi;
use crate::error::Error;
use crate::image_store::{Image, ImageStore};
use crate::{offers, program};

/// Compiled programs that are kept: a cluster in a test has fewer.
const PROGRAMS_MAX: usize = 64;

/// The images of a simulated cluster, for all of its nodes; in memory, and compiled once.
#[derive(Clone)]
pub struct SimulatedImages(Arc<Images>);

struct Images {
    engine: Engine,
    linker: Linker<Guest>,
    store: ImageStore,
    /// By the digest of an image's contents.
    programs: Mutex<BTreeMap<String, Program>>,
}

/// A module: joined with what it imports, or which import is missing; or what is wrong with the image.
pub(super) type Program = Result<Linked, String>;

/// A module that can be created; the error is found when it is started.
pub(super) type Linked = Result<InstancePre<Guest>, String>;

impl fmt::Debug for SimulatedImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedImages").field("store", &self.0.store).finish_non_exhaustive()
    }
}

impl SimulatedImages {
    /// An empty store.
    ///
    /// # Errors
    ///
    /// When wasmtime cannot run on this machine.
    pub fn new() -> Result<Self, Error> {
        let made = || -> wasmtime::Result<(Engine, Linker<Guest>)> {
            let engine = Engine::new(&config())?;
            let mut linker = Linker::new(&engine);
            wasi::link(&mut linker)?;
            Ok((engine, linker))
        };
        let (engine, linker) = made().map_err(|error| Error::Engine(format!("{error:#}")))?;
        let store = ImageStore::open(None, None)?;
        Ok(Self(Arc::new(Images { engine, linker, store, programs: Mutex::default() })))
    }

    /// Takes an image in: a core module with `_start`, binary or text.
    ///
    /// # Errors
    ///
    /// On an invalid name, on what is not WebAssembly, and beyond [`IMAGE_SIZE_MAX`](crate::IMAGE_SIZE_MAX).
    pub fn import(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.0.store.import(name, bytes).map(drop)
    }

    pub(super) fn store(&self) -> &ImageStore {
        &self.0.store
    }

    /// An image's program, compiled if it has to be.
    pub(super) fn program(&self, image: &Image) -> Program {
        let mut programs = self.0.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(&image.digest) {
            return program.clone();
        }
        if programs.len() >= PROGRAMS_MAX {
            programs.pop_first();
        }
        let program = self.load(image);
        programs.insert(image.digest.clone(), program.clone());
        program
    }

    fn load(&self, image: &Image) -> Program {
        let bytes = self.0.store.contents(&image.digest).map_err(|error| error.to_string())?;
        if program::is_component(&bytes) {
            return Err("components do not run in simulation: only core modules with `_start` do".to_owned());
        }
        offers::check(&bytes)?;
        let module = Module::from_binary(&self.0.engine, &bytes).map_err(program::not_wasm)?;
        program::has_start(&module)?;
        Ok(self.0.linker.instantiate_pre(&module).map_err(|error| format!("{error:#}")))
    }
}

/// Everything that could differ from machine to machine or from run to run is fixed: what NaNs look like, what relaxed
/// instructions do, what a trap says. Instructions are counted, because they are the time.
fn config() -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .parallel_compilation(false)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}
