//! Images turned into something that runs: compiled once per content and engine, kept in files and in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{Engine, ExternType, Module};

use crate::engine::{Engines, Flavor, Metering};
use crate::error::Error;
use crate::files;
use crate::guest::Guest;
use crate::image_store::ImageStore;
use crate::inspect::ImageDetails;
use crate::{offers, platform};

/// Compiled programs kept in memory beyond those that run: each is about the size of its code.
const KEPT_MAX: usize = 64;

/// A compiled image.
pub(crate) struct Program {
    pub(crate) flavor: Arc<Flavor>,
    /// The program joined with what it imports; or which import is missing.
    pub(crate) linked: Result<Linked, String>,
    /// Whether it asks to be told of its termination: then it ends by itself.
    pub(crate) hears_termination: bool,
    /// Whether it asks what its pod is.
    pub(crate) asks_for_pod: bool,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("flavor", &self.flavor).finish_non_exhaustive()
    }
}

/// The kinds of programs.
#[derive(Clone)]
pub(crate) enum Linked {
    /// A core module with `_start`.
    Module(wasmtime::InstancePre<Guest>),
    /// A component that exports `wasi:cli/run`.
    Command(Command),
    /// A component that answers HTTP requests, and perhaps exports a `wasi:cli/run` that goes first.
    Service { handler: Handler, start: Option<Command> },
}

/// A `wasi:cli/run`, in the version that the component is built for.
#[derive(Clone)]
pub(crate) enum Command {
    Wasi2(wasmtime_wasi::p2::bindings::CommandPre<Guest>),
    Wasi3(wasmtime_wasi::p3::bindings::CommandPre<Guest>),
}

/// What answers HTTP requests: `wasi:http/incoming-handler` of 0.2, or `wasi:http/handler` of 0.3.
#[derive(Clone)]
pub(crate) enum Handler {
    Wasi2(wasmtime_wasi_http::p2::bindings::ProxyPre<Guest>),
    Wasi3(wasmtime_wasi_http::p3::bindings::ServicePre<Guest>),
}

/// Compiles, and remembers.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// Where compiled code is kept. Only this process writes there: what is read back is run.
    dir: Option<PathBuf>,
    engines: Arc<Engines>,
    permits: Semaphore,
    kept: Mutex<Kept>,
}

#[derive(Default, Debug)]
struct Kept {
    programs: BTreeMap<(String, Metering), Entry>,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    program: Arc<OnceCell<Arc<Program>>>,
    used: u64,
}

impl Compiler {
    pub(crate) fn new(dir: Option<PathBuf>, engines: Arc<Engines>, concurrency: usize) -> Self {
        Self { dir, engines, permits: Semaphore::new(concurrency.max(1)), kept: Mutex::default() }
    }

    /// The program of an image's contents, compiled if it has to be. The error says what is wrong with the image.
    pub(crate) async fn program(
        self: &Arc<Self>,
        images: &Arc<ImageStore>,
        digest: &str,
        metering: Metering,
    ) -> Result<Arc<Program>, String> {
        let cell = self.entry(digest, metering);
        let program = cell.get_or_try_init(|| async {
            let _permit = self.permits.acquire().await.map_err(|error| error.to_string())?;
            let (compiler, images, digest) = (Arc::clone(self), Arc::clone(images), digest.to_owned());
            tokio::task::spawn_blocking(move || compiler.load(&images, &digest, metering))
                .await
                .map_err(|error| format!("compiling failed: {error}"))?
        });
        program.await.cloned()
    }

