//! The runtime itself: its threads, its dispatcher, and the image API.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_api::Uid;
use coracle_node::canonical_image_name;
use coracle_node::runtime::{
    Connecting, OpenError, Opening, Runtime, RuntimeCommand, RuntimeEvent, RuntimeHost, SessionSpec, StreamSpec,
};
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::mpsc;

use crate::account::NodeMemory;
use crate::engine::Engines;
use crate::error::Error;
use crate::files;
use crate::image_store::{Image, ImageStore};
use crate::inspect::ImageDetails;
use crate::network::Side;
use crate::options::{Placement, WasmOptions};
use crate::placement::{Inline, Spawner};
use crate::pod::{self, PodWorker};
use crate::probe::{self, Target};
use crate::program::Compiler;
use crate::registry::Fetcher;
use crate::session;
use crate::shared::{PullRequest, Shared};
use crate::slices::{self, Slicing, Ticker};

/// Threads for commands, connections and probes; guests have their own.
const IO_THREADS: usize = 2;
/// Threads for files, for each of the two thread pools.
const BLOCKING_THREADS_MAX: usize = 32;
/// Polls after which a guest thread looks for timers and for work from outside: a poll may take a whole time slice.
const GUEST_POLLS_A_LOOK: u32 = 4;
/// The most instances that may be asked for: their address space must fit into the 47 bits that a process has.
const MAX_INSTANCES: u32 = 10_000;

/// The Wasm runtime.
///
/// It starts threads of its own and needs no async runtime around it, unless it is placed inline. Dropping it ends every guest. The host is kept
/// alive by the runtime; a host that owns the runtime should own it weakly, or neither will ever be dropped.
pub struct WasmRuntime {
    shared: Arc<Shared>,
    pods: Pods,
    /// Its own: for everything else, and for guests. `None`: it runs inline.
    threads: Option<(tokio::runtime::Runtime, tokio::runtime::Runtime)>,
    /// The folder of a state that is not kept: it goes here, not with the last task that still looks at it.
    temporary: Option<tempfile::TempDir>,
}

/// The queues of the pods' workers. They are bounded by the agent, which waits for answers before it asks again.
type Pods = Arc<Mutex<BTreeMap<Uid, mpsc::UnboundedSender<RuntimeCommand>>>>;

