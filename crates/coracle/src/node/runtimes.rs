//! The runtimes of one node as one: each command goes to the runtime that has its pod, and what both tell is told once.
//!
//! Which runtime a pod has is decided by the agent (`coracle-node`); this only remembers it. What an image is for is looked up here,
//! because it is in the stores: where both have one of a name, the node's own WebAssembly store goes first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use coracle_api::Uid;
use coracle_base::Timestamp;
use coracle_node::runtime::{
    Connecting, ContainerId, Destination, FindingLogins, ImageError, KeyValueAnswering, KeyValueCall, LogStream,
    Opening, PullId, PullPolicy, Resolving, Runtime, RuntimeCommand, RuntimeEvent, RuntimeHost, RuntimeKind,
    SessionSpec, StreamSpec, Usage,
};
use coracle_runtime_docker::DockerRuntime;
use coracle_runtime_wasm::WasmRuntime;
use tokio::runtime::Handle;

/// What the runtimes of a node have told, as far as it has to be put together.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Which runtime has a pod, from its sandbox's creation to its removal.
    pods: Mutex<BTreeMap<Uid, RuntimeKind>>,
    /// The last measurement of each.
    usage: Mutex<BTreeMap<RuntimeKind, BTreeMap<String, Usage>>>,
    /// Pulls of images that may be for either, which the WebAssembly runtime was asked for first; Docker is asked with these next.
    either: Mutex<BTreeMap<PullId, RuntimeCommand>>,
    /// What the WebAssembly runtime said of those that Docker is asked for now.
    refused: Mutex<BTreeMap<PullId, String>>,
    docker: OnceLock<Weak<DockerRuntime>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn pods(&self) -> MutexGuard<'_, BTreeMap<Uid, RuntimeKind>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs containers there.
    pub(crate) fn set_docker(&self, docker: &Arc<DockerRuntime>) {
        // It is made once.
        let _ = self.docker.set(Arc::downgrade(docker));
    }

    /// Asks Docker for an image that the WebAssembly runtime could not have; whether there is one to ask.
    fn ask_docker(&self, pull: PullId, why: &ImageError) -> bool {
        let command = lock(&self.either).remove(&pull);
        let (Some(command), Some(docker)) = (command, self.docker.get().and_then(Weak::upgrade)) else { return false };
        let why = match why {
            ImageError::Pull(why) => why.clone(),
            ImageError::OtherKind(RuntimeKind::Container, _) => String::new(),
            _ => return false,
        };
        lock(&self.refused).insert(pull, why);
        docker.command(command);
        true
    }

    /// A pod that nobody has is looked for where it costs nothing.
    fn of(&self, pod: &Uid) -> RuntimeKind {
        self.pods().get(pod).copied().unwrap_or(RuntimeKind::Wasm)
    }
}

/// The host of one of the runtimes.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) runtime: RuntimeKind,
    pub(crate) host: Arc<dyn RuntimeHost>,
    pub(crate) known: Arc<Known>,
}

impl RuntimeHost for Part {
    fn event(&self, mut event: RuntimeEvent) {
        match &mut event {
            RuntimeEvent::Existing(existing) => {
                self.known.pods().extend(existing.iter().map(|found| (found.id.pod.clone(), found.runtime)));
            }
            RuntimeEvent::SandboxRemoved { pod } => _ = self.known.pods().remove(pod),
            RuntimeEvent::Stats(usage) => {
                let mut all = self.known.usage.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(self.runtime, std::mem::take(usage));
                usage.extend(all.values().flatten().map(|(id, usage)| (id.clone(), usage.clone())));
            }
            RuntimeEvent::ImageReady { pull, result, .. } if self.runtime == RuntimeKind::Wasm => match result {
                Err(why) if self.known.ask_docker(*pull, why) => return,
                _ => _ = lock(&self.known.either).remove(pull),
            },
            RuntimeEvent::ImageReady { pull, result, .. } => {
                let before = lock(&self.known.refused).remove(pull).filter(|why| !why.is_empty());
                if let (Some(before), Err(ImageError::Pull(why))) = (before, result) {
                    *why = format!("{why}; as WebAssembly: {before}");
                }
            }
            _ => {}
        }
        self.host.event(event);
    }

    fn log(&self, container: &ContainerId, stream: LogStream, bytes: &[u8]) {
        self.host.log(container, stream, bytes);
    }

    fn log_at(&self, container: &ContainerId, stream: LogStream, at: Timestamp, bytes: &[u8]) {
        self.host.log_at(container, stream, at, bytes);
    }

