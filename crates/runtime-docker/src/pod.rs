//! The worker of one pod: takes the pod's commands in order and answers each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions, ListContainersOptions, ListVolumesOptions,
    RemoveVolumeOptions, StartContainerOptions,
};
use coracle_api::Uid;
use coracle_node::runtime::{
    ContainerError, ContainerId, ContainerSpec, RuntimeCommand, RuntimeEvent, Sandbox, VolumeSource,
};
use futures_util::future::join_all;

use crate::engine::{is_conflict, is_missing, pause, sentence};
use crate::shared::{Shared, State, Tracked, lost, no_create};
use crate::volume::Place;
use crate::{create, images, labels, logs, memory, network, watch};

/// What is said of a container that nobody knows of.
const UNKNOWN: &str = "the container is not there";
/// The signal that asks a container to end where its image names none.
const SIGTERM: &str = "SIGTERM";

/// A pod.
#[derive(Debug)]
pub(crate) struct PodWorker {
    shared: Arc<Shared>,
    uid: Uid,
    sandbox: Option<Sandbox>,
    volumes: BTreeMap<String, Place>,
}

impl PodWorker {
    pub(crate) fn new(shared: Arc<Shared>, uid: Uid) -> Self {
        Self { shared, uid, sandbox: None, volumes: BTreeMap::new() }
    }

    /// Whether nothing of the pod is left.
    pub(crate) fn is_gone(&self) -> bool {
        self.sandbox.is_none()
    }

    /// Carries out one command.
    pub(crate) async fn carry_out(&mut self, command: RuntimeCommand) {
        match command {
            RuntimeCommand::CreateSandbox(sandbox) => {
                let result = self.create_sandbox(sandbox).await;
                self.shared.tell(RuntimeEvent::SandboxCreated { pod: self.uid.clone(), result });
            }
            RuntimeCommand::RemoveSandbox(_) => self.remove_sandbox().await,
            RuntimeCommand::WriteVolume { volume, source, .. } => {
                let result = self.write_volume(&volume, source).await;
                self.shared.tell(RuntimeEvent::VolumeWritten { pod: self.uid.clone(), volume, result });
            }
            RuntimeCommand::CreateContainer(spec) => {
                let id = spec.id.clone();
                let result = Box::pin(self.create_container(*spec)).await;
                self.shared.tell(RuntimeEvent::ContainerCreated { id, result });
            }
            RuntimeCommand::StartContainer(id) => self.start_container(id).await,
            RuntimeCommand::StopContainer(id) => self.signal(id, None).await,
            RuntimeCommand::KillContainer(id) => self.signal(id, Some("SIGKILL")).await,
            RuntimeCommand::RemoveContainer(id) => self.remove_container(id).await,
            // The others are of no pod: the runtime answers them itself.
            _ => {}
        }
    }

    async fn create_sandbox(&mut self, sandbox: Sandbox) -> Result<(), String> {
        let docker = self.shared.engine.awaited().await?;
        let (dir, wanted) = (self.shared.pod_dir(&self.uid)?, sandbox.clone());
        blocking(move || dir.create(&wanted)).await?;
        let id = if self.shared.touch(&self.uid) {
            self.remove_strangers(&docker).await?;
            self.ensure_sandbox(&docker, &sandbox).await?
        } else {
            // Each look costs the Engine more, the more containers it has.
            self.make_sandbox(&docker, &sandbox, &labels::sandbox_name(&sandbox)).await?
        };
        self.shared.set_sandbox(&self.uid, id, sandbox.address);
        self.sandbox = Some(sandbox);
        Ok(())
    }

    /// Removes containers of the pod that the agent does not know of: what was left while nobody looked.
    async fn remove_strangers(&self, docker: &Docker) -> Result<(), String> {
        let known: Vec<String> = self.shared.of_pod(&self.uid).into_iter().map(|(_, tracked)| tracked.docker).collect();
        for (id, container_labels) in self.found(docker).await? {
            if labels::container(&container_labels).is_some() && !known.contains(&id) {
                watch::remove(docker, &id).await;
            }
        }
        Ok(())
    }

