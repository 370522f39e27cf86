//! The runtime itself: its threads, its dispatcher, taking over what runs, and the end.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{InspectContainerOptions, KillContainerOptions};
use coracle_api::Uid;
use coracle_base::Timestamp;
use coracle_node::runtime::{
    Connecting, ContainerId, Destination, DiskUse, ExistingContainer, ImageError, OpenError, Opening, ProbeAction,
    ProbeResult, Runtime, RuntimeCommand, RuntimeEvent, RuntimeHost, RuntimeKind, SessionSpec, StorageUse, StreamSpec,
};
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::images::{self, DockerImage};
use crate::options::DockerOptions;
use crate::pod::{self, PodWorker};
use crate::shared::{Shared, State, Tracked};
use crate::{datagrams, exec, labels, logs, network, session, stats, sweep, volume, watch as watcher};

/// Threads for everything: the Engine does the work.
const THREADS: usize = 2;
/// Threads for files.
const BLOCKING_THREADS_MAX: usize = 16;
/// How long a connection to a pod may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the agent waits to hear what is there from before.
const EXISTING_WAIT: Duration = Duration::from_secs(5);
/// How long containers may take to end by themselves when the whole node ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Containers on Docker Engine.
///
/// It starts threads of its own and needs no async runtime around it. Dropping it leaves the containers running: [`Runtime::shutdown`]
/// removes them.
pub struct DockerRuntime {
    shared: Arc<Shared>,
    pods: Pods,
    looked: watch::Receiver<bool>,
    /// The folder of a state that is not kept.
    _temporary: Option<tempfile::TempDir>,
    threads: Option<tokio::runtime::Runtime>,
}

/// The queues of the pods' workers. They are bounded by the agent, which waits for answers before it asks again.
type Pods = Arc<Mutex<BTreeMap<Uid, mpsc::UnboundedSender<RuntimeCommand>>>>;