impl fmt::Debug for WasmRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmRuntime").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl WasmRuntime {
    /// Opens the state and starts the threads. This reads files; it compiles nothing.
    pub fn new(options: WasmOptions, host: Arc<dyn RuntimeHost>) -> Result<Arc<Self>, Error> {
        let (state, temporary) = state(options.state_dir.clone())?;
        let images =
            ImageStore::open(options.state_dir.as_ref().map(|dir| dir.join("images")), options.builtin_images)?;
        let compiled = options.state_dir.as_ref().map(|dir| dir.join("compiled"));
        if let Some(dir) = &compiled {
            files::create_private_dir(dir).map_err(Error::io("create", dir))?;
        }
        let pods_dir = state.join("pods");
        files::create_private_dir(&pods_dir).map_err(Error::io("create", &pods_dir))?;
        let fetcher = match (options.registries, &options.placement) {
            (Some(registries), Placement::Threads) => Some(Fetcher::new(registries, fetch_dir(&state)?)),
            _ => None,
        };
        let (slicing, inline) = match options.placement {
            Placement::Threads => (Slicing::Ticks(Ticker::start().map_err(Error::Threads)?), None),
            Placement::Inline { wall, seed } => (Slicing::Fuel, Some(Inline::new(wall, seed))),
        };
        let engines = Arc::new(Engines::new(options.max_instances.clamp(1, MAX_INSTANCES), slicing.clone()));
        let instances = engines.instances();
        let threads = match &inline {
            None => Some(threads(options.guest_threads).map_err(Error::Threads)?),
            Some(_) => None,
        };
        let (io, guests) = if let Some((io, guests)) = &threads {
            (Spawner::on(io.handle()), Spawner::on(guests.handle()))
        } else {
            let beside = Spawner::beside(callers_runtime()?);
            (beside.clone(), beside)
        };
        let shared = Arc::new(Shared {
            host,
            images: Arc::new(images),
            fetcher,
            compiler: Arc::new(Compiler::new(compiled, Arc::clone(&engines), options.compile_concurrency)),
            slicing: slicing.clone(),
            inline,
            guests,
            io: io.clone(),
            instances,
            memory: Arc::new(NodeMemory::new(options.memory_total)),
            network: Arc::default(),
            pods_dir,
            running: Mutex::default(),
        });
        // The first container finds the engine ready; what is wrong with it is told to every container.
        io.spawn_blocking(move || drop(engines.flavor(slicing.metering())));
        Ok(Arc::new(Self { shared, pods: Pods::default(), threads, temporary }))
    }

    /// Takes an image into the store: a module or a component, binary or text. It may be used at once.
    ///
    /// Waits for the disk. Fails on an invalid name, on what is not WebAssembly, and beyond
    /// [`IMAGE_SIZE_MAX`](crate::IMAGE_SIZE_MAX).
    pub fn import(&self, name: &str, bytes: &[u8]) -> Result<Image, Error> {
        self.shared.images.import(name, bytes)
    }

    /// Whether it has an image of this name, imported or built in.
    pub fn has(&self, name: &str) -> bool {
        canonical_image_name(name).is_ok_and(|name| self.shared.images.find(&name).is_some())
    }

    /// The imported images, by name. Built-in ones are not among them.
    pub fn list(&self) -> Vec<Image> {
        self.shared.images.list()
    }

    /// What an image is, fetched and built-in ones included; `None`: there is none of this name.
    pub fn inspect(&self, name: &str) -> Result<Option<ImageDetails>, Error> {
        self.shared.compiler.inspect(&self.shared.images, name)
    }

    /// Takes an image out of the store; `false` if it is not there. Containers that run keep running.
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        let before = self.list();
        let removed = self.shared.images.remove(name)?;
        let after = self.list();
        for image in before.iter().filter(|image| after.iter().all(|left| left.digest != image.digest)) {
            self.shared.compiler.forget(&image.digest);
        }
        Ok(removed)
    }

    fn tell(&self, event: RuntimeEvent) {
        self.shared.host.event(event);
    }

    /// Hands a command to its pod's worker, which is started with the sandbox and ends when the pod is gone.
    fn dispatch(&self, pod: Uid, command: RuntimeCommand) {
        let starts = matches!(command, RuntimeCommand::CreateSandbox(_) | RuntimeCommand::RemoveSandbox(_));
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        match pods.entry(pod) {
            // A worker takes itself out under the same lock: a queue that is here is served.
            Entry::Occupied(queue) => drop(queue.get().send(command)),
            Entry::Vacant(vacant) if starts => {
                let uid = vacant.key().clone();
                let (sender, receiver) = mpsc::unbounded_channel();
                let _ = sender.send(command);
                vacant.insert(sender);
                let worker = PodWorker::new(Arc::clone(&self.shared), uid.clone());
                self.shared.io.spawn(work(Arc::clone(&self.pods), uid, worker, receiver));
            }
            Entry::Vacant(_) => {
                drop(pods);
                if let Some(answer) = pod::absent(command) {
                    self.tell(answer);
                }
            }
        }
    }
}

async fn work(pods: Pods, uid: Uid, mut worker: PodWorker, mut queue: mpsc::UnboundedReceiver<RuntimeCommand>) {
    while let Some(command) = queue.recv().await {
        worker.carry_out(command).await;
        let mut pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_gone() && queue.is_empty() {
            pods.remove(&uid);
            return;
        }
    }
}

/// The runtime that this is called in, if its clock is the only one there.
fn callers_runtime() -> Result<Handle, Error> {
    let handle = Handle::try_current().ok();
    handle.filter(|handle| handle.runtime_flavor() == RuntimeFlavor::CurrentThread).ok_or(Error::NotInline)
}

/// The folder for files while they are fetched: on the same file system as the images. What a process left there that died is nobody's.
fn fetch_dir(state: &Path) -> Result<PathBuf, Error> {
    let dir = state.join("fetching");
    files::remove_dir(&dir).map_err(Error::io("empty", &dir))?;
    files::create_private_dir(&dir).map_err(Error::io("create", &dir))?;
    Ok(dir)
}

/// The folder of the state: the given one, or one that goes with the runtime.
fn state(dir: Option<PathBuf>) -> Result<(PathBuf, Option<tempfile::TempDir>), Error> {
    if let Some(dir) = dir {
        files::create_private_dir(&dir).map_err(Error::io("create", &dir))?;
        return Ok((dir, None));
    }
    let made = tempfile::Builder::new().prefix("coracle-").tempdir();
    let made = made.map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    Ok((made.path().to_owned(), Some(made)))
}