    /// Everything that Docker has of the pod.
    async fn found(&self, docker: &Docker) -> Result<Vec<(String, HashMap<String, String>)>, String> {
        let filters = Some(labels::filter(&self.shared.options, Some(&self.uid)));
        let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        let found = docker.list_containers(Some(options)).await.map_err(|error| sentence(&error))?;
        Ok(found.into_iter().filter_map(|found| Some((found.id?, found.labels.unwrap_or_default()))).collect())
    }

    /// The pod's sandbox, running: as it is, started again, or made anew.
    async fn ensure_sandbox(&self, docker: &Docker, sandbox: &Sandbox) -> Result<String, String> {
        let name = labels::sandbox_name(sandbox);
        match docker.inspect_container(&name, None::<InspectContainerOptions>).await {
            Ok(found) => {
                let id = found.id.unwrap_or_default();
                let made_from = found.config.and_then(|config| config.labels?.remove(labels::SANDBOX));
                let running = found.state.and_then(|state| state.running) == Some(true);
                if found.host_config.and_then(|config| config.oom_score_adj) == Some(0) {
                    self.shared.protects.store(false, Ordering::Relaxed);
                }
                if made_from == Some(create::fingerprint(sandbox)) {
                    if running {
                        return Ok(id);
                    }
                    watch::kill_containers(&self.shared, docker, &self.uid);
                    self.ensure_network(docker).await?;
                    if docker.start_container(&id, None::<StartContainerOptions>).await.is_ok() {
                        return Ok(id);
                    }
                }
                watch::kill_containers(&self.shared, docker, &self.uid);
                watch::remove(docker, &id).await;
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(sentence(&error)),
        }
        self.make_sandbox(docker, sandbox, &name).await
    }

    async fn make_sandbox(&self, docker: &Docker, sandbox: &Sandbox, name: &str) -> Result<String, String> {
        if !sandbox.namespaces.host_network {
            self.ensure_network(docker).await?;
        }
        let protected = self.shared.protects.load(Ordering::Relaxed);
        let made = self.try_sandbox(docker, sandbox, name, protected).await;
        let Err(why) = made else { return made };
        // Somebody may have taken the network away.
        *self.shared.network_ready.lock().await = false;
        if !protected {
            return Err(why);
        }
        // An Engine without rights of its own, in a container or without root, cannot protect what it runs.
        let made = self.try_sandbox(docker, sandbox, name, false).await.map_err(|_| why)?;
        self.shared.protects.store(false, Ordering::Relaxed);
        Ok(made)
    }

    async fn try_sandbox(
        &self,
        docker: &Docker,
        sandbox: &Sandbox,
        name: &str,
        protected: bool,
    ) -> Result<String, String> {
        let body = create::sandbox(&self.shared.options, sandbox, protected);
        let id = match make(docker, name, body.clone()).await {
            Err(error) if is_missing(&error) => {
                images::load_sandbox(docker).await?;
                make(docker, name, body).await.map_err(|error| sentence(&error))?
            }
            made => made.map_err(|error| sentence(&error))?,
        };
        if let Err(error) = docker.start_container(&id, None::<StartContainerOptions>).await {
            watch::remove(docker, &id).await;
            return Err(sentence(&error));
        }
        Ok(id)
    }

    async fn ensure_network(&self, docker: &Docker) -> Result<(), String> {
        let mut ready = self.shared.network_ready.lock().await;
        if !*ready {
            network::ensure(docker, &self.shared.options).await?;
            *ready = true;
        }
        Ok(())
    }

    async fn remove_sandbox(&mut self) {
        loop {
            let docker = self.shared.engine.connected().await;
            match self.remove_all(&docker).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(pod = %self.uid, error, "a pod's containers are not removed yet"),
            }
            pause().await;
        }
        self.shared.forget_pod(&self.uid);
        self.volumes.clear();
        if let Ok(dir) = self.shared.pod_dir(&self.uid)
            && let Err(error) = blocking(move || dir.remove().map_err(|error| error.to_string())).await
        {
            tracing::warn!(pod = %self.uid, error, "a pod's folder stays");
        }
        self.sandbox = None;
        self.shared.tell(RuntimeEvent::SandboxRemoved { pod: self.uid.clone() });
    }