impl fmt::Debug for DockerRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerRuntime").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl DockerRuntime {
    /// Makes the folder, starts the threads and looks for the Engine, whether it is there or not.
    ///
    /// # Errors
    ///
    /// When the folder or the threads cannot be made.
    pub fn new(options: DockerOptions, host: Arc<dyn RuntimeHost>) -> std::io::Result<Arc<Self>> {
        let temporary = match &options.state_dir {
            Some(_) => None,
            None => Some(temporary_folder(&options)?),
        };
        let state_dir = temporary.as_ref().map(tempfile::TempDir::path).or(options.state_dir.as_deref());
        let state_dir = std::path::absolute(state_dir.unwrap_or(Path::new(".")))?;
        volume::private_dir(&state_dir)?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("coracle-docker")
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared::new(options, state_dir, host));
        let (sender, looked) = watch::channel(false);
        threads.spawn(watcher::keep(Arc::clone(&shared), sender));
        Ok(Arc::new(Self { shared, pods: Pods::default(), looked, _temporary: temporary, threads: Some(threads) }))
    }

    /// Waits until the Engine was looked for: whether it can be used, or the sentence that says why not.
    pub async fn health(&self) -> Result<(), String> {
        // The sender is with the threads, which are there as long as this is.
        let _ = self.looked.clone().wait_for(|looked| *looked).await;
        self.shared.engine.client().map(drop)
    }

    /// Whether the Engine's store has an image of this name.
    pub async fn has_image(&self, name: &str) -> bool {
        match self.shared.engine.client() {
            Ok(docker) => images::has(&docker, name).await,
            Err(_) => false,
        }
    }

    /// The images of the Engine's store, but for that of sandboxes.
    ///
    /// # Errors
    ///
    /// Why there is no Engine, or what it said.
    pub async fn images(&self) -> Result<Vec<DockerImage>, String> {
        images::list(&self.shared.engine.client()?).await
    }

    /// Ends and removes every container of the node, its volumes and its bridge: nothing of it is left. Containers are asked to end, and
    /// have three seconds to.
    async fn remove_everything(&self) {
        let Ok(docker) = self.shared.engine.client() else { return };
        let found = match watcher::list(&self.shared, &docker).await {
            Ok(found) => found,
            Err(error) => return tracing::warn!(error, "containers are left: they cannot be listed"),
        };
        let containers = found.iter().filter(|(_, found)| {
            let is_container = found.labels.as_ref().is_some_and(|labels| labels::container(labels).is_some());
            is_container && found.state.is_some_and(watcher::is_alive)
        });
        let ends = join_all(containers.map(|(id, _)| end(&docker, id)));
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, ends).await;
        let (containers, sandboxes): (Vec<_>, Vec<_>) = found
            .iter()
            .partition(|(_, found)| found.labels.as_ref().is_some_and(|labels| labels::container(labels).is_some()));
        for these in [containers, sandboxes] {
            join_all(these.iter().map(|(id, _)| watcher::remove(&docker, id))).await;
        }
        let filters = Some(labels::filter(&self.shared.options, None));
        let volumes = docker.list_volumes(Some(bollard::query_parameters::ListVolumesOptions { filters })).await;
        for volume in volumes.ok().and_then(|found| found.volumes).into_iter().flatten() {
            let options = bollard::query_parameters::RemoveVolumeOptions { force: true };
            let _ = docker.remove_volume(&volume.name, Some(options)).await;
        }
        network::remove(&docker, &self.shared.options).await;
        let pods = self.shared.state_dir.join("pods");
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(pods)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the pods' folders stay");
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(threads) = &self.threads {
            threads.spawn(work);
        }
    }

    /// Hands a command to its pod's worker, which is started with the sandbox and ends when the pod is gone.
    fn dispatch(&self, pod: Uid, command: RuntimeCommand) {
        let starts = matches!(command, RuntimeCommand::CreateSandbox(_) | RuntimeCommand::RemoveSandbox(_));
        let adopted = || !self.shared.of_pod(&pod).is_empty();
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        match pods.entry(pod.clone()) {
            // A worker takes itself out under the same lock: a queue that is here is served.
            Entry::Occupied(queue) => drop(queue.get().send(command)),
            Entry::Vacant(vacant) if starts || adopted() => {
                let uid = vacant.key().clone();
                let (sender, receiver) = mpsc::unbounded_channel();
                let _ = sender.send(command);
                vacant.insert(sender);
                let worker = PodWorker::new(Arc::clone(&self.shared), uid.clone());
                self.spawn(work(Arc::clone(&self.pods), uid, worker, receiver));
            }
            Entry::Vacant(_) => {
                drop(pods);
                if let Some(answer) = pod::absent(command) {
                    self.shared.tell(answer);
                }
            }
        }
    }
}

/// A folder for what is not kept, with the name of its owner in it.
fn temporary_folder(options: &DockerOptions) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix(sweep::FOLDER).tempdir()?;
    if let Some(owner) = options.owner() {
        std::fs::write(folder.path().join(sweep::OWNER_FILE), owner.to_string())?;
    }
    Ok(folder)
}

async fn work(pods: Pods, uid: Uid, mut worker: PodWorker, mut queue: mpsc::UnboundedReceiver<RuntimeCommand>) {
    while let Some(command) = queue.recv().await {
        Box::pin(worker.carry_out(command)).await;
        let mut pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_gone() && queue.is_empty() {
            pods.remove(&uid);
            return;
        }
    }
}

/// Asks a container to end, and waits until it has.
async fn end(docker: &bollard::Docker, id: &str) {
    use futures_util::StreamExt as _;

    let found = docker.inspect_container(id, None::<InspectContainerOptions>).await.ok();
    let signal = found.and_then(|found| found.config?.stop_signal).filter(|signal| !signal.is_empty());
    let options = KillContainerOptions { signal: signal.unwrap_or_else(|| "SIGTERM".into()) };
    let _ = docker.kill_container(id, Some(options)).await;
    let mut wait = std::pin::pin!(docker.wait_container(id, None::<bollard::query_parameters::WaitContainerOptions>));
    let _ = wait.next().await;
}

