//! The worker of one pod: takes the pod's commands in order and answers each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use coracle_api::Uid;
use coracle_node::canonical_image_name;
use coracle_node::runtime::{
    ContainerError, ContainerId, ContainerSpec, Exit, RuntimeCommand, RuntimeEvent, Sandbox, StorageUse, VolumeSource,
};

use crate::account::Account;
use crate::container::{self, Container, Ending, Input, State};
use crate::engine::Metering;
use crate::exit;
use crate::flow::Flow;
use crate::guest::{Environment, Stdio};
use crate::platform::Platform;
use crate::registry::ImageConfig;
use crate::shared::Shared;
use crate::volume::{self, PodDir};

/// A pod.
#[derive(Debug)]
pub(crate) struct PodWorker {
    shared: Arc<Shared>,
    uid: Uid,
    sandbox: Option<Sandbox>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
}

impl PodWorker {
    pub(crate) fn new(shared: Arc<Shared>, uid: Uid) -> Self {
        Self { shared, uid, sandbox: None, containers: BTreeMap::new() }
    }

    /// Whether nothing of the pod is left.
    pub(crate) fn is_gone(&self) -> bool {
        self.sandbox.is_none() && self.containers.is_empty()
    }

    /// Carries out one command. Only creating a container (which may compile) and removing wait for anything.
    pub(crate) async fn carry_out(&mut self, command: RuntimeCommand) {
        match command {
            RuntimeCommand::CreateSandbox(sandbox) => self.create_sandbox(sandbox).await,
            RuntimeCommand::RemoveSandbox(_) => self.remove_sandbox().await,
            RuntimeCommand::WriteVolume { volume, source, .. } => self.write_volume(volume, source).await,
            RuntimeCommand::CreateContainer(spec) => {
                let id = spec.id.clone();
                let result = self.create_container(*spec).await;
                self.tell(RuntimeEvent::ContainerCreated { id, result });
            }
            RuntimeCommand::StartContainer(id) => self.start_container(id),
            RuntimeCommand::StopContainer(id) => self.end_container(id, Ending::Stop),
            RuntimeCommand::KillContainer(id) => self.end_container(id, Ending::Kill),
            RuntimeCommand::RemoveContainer(id) => self.remove_container(id).await,
            // These are of no pod: the runtime answers them itself.
            RuntimeCommand::ListExisting
            | RuntimeCommand::PullImage { .. }
            | RuntimeCommand::ListImages
            | RuntimeCommand::MeasureStorage(_)
            | RuntimeCommand::RemoveImage(_)
            | RuntimeCommand::Probe { .. }
            | RuntimeCommand::Stats => {}
        }
    }

    fn tell(&self, event: RuntimeEvent) {
        self.shared.host.event(event);
    }

    fn dir(&self) -> Result<PodDir, String> {
        Ok(PodDir(self.shared.pods_dir.join(volume::one_component(self.uid.as_str())?)))
    }

    async fn create_sandbox(&mut self, sandbox: Sandbox) {
        let result = match self.dir() {
            Ok(dir) => blocking(move || dir.create().map_err(|error| format!("make the pod's folder: {error}"))).await,
            Err(error) => Err(error),
        };
        if result.is_ok() {
            self.shared.network.add_pod(&self.uid, sandbox.address);
            self.sandbox = Some(sandbox);
        }
        self.tell(RuntimeEvent::SandboxCreated { pod: self.uid.clone(), result });
    }

    async fn remove_sandbox(&mut self) {
        for container in self.containers.values() {
            container.end(Ending::Kill);
        }
        for container in std::mem::take(&mut self.containers).into_values() {
            container.wait().await;
        }
        if let Ok(dir) = self.dir() {
            let path = dir.0.clone();
            if let Err(error) = blocking(move || dir.remove().map_err(|error| error.to_string())).await {
                tracing::warn!(path = %path.display(), error, "cannot remove a pod's folder");
            }
        }
        self.shared.network.forget(&self.uid);
        self.sandbox = None;
        self.tell(RuntimeEvent::SandboxRemoved { pod: self.uid.clone() });
    }