    /// Removes the containers, then the sandbox that they are in, then the volumes.
    async fn remove_all(&self, docker: &Docker) -> Result<(), String> {
        let found = self.found(docker).await?;
        let is_sandbox = |labels: &HashMap<String, String>| labels::container(labels).is_none();
        for sandboxes in [false, true] {
            let these = found.iter().filter(|(_, labels)| is_sandbox(labels) == sandboxes);
            if !join_all(these.map(|(id, _)| watch::remove(docker, id))).await.into_iter().all(|removed| removed) {
                return Err("Docker refused".into());
            }
        }
        let filters = Some(labels::filter(&self.shared.options, Some(&self.uid)));
        let volumes = docker.list_volumes(Some(ListVolumesOptions { filters })).await.map_err(|e| sentence(&e))?;
        for volume in volumes.volumes.into_iter().flatten() {
            let options = RemoveVolumeOptions { force: true };
            docker.remove_volume(&volume.name, Some(options)).await.map_err(|error| sentence(&error))?;
        }
        Ok(())
    }

    async fn write_volume(&mut self, volume: &str, source: VolumeSource) -> Result<(), String> {
        let sandbox = self.sandbox.as_ref().ok_or("the pod has no sandbox")?;
        let place = match source {
            VolumeSource::EmptyDir { size_limit, in_memory: true } => {
                let docker = self.shared.engine.client()?;
                memory::make(&self.shared, &docker, sandbox, volume, size_limit).await?
            }
            source => {
                let (dir, name, group) = (self.shared.pod_dir(&self.uid)?, volume.to_owned(), sandbox.fs_group);
                blocking(move || dir.write_volume(&name, &source, group)).await?
            }
        };
        self.volumes.insert(volume.to_owned(), place);
        Ok(())
    }

    async fn create_container(&mut self, spec: ContainerSpec) -> Result<(), ContainerError> {
        let sandbox = self.sandbox.clone().ok_or_else(|| no_create("the pod has no sandbox"))?;
        let docker = self.shared.engine.awaited().await.map_err(no_create)?;
        let sandbox_id = if let Some(id) = self.shared.running_sandbox(&self.uid) {
            id
        } else {
            // It may have ended, with the Engine or by somebody's hand.
            let id = self.ensure_sandbox(&docker, &sandbox).await.map_err(no_create)?;
            self.shared.set_sandbox(&self.uid, id.clone(), sandbox.address);
            id
        };
        let volumes = memory::keep(&self.shared, &docker, &sandbox, &self.volumes).await.map_err(no_create)?;
        let (dir, wanted) = (self.shared.pod_dir(&self.uid).map_err(no_create)?, spec.clone());
        let mounts =
            blocking(move || dir.prepare(&wanted, |name| volumes.get(name).cloned())).await.map_err(no_create)?;
        let image_user = match spec.security.group {
            Some(_) => images::user(&docker, &spec.image).await.map_err(no_create)?,
            None => String::new(),
        };
        let options = &self.shared.options;
        let protected = self.shared.protects.load(Ordering::Relaxed);
        let body = create::container(options, &sandbox, &sandbox_id, &spec, &image_user, protected, mounts);
        let body = body.map_err(no_create)?;
        let name = labels::container_name(&sandbox, &spec.id);
        let made = match make(&docker, &name, body.clone()).await {
            // One of this name from before, which nobody knows of any more.
            Err(error) if is_conflict(&error) => {
                watch::remove(&docker, &name).await;
                make(&docker, &name, body).await
            }
            made => made,
        };
        let docker_id = made.map_err(|error| {
            self.shared.doubt(Some(&self.uid));
            no_create(sentence(&error))
        })?;
        let stop_signal = spec.stop_signal.clone().unwrap_or_default();
        self.shared.track(spec.id, Tracked::new(docker_id, State::Created, stop_signal));
        Ok(())
    }