/// What runs, and what ended and was not removed, from before; it is known from now on, and its output is read.
async fn existing(shared: &Arc<Shared>) -> Vec<ExistingContainer> {
    let Ok(docker) = shared.engine.client() else { return Vec::new() };
    // An Engine that hangs must not keep the whole node waiting: what it has is looked at when it answers again.
    let listing = tokio::time::timeout(EXISTING_WAIT, watcher::list(shared, &docker));
    let Ok(Ok(found)) = listing.await else { return Vec::new() };
    shared.found(watcher::pods_of(&found));
    shared.saw_existing.store(true, Ordering::Release);
    let labels_of = |found: &ContainerSummary| found.labels.clone().unwrap_or_default();
    let pods: BTreeSet<Uid> =
        found.values().filter_map(|found| labels::container(&labels_of(found))).map(|id| id.pod).collect();
    // A sandbox of which nothing ran is made again if its pod is still there.
    let is_empty = |found: &ContainerSummary| labels::pod(&labels_of(found)).is_some_and(|pod| !pods.contains(&pod));
    for id in found.iter().filter(|(_, found)| is_empty(found)).map(|(id, _)| id.clone()) {
        let docker = docker.clone();
        tokio::spawn(async move { watcher::remove(&docker, &id).await });
    }
    let ours = found.into_iter().filter_map(|(docker_id, found)| {
        let id = labels::container(&labels_of(&found))?;
        Some(adopt(shared, docker.clone(), docker_id, found.state?, id))
    });
    join_all(ours).await.into_iter().flatten().collect()
}

async fn adopt(
    shared: &Arc<Shared>,
    docker: bollard::Docker,
    docker_id: String,
    state: ContainerSummaryStateEnum,
    id: ContainerId,
) -> Option<ExistingContainer> {
    if state == ContainerSummaryStateEnum::CREATED {
        return None;
    }
    let inspecting = docker.inspect_container(&docker_id, None::<InspectContainerOptions>);
    // Older Engines do not tell of a container while a command that was begun in it hangs.
    let found = tokio::time::timeout(EXISTING_WAIT, inspecting).await.ok().and_then(Result::ok).unwrap_or_default();
    let began = found.state.and_then(|state| Timestamp::parse(state.started_at.as_deref()?).ok());
    let stop_signal = found.config.and_then(|config| config.stop_signal).unwrap_or_default();
    let exit = if watcher::is_alive(state) {
        None
    } else {
        let mut exit = watcher::exit_of(&docker, &docker_id, None).await;
        exit.message = watcher::last_words(shared, &id);
        Some(exit)
    };
    let known = exit.clone().map_or(State::Running, State::Ended);
    shared.track(id.clone(), Tracked::new(docker_id, known, stop_signal));
    logs::follow(shared, id.clone());
    Some(ExistingContainer { id, started_at: began, exit, runtime: RuntimeKind::Container })
}

async fn probe(
    shared: &Arc<Shared>,
    container: &ContainerId,
    address: IpAddr,
    action: ProbeAction,
    timeout: Duration,
) -> ProbeResult {
    if let ProbeAction::Exec { command } = &action {
        return match shared.engine.client() {
            Ok(docker) => exec::probe(shared, &docker, container, command, timeout).await,
            Err(why) => ProbeResult::Error(why),
        };
    }
    let connect = |host: Option<&str>, port: u16| -> Connecting {
        match host {
            Some(host) => shared.host.connect(&container.pod, Destination { host: host.to_owned(), port }),
            None => Box::pin(connect(SocketAddr::new(address, port))),
        }
    };
    coracle_probe::probe(&connect, address, action, timeout).await
}