    fn logged_until(&self, container: &ContainerId) -> Option<Timestamp> {
        self.host.logged_until(container)
    }

    fn connect(&self, from: &Uid, to: Destination) -> Connecting {
        self.host.connect(from, to)
    }

    fn logins(&self, image: &str) -> FindingLogins {
        self.host.logins(image)
    }

    fn key_value(&self, from: &Uid, bucket: &str, call: KeyValueCall) -> KeyValueAnswering {
        self.host.key_value(from, bucket, call)
    }

    fn datagrams(&self, from: &Uid, port: u16, to: SocketAddr) -> Connecting {
        self.host.datagrams(from, port, to)
    }

    fn resolve(&self, from: &Uid, name: &str) -> Resolving {
        self.host.resolve(from, name)
    }
}

/// WebAssembly and containers, side by side.
#[derive(Debug)]
pub(crate) struct Runtimes {
    pub(crate) wasm: Arc<WasmRuntime>,
    pub(crate) docker: Arc<DockerRuntime>,
    pub(crate) known: Arc<Known>,
}

impl Runtimes {
    fn runtime(&self, kind: RuntimeKind) -> &dyn Runtime {
        match kind {
            RuntimeKind::Container => &*self.docker,
            _ => &*self.wasm,
        }
    }

    fn of_pod(&self, pod: &Uid) -> &dyn Runtime {
        self.runtime(self.known.of(pod))
    }

    /// Has an image that may be for either: both stores are looked into, then each runtime is asked for it in turn.
    fn pull(&self, pull: PullId, image: String, policy: PullPolicy, command: RuntimeCommand) {
        let (wasm, docker, known) = (Arc::clone(&self.wasm), Arc::clone(&self.docker), Arc::clone(&self.known));
        let Ok(handle) = Handle::try_current() else { return wasm.command(command) };
        handle.spawn(async move {
            let (name, looking) = (image.clone(), Arc::clone(&wasm));
            let is_wasm = tokio::task::spawn_blocking(move || looking.has(&name)).await.unwrap_or(false);
            if is_wasm {
                return wasm.command(command);
            }
            if policy != PullPolicy::Always && docker.has_image(&image).await {
                return docker.command(command);
            }
            lock(&known.either).insert(pull, command.clone());
            wasm.command(command);
        });
    }
}

impl Runtime for Runtimes {
    fn command(&self, command: RuntimeCommand) {
        let runtime = match &command {
            RuntimeCommand::Stats => {
                self.wasm.command(command.clone());
                return self.docker.command(command);
            }
            RuntimeCommand::PullImage { pull, image, policy, runtime: None, .. } => {
                return self.pull(*pull, image.clone(), *policy, command.clone());
            }
            // What was fetched, and may go, is in the node's own store; Docker's has other users.
            RuntimeCommand::ListImages | RuntimeCommand::RemoveImage(_) => &*self.wasm,
            RuntimeCommand::PullImage { runtime: Some(runtime), .. } => self.runtime(*runtime),
            // A Wasm container ends with the process that ran it: only the Engine has some from before.
            RuntimeCommand::ListExisting => &*self.docker,
            RuntimeCommand::CreateSandbox(sandbox) => {
                self.known.pods().insert(sandbox.pod.clone(), sandbox.runtime);
                self.runtime(sandbox.runtime)
            }
            RuntimeCommand::RemoveSandbox(pod)
            | RuntimeCommand::MeasureStorage(pod)
            | RuntimeCommand::WriteVolume { pod, .. } => self.of_pod(pod),
            RuntimeCommand::CreateContainer(spec) => self.of_pod(&spec.id.pod),
            RuntimeCommand::StartContainer(id)
            | RuntimeCommand::StopContainer(id)
            | RuntimeCommand::KillContainer(id)
            | RuntimeCommand::RemoveContainer(id) => self.of_pod(&id.pod),
            RuntimeCommand::Probe { container, .. } => self.of_pod(&container.pod),
        };
        runtime.command(command);
    }

    fn open(&self, spec: StreamSpec) -> Connecting {
        let (StreamSpec::Port { pod, .. } | StreamSpec::Datagrams { pod, .. }) = &spec;
        self.of_pod(pod).open(spec)
    }

    fn session(&self, spec: SessionSpec) -> Opening {
        self.of_pod(&spec.pod).session(spec)
    }

    fn shutdown(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.docker.shutdown()
    }
}