    async fn start_container(&self, id: ContainerId) {
        let started = |result| self.shared.tell(RuntimeEvent::ContainerStarted { id: id.clone(), result });
        let failed = |why: String| started(Err(ContainerError::Run(why)));
        let Some(tracked) = self.shared.container(&id).filter(|tracked| tracked.state == State::Created) else {
            return failed(format!("container {id} is not there to be started"));
        };
        let docker = match self.shared.engine.client() {
            Ok(docker) => docker,
            Err(why) => return failed(why),
        };
        self.shared.set_state(&id, State::Starting);
        if let Err(error) = docker.start_container(&tracked.docker, None::<StartContainerOptions>).await {
            self.shared.doubt(Some(&self.uid));
            // It will not be started again: another instance will be made.
            self.shared.set_state(&id, State::Ended(lost(UNKNOWN)));
            return failed(sentence(&error));
        }
        logs::follow(&self.shared, id.clone());
        started(Ok(()));
        if let Some(State::EndedEarly(code)) = self.shared.set_state(&id, State::Running) {
            watch::ended(&self.shared, &docker, id, code);
        }
    }

    /// Sends a container a signal: its own for asking it to end, or this.
    async fn signal(&self, id: ContainerId, signal: Option<&str>) {
        let Some(tracked) = self.shared.container(&id) else {
            let exit = lost(UNKNOWN);
            return self.shared.tell(RuntimeEvent::ContainerExited { id, exit });
        };
        if let State::Ended(exit) = tracked.state {
            return self.shared.tell(RuntimeEvent::ContainerExited { id, exit });
        }
        let docker = self.shared.engine.connected().await;
        let signal = match signal {
            Some(signal) => signal.to_owned(),
            None if tracked.stop_signal.is_empty() => image_signal(&docker, &tracked.docker).await,
            None => tracked.stop_signal.clone(),
        };
        let options = KillContainerOptions { signal };
        match docker.kill_container(&tracked.docker, Some(options)).await {
            Ok(()) => {}
            // It does not run (any more): that may not have been heard yet.
            Err(error) if is_conflict(&error) || is_missing(&error) => {
                if tracked.state == State::Created {
                    self.shared.set_state(&id, State::Running);
                }
                watch::ended(&self.shared, &docker, id, None);
            }
            Err(error) => tracing::warn!(container = %id, error = sentence(&error), "a signal was not sent"),
        }
    }

    async fn remove_container(&self, id: ContainerId) {
        if let Some(tracked) = self.shared.container(&id) {
            let docker = self.shared.engine.connected().await;
            watch::remove(&docker, &tracked.docker).await;
            self.shared.forget(&id);
        }
        if let Ok(dir) = self.shared.pod_dir(&id.pod) {
            let (container, instance) = (id.container.clone(), id.instance);
            let _ = tokio::task::spawn_blocking(move || dir.remove_container(&container, instance)).await;
        }
        self.shared.tell(RuntimeEvent::ContainerRemoved { id });
    }
}

/// The signal that a container's image wants to be asked to end with.
async fn image_signal(docker: &Docker, id: &str) -> String {
    let found = docker.inspect_container(id, None::<InspectContainerOptions>).await.ok();
    let signal = found.and_then(|found| found.config?.stop_signal);
    signal.filter(|signal| !signal.is_empty()).unwrap_or_else(|| SIGTERM.into())
}

async fn make(docker: &Docker, name: &str, body: ContainerCreateBody) -> Result<String, Error> {
    let options = CreateContainerOptions { name: Some(name.to_owned()), platform: String::new() };
    Ok(docker.create_container(Some(options), body).await?.id)
}

/// Answers a command about a pod that is not there.
pub(crate) fn absent(command: RuntimeCommand) -> Option<RuntimeEvent> {
    let missing = || "the pod has no sandbox".to_owned();
    Some(match command {
        RuntimeCommand::WriteVolume { pod, volume, .. } => {
            RuntimeEvent::VolumeWritten { pod, volume, result: Err(missing()) }
        }
        RuntimeCommand::CreateContainer(spec) => {
            RuntimeEvent::ContainerCreated { id: spec.id, result: Err(no_create(missing())) }
        }
        RuntimeCommand::StartContainer(id) => {
            RuntimeEvent::ContainerStarted { id, result: Err(ContainerError::Run(missing())) }
        }
        RuntimeCommand::StopContainer(id) | RuntimeCommand::KillContainer(id) => {
            RuntimeEvent::ContainerExited { id, exit: lost(UNKNOWN) }
        }
        RuntimeCommand::RemoveContainer(id) => RuntimeEvent::ContainerRemoved { id },
        _ => return None,
    })
}

/// Work on files, off the threads that answer.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("the runtime failed: {error}")))
}