/// A connection to a pod's address on the bridge.
async fn connect(address: SocketAddr) -> Result<coracle_node::runtime::ByteStream, OpenError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(Box::pin(stream.compat()))
        }
        Ok(Err(error)) => {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                _ => error.to_string(),
            };
            Err(OpenError(format!("dial tcp {address}: connect: {why}")))
        }
        Err(_) => Err(OpenError(format!("dial tcp {address}: i/o timeout"))),
    }
}

impl Runtime for DockerRuntime {
    fn command(&self, command: RuntimeCommand) {
        let shared = Arc::clone(&self.shared);
        match command {
            RuntimeCommand::ListExisting => {
                let mut looked = self.looked.clone();
                self.spawn(async move {
                    // An Engine that does not answer must not keep other pods waiting.
                    let _ = tokio::time::timeout(EXISTING_WAIT, looked.wait_for(|looked| *looked)).await;
                    let existing = existing(&shared).await;
                    shared.told_existing.store(true, Ordering::Release);
                    shared.tell(RuntimeEvent::Existing(existing));
                });
            }
            RuntimeCommand::PullImage { pull, image, policy, logins, .. } => self.spawn(async move {
                let fetching = || {
                    shared.tell(RuntimeEvent::ImagePulling { pull });
                    shared.host.logins(&image)
                };
                let result = match shared.engine.awaited().await {
                    Ok(docker) => images::pull(&docker, &image, policy, logins, fetching).await,
                    Err(why) => Err(ImageError::Pull(why)),
                };
                shared.tell(RuntimeEvent::ImageReady { pull, image, result });
            }),
            // Docker's store is also its other users': nothing in it is this node's to remove.
            RuntimeCommand::ListImages => {
                shared.tell(RuntimeEvent::Images { disk: DiskUse::default(), images: Vec::new() });
            }
            RuntimeCommand::RemoveImage(id) => {
                let result = Err(format!("image {id:?} is in Docker's store, which is not the node's own"));
                shared.tell(RuntimeEvent::ImageRemoved { id, result });
            }
            RuntimeCommand::MeasureStorage(pod) => self.spawn(async move {
                let dir = shared.pod_dir(&pod);
                let measured = tokio::task::spawn_blocking(move || dir.map(|dir| dir.used()).unwrap_or_default()).await;
                let containers = stats::written(&shared, &pod).await;
                let used = StorageUse { containers, ..measured.unwrap_or_default() };
                shared.tell(RuntimeEvent::StorageMeasured { pod, used });
            }),
            RuntimeCommand::Stats => self.spawn(async move {
                let usage = stats::usage(&shared).await;
                shared.tell(RuntimeEvent::Stats(usage));
            }),
            RuntimeCommand::Probe { id, container, address, action, timeout_millis } => self.spawn(async move {
                let timeout = Duration::from_millis(timeout_millis);
                let result = probe(&shared, &container, address, action, timeout).await;
                shared.tell(RuntimeEvent::Probed { id, result });
            }),
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
        let (StreamSpec::Port { pod, port, .. } | StreamSpec::Datagrams { pod, port, .. }) = &spec;
        let (address, port) = (self.shared.address(pod), *port);
        let is_stream = matches!(spec, StreamSpec::Port { .. });
        Box::pin(async move {
            let address = address.ok_or_else(|| OpenError("connection refused: the pod has no sandbox".into()))?;
            let address = SocketAddr::new(address, port);
            if is_stream {
                return connect(address).await;
            }
            datagrams::open(address).await.map_err(|error| OpenError(format!("dial udp {address}: {error}")))
        })
    }

    fn session(&self, spec: SessionSpec) -> Opening {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { session::open(&shared, spec).await })
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.remove_everything())
    }
}

impl Drop for DockerRuntime {
    fn drop(&mut self) {
        // Not a plain drop: that waits for the threads, and panics where the owner is itself asynchronous.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}