    async fn write_volume(&self, volume: String, source: VolumeSource) {
        let name = volume.clone();
        let result = match (&self.sandbox, self.dir()) {
            (Some(_), Ok(dir)) => blocking(move || dir.write_volume(&name, &source)).await,
            (None, _) => Err("the pod has no sandbox".to_owned()),
            (_, Err(error)) => Err(error),
        };
        self.tell(RuntimeEvent::VolumeWritten { pod: self.uid.clone(), volume, result });
    }

    async fn create_container(&mut self, spec: ContainerSpec) -> Result<(), ContainerError> {
        let Some(sandbox) = &self.sandbox else {
            return Err(ContainerError::Create("the pod has no sandbox".to_owned()));
        };
        let shared = &self.shared;
        let image = canonical_image_name(&spec.image).ok().and_then(|name| shared.images.find(&name));
        let image = image.ok_or_else(|| {
            ContainerError::Create(format!("image {:?} is not in the node's image store", spec.image))
        })?;
        let account = Arc::new(Account::new(&spec.limits, &shared.memory, &shared.slicing));
        let metering = if account.metered { Metering::On } else { shared.slicing.metering() };
        let program = shared
            .compiler
            .program(&shared.images, &image.digest, metering)
            .await
            .map_err(|error| ContainerError::Create(format!("image {:?}: {error}", spec.image)))?;
        let (dir, wanted) = (self.dir().map_err(ContainerError::Create)?, spec.clone());
        let prepared = blocking(move || dir.prepare(&wanted)).await.map_err(ContainerError::Create)?;
        let env = Arc::new(environment(&spec, sandbox, &image.config));
        let outputs = Arc::default();
        let platform = Platform::new(&shared.host, sandbox, &spec, &env, &outputs, program.asks_for_pod);
        let environment = Environment {
            id: spec.id.clone(),
            args: arguments(&spec, &image.config),
            env,
            working_dir: spec.working_dir.or(Some(image.config.working_dir).filter(|dir| !dir.is_empty())),
            preopens: prepared.preopens,
            stdio: Stdio::default(),
            outputs,
            platform: Arc::new(platform),
        };
        let input = spec.terminal.stdin.then(|| Input { flow: Flow::default(), once: spec.terminal.stdin_once });
        let container = Container::new(environment, program, account, spec.ports, prepared.termination_message, input);
        self.containers.insert(spec.id, Arc::new(container));
        Ok(())
    }

    fn start_container(&self, id: ContainerId) {
        let started = |result| self.tell(RuntimeEvent::ContainerStarted { id: id.clone(), result });
        let failed = |message: String| started(Err(ContainerError::Run(message)));
        let Some(container) = self.containers.get(&id) else { return failed(format!("container {id} is not there")) };
        if container.state() != State::Created {
            return failed(format!("container {id} was started already"));
        }
        if let Err(missing) = &container.program.linked {
            return failed(missing.clone());
        }
        let Ok(permit) = Arc::clone(&self.shared.instances).try_acquire_owned() else {
            return failed("the node runs as many Wasm instances as it may".to_owned());
        };
        container.set_state(State::Running);
        self.shared.started(Arc::clone(container));
        started(Ok(()));
        let (shared, container) = (Arc::clone(&self.shared), Arc::clone(container));
        self.shared.io.spawn(async move {
            let exit = container::run(&shared, &container, permit).await;
            shared.ended(&id);
            shared.host.event(RuntimeEvent::ContainerExited { id, exit: exit.clone() });
            container.finish(exit);
        });
    }