    fn entry(&self, digest: &str, metering: Metering) -> Arc<OnceCell<Arc<Program>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clock += 1;
        let used = kept.clock;
        let key = (digest.to_owned(), metering);
        if kept.programs.len() >= KEPT_MAX && !kept.programs.contains_key(&key) {
            let oldest = kept.programs.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| kept.programs.remove(&oldest));
        }
        let entry = kept.programs.entry(key).or_insert_with(|| Entry { program: Arc::default(), used });
        entry.used = used;
        Arc::clone(&entry.program)
    }

    fn load(&self, images: &ImageStore, digest: &str, metering: Metering) -> Result<Arc<Program>, String> {
        let flavor = self.engines.flavor(metering)?;
        let bytes = images.contents(digest).map_err(|error| describe(&error))?;
        offers::check(&bytes)?;
        if !is_component(&bytes) {
            let linked = link_module(&flavor, &self.module(&flavor, digest, &bytes)?)?;
            return Ok(Arc::new(Program { flavor, linked, hears_termination: false, asks_for_pod: false }));
        }
        let component = self.component(&flavor, digest, &bytes)?;
        let linked = link_component(&flavor, &component)?;
        let asks = |function| imports_function(&flavor.engine, &component, platform::LIFECYCLE, function);
        let (hears_termination, asks_for_pod) = (asks(platform::TERMINATION), asks("pod"));
        Ok(Arc::new(Program { flavor, linked, hears_termination, asks_for_pod }))
    }

    fn module(&self, flavor: &Flavor, digest: &str, bytes: &[u8]) -> Result<Module, String> {
        if let Some(path) = self.cached(flavor, digest) {
            #[expect(unsafe_code, reason = "compiled code is only fast to load if it is not compiled again")]
            // SAFETY: the file lies in a folder that only this user may enter and only `keep` writes to, whole or not
            // at all, with code that this wasmtime compiled; wasmtime checks its own version and settings in it.
            match unsafe { Module::deserialize_file(&flavor.engine, &path) } {
                Ok(module) => return Ok(module),
                Err(error) => tracing::warn!(path = %path.display(), %error, "compiling again"),
            }
        }
        let module = Module::from_binary(&flavor.engine, bytes).map_err(not_wasm)?;
        self.keep(flavor, digest, || module.serialize());
        Ok(module)
    }

    fn component(&self, flavor: &Flavor, digest: &str, bytes: &[u8]) -> Result<Component, String> {
        if let Some(path) = self.cached(flavor, digest) {
            #[expect(unsafe_code, reason = "compiled code is only fast to load if it is not compiled again")]
            // SAFETY: as for modules above.
            match unsafe { Component::deserialize_file(&flavor.engine, &path) } {
                Ok(component) => return Ok(component),
                Err(error) => tracing::warn!(path = %path.display(), %error, "compiling again"),
            }
        }
        let component = Component::from_binary(&flavor.engine, bytes).map_err(not_wasm)?;
        self.keep(flavor, digest, || component.serialize());
        Ok(component)
    }

    fn path(&self, flavor: &Flavor, digest: &str) -> Option<PathBuf> {
        let hex = digest.strip_prefix("sha256:")?;
        Some(self.dir.as_ref()?.join(format!("{hex}-{}.cwasm", flavor.compatibility)))
    }

    fn cached(&self, flavor: &Flavor, digest: &str) -> Option<PathBuf> {
        self.path(flavor, digest).filter(|path| path.exists())
    }

    /// Keeps compiled code for the next start. Without it that one only takes longer.
    fn keep(&self, flavor: &Flavor, digest: &str, code: impl FnOnce() -> wasmtime::Result<Vec<u8>>) {
        let Some(path) = self.path(flavor, digest) else { return };
        let kept = code()
            .map_err(|error| format!("{error:#}"))
            .and_then(|code| files::write_atomically(&path, &code, 0o600).map_err(|error| error.to_string()));
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), error, "cannot keep compiled code");
        }
    }

    /// The size of the compiled code that is kept of an image, in bytes.
    pub(crate) fn size(&self, digest: &str) -> u64 {
        compiled_size(self.dir.as_deref(), digest)
    }

    /// What an image is; `None`: there is none of this name.
    pub(crate) fn inspect(&self, images: &ImageStore, name: &str) -> Result<Option<ImageDetails>, Error> {
        images.inspect(name, self.dir.as_deref())
    }

    /// Removes compiled code of an image that is gone.
    pub(crate) fn forget(&self, digest: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.programs.retain(|(kept, _), _| kept != digest);
        drop(kept);
        let (Some(dir), Some(hex)) = (&self.dir, digest.strip_prefix("sha256:")) else { return };
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(hex) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The size of the compiled code that is kept of an image in a folder, in bytes.
pub(crate) fn compiled_size(dir: Option<&Path>, digest: &str) -> u64 {
    let (Some(dir), Some(hex)) = (dir, digest.strip_prefix("sha256:")) else { return 0 };
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let own = files.filter(|entry| entry.file_name().to_string_lossy().starts_with(hex));
    own.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// Whether a binary is a component: its header's layer is 1, a module's is 0.
pub(crate) fn is_component(bytes: &[u8]) -> bool {
    bytes.get(6..8) == Some(&[1, 0])
}

pub(crate) fn not_wasm(error: wasmtime::Error) -> String {
    format!("the image is not valid WebAssembly: {error:#}")
}

/// An error with all its causes in one sentence.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Whether a module is a program.
pub(crate) fn has_start(module: &Module) -> Result<(), String> {
    if matches!(module.get_export("_start"), Some(ExternType::Func(_))) {
        return Ok(());
    }
    Err("the module exports no function `_start`: it is a library, not a program".to_owned())
}

fn link_module(flavor: &Flavor, module: &Module) -> Result<Result<Linked, String>, String> {
    has_start(module)?;
    let linked = flavor.modules.instantiate_pre(module).map(Linked::Module);
    Ok(linked.map_err(|error| format!("{error:#}")))
}

/// Whether a component imports this function of an interface whose name starts so; toolchains leave out what a program does not use.
fn imports_function(engine: &Engine, component: &Component, interface: &str, function: &str) -> bool {
    component.component_type().imports(engine).any(|(name, import)| match import.ty {
        ComponentItem::ComponentInstance(instance) if name.starts_with(interface) => {
            instance.exports(engine).any(|(name, _)| name == function)
        }
        _ => false,
    })
}

fn link_component(flavor: &Flavor, component: &Component) -> Result<Result<Linked, String>, String> {
    let ty = component.component_type();
    let exports = |interface: &str| ty.exports(&flavor.engine).any(|(name, _)| name.starts_with(interface));
    let command = version(exports("wasi:cli/run@0.2."), exports("wasi:cli/run@0.3."));
    let handler = version(exports("wasi:http/incoming-handler@0.2."), exports("wasi:http/handler@0.3."));
    if command.is_none() && handler.is_none() {
        return Err(
            "the component exports neither `wasi:cli/run` nor `wasi:http/incoming-handler` nor `wasi:http/handler` of \
                    WASI 0.2 or 0.3: it is a library, not a program"
                .to_owned(),
        );
    }
    let link = || -> wasmtime::Result<Linked> {
        let pre = flavor.components.instantiate_pre(component)?;
        let command = command.map(|version| match version {
            Version::Wasi2 => wasmtime_wasi::p2::bindings::CommandPre::new(pre.clone()).map(Command::Wasi2),
            Version::Wasi3 => wasmtime_wasi::p3::bindings::CommandPre::new(pre.clone()).map(Command::Wasi3),
        });
        let handler = match handler {
            Some(Version::Wasi2) => Handler::Wasi2(wasmtime_wasi_http::p2::bindings::ProxyPre::new(pre)?),
            Some(Version::Wasi3) => Handler::Wasi3(wasmtime_wasi_http::p3::bindings::ServicePre::new(pre)?),
            None => return command.transpose()?.map(Linked::Command).ok_or_else(|| wasmtime::Error::msg("no program")),
        };
        Ok(Linked::Service { handler, start: command.transpose()? })
    };
    Ok(link().map_err(|error| format!("{error:#}")))
}

/// Which WASI a component is built for.
#[derive(Clone, Copy, Debug)]
enum Version {
    Wasi2,
    Wasi3,
}

/// The newer of what is there.
fn version(has_2: bool, has_3: bool) -> Option<Version> {
    if has_3 { Some(Version::Wasi3) } else { has_2.then_some(Version::Wasi2) }
}