fn threads(guest_threads: usize) -> std::io::Result<(tokio::runtime::Runtime, tokio::runtime::Runtime)> {
    let io = Builder::new_multi_thread()
        .worker_threads(IO_THREADS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("coracle-wasm")
        .enable_all()
        .build()?;
    let guests = Builder::new_multi_thread()
        .worker_threads(guest_threads.max(1))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("coracle-guest")
        .on_thread_start(slices::lower_priority)
        .event_interval(GUEST_POLLS_A_LOOK)
        .global_queue_interval(GUEST_POLLS_A_LOOK)
        .enable_all()
        .build()?;
    Ok((io, guests))
}

impl Runtime for WasmRuntime {
    fn command(&self, command: RuntimeCommand) {
        match command {
            // A Wasm container ends with the process that ran it: nothing is there from before.
            RuntimeCommand::ListExisting => self.tell(RuntimeEvent::Existing(Vec::new())),
            RuntimeCommand::PullImage { pull, image, policy, logins, .. } => {
                let shared = Arc::clone(&self.shared);
                self.shared.io.spawn(async move {
                    let result = shared.pull(PullRequest { pull, image: image.clone(), policy, logins }).await;
                    shared.host.event(RuntimeEvent::ImageReady { pull, image, result });
                });
            }
            RuntimeCommand::ListImages => {
                let shared = Arc::clone(&self.shared);
                self.shared.io.spawn_blocking(move || {
                    let (disk, images) = shared.stored();
                    shared.host.event(RuntimeEvent::Images { disk, images });
                });
            }
            RuntimeCommand::RemoveImage(id) => {
                let shared = Arc::clone(&self.shared);
                self.shared.io.spawn_blocking(move || {
                    let result = shared.remove_image(&id);
                    shared.host.event(RuntimeEvent::ImageRemoved { id, result });
                });
            }
            RuntimeCommand::MeasureStorage(pod) => {
                let shared = Arc::clone(&self.shared);
                self.shared.io.spawn_blocking(move || {
                    let used = pod::storage(&shared.pods_dir, &pod);
                    shared.host.event(RuntimeEvent::StorageMeasured { pod, used });
                });
            }
            RuntimeCommand::Stats => self.tell(RuntimeEvent::Stats(self.shared.usage())),
            RuntimeCommand::Probe { id, container, address, action, timeout_millis } => {
                let shared = Arc::clone(&self.shared);
                let target = Target { pod: container.pod, container: container.container, address };
                self.shared.io.spawn(async move {
                    let timeout = Duration::from_millis(timeout_millis);
                    let result = probe::probe(Arc::clone(&shared), target, action, timeout).await;
                    shared.host.event(RuntimeEvent::Probed { id, result });
                });
            }
            RuntimeCommand::CreateSandbox(ref sandbox) => self.dispatch(sandbox.pod.clone(), command),
            RuntimeCommand::RemoveSandbox(ref pod) | RuntimeCommand::WriteVolume { ref pod, .. } => {
                self.dispatch(pod.clone(), command);
            }
            RuntimeCommand::CreateContainer(ref spec) => self.dispatch(spec.id.pod.clone(), command),
            RuntimeCommand::StartContainer(ref id)
            | RuntimeCommand::StopContainer(ref id)
            | RuntimeCommand::KillContainer(ref id)
            | RuntimeCommand::RemoveContainer(ref id) => self.dispatch(id.pod.clone(), command),
        }
    }

    fn open(&self, spec: StreamSpec) -> Connecting {
        let network = &self.shared.network;
        let opened = match spec {
            StreamSpec::Port { pod, port, from } => network.open(&pod, port, Side::of(from), from),
            StreamSpec::Datagrams { pod, port, from } => network.open_datagrams(&pod, port, Side::of(from), from),
        };
        Box::pin(std::future::ready(opened))
    }

    fn session(&self, spec: SessionSpec) -> Opening {
        let shared = Arc::clone(&self.shared);
        let io = self.shared.io.clone();
        // Opening spawns tasks, which belong to this runtime whoever asks.
        Box::pin(async move {
            let opened = io.spawn(async move { session::open(&shared, &spec) }).await;
            opened.unwrap_or_else(|error| Err(OpenError(format!("the runtime failed: {error}"))))
        })
    }
}

impl Drop for WasmRuntime {
    fn drop(&mut self) {
        self.shared.slicing.close();
        self.shared.io.end();
        // Not a plain drop: that waits for the threads, and panics where the owner is itself asynchronous.
        if let Some((io, guests)) = self.threads.take() {
            guests.shutdown_background();
            io.shutdown_background();
        }
        if let Some(Err(error)) = self.temporary.take().map(tempfile::TempDir::close) {
            tracing::warn!(%error, "cannot remove a temporary folder");
        }
    }
}