    fn end_container(&self, id: ContainerId, ending: Ending) {
        let Some(container) = self.containers.get(&id) else { return self.tell(absent_exit(id)) };
        match container.state() {
            // The run tells its end itself.
            State::Running => container.end(ending),
            State::Ended(exit) => self.tell(RuntimeEvent::ContainerExited { id, exit }),
            State::Created => {
                let exit = if ending == Ending::Kill { exit::killed() } else { exit::terminated() };
                container.finish(exit.clone());
                self.tell(RuntimeEvent::ContainerExited { id, exit });
            }
        }
    }

    async fn remove_container(&mut self, id: ContainerId) {
        if let Some(container) = self.containers.remove(&id) {
            container.end(Ending::Kill);
            container.wait().await;
        }
        self.tell(RuntimeEvent::ContainerRemoved { id });
    }
}

/// What a pod has on the disk.
pub(crate) fn storage(pods_dir: &Path, pod: &Uid) -> StorageUse {
    volume::one_component(pod.as_str()).map(|name| PodDir(pods_dir.join(name)).used()).unwrap_or_default()
}

/// Answers a command about a pod that is not there.
pub(crate) fn absent(command: RuntimeCommand) -> Option<RuntimeEvent> {
    let missing = || "the pod has no sandbox".to_owned();
    Some(match command {
        RuntimeCommand::WriteVolume { pod, volume, .. } => {
            RuntimeEvent::VolumeWritten { pod, volume, result: Err(missing()) }
        }
        RuntimeCommand::CreateContainer(spec) => {
            RuntimeEvent::ContainerCreated { id: spec.id, result: Err(ContainerError::Create(missing())) }
        }
        RuntimeCommand::StartContainer(id) => {
            RuntimeEvent::ContainerStarted { id, result: Err(ContainerError::Run(missing())) }
        }
        RuntimeCommand::StopContainer(id) | RuntimeCommand::KillContainer(id) => absent_exit(id),
        RuntimeCommand::RemoveContainer(id) => RuntimeEvent::ContainerRemoved { id },
        RuntimeCommand::CreateSandbox(_)
        | RuntimeCommand::RemoveSandbox(_)
        | RuntimeCommand::ListExisting
        | RuntimeCommand::PullImage { .. }
        | RuntimeCommand::ListImages
        | RuntimeCommand::MeasureStorage(_)
        | RuntimeCommand::RemoveImage(_)
        | RuntimeCommand::Probe { .. }
        | RuntimeCommand::Stats => return None,
    })
}

/// The end of a container that nobody knows of, in Kubernetes' word for it.
pub(crate) fn absent_exit(id: ContainerId) -> RuntimeEvent {
    let reason = Some("ContainerStatusUnknown".to_owned());
    let message = Some("the container is not there".to_owned());
    RuntimeEvent::ContainerExited { id, exit: Exit { reason, message, ..exit::killed() } }
}

/// `command` and `args`, or what the image says where a container says neither; a guest without a command is called by its container's name, since a
/// program expects a name.
pub(crate) fn arguments(spec: &ContainerSpec, image: &ImageConfig) -> Vec<String> {
    let own = match (spec.command.as_slice(), image.entrypoint.as_slice()) {
        ([], []) => std::slice::from_ref(&spec.id.container),
        ([], entrypoint) => entrypoint,
        (command, _) => command,
    };
    let further = if spec.command.is_empty() && spec.args.is_empty() { &image.cmd } else { &spec.args };
    own.iter().chain(further).cloned().collect()
}

/// The container's environment in front of its image's, and `HOSTNAME`, which container runtimes set.
pub(crate) fn environment(spec: &ContainerSpec, sandbox: &Sandbox, image: &ImageConfig) -> Vec<(String, String)> {
    let mut env = vec![("HOSTNAME".to_owned(), sandbox.hostname.clone())];
    env.extend(image.env.iter().filter_map(|text| text.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())));
    env.retain(|(name, _)| spec.env.iter().all(|(own, _)| own != name));
    env.extend(spec.env.iter().cloned());
    env
}

/// Work on files, off the threads that answer.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("the runtime failed: {error}")))
}
