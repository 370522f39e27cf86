//! What the parts of the runtime share: the Engine, the host, and which containers run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_api::Uid;
use coracle_node::runtime::{ContainerError, ContainerId, Exit, RuntimeEvent, RuntimeHost};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::options::DockerOptions;
use crate::volume::{PodDir, one_component};

/// How a container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It was created.
    Created,
    /// It is being started.
    Starting,
    /// It ended before it was told that it runs; the exit code, where Docker said it.
    EndedEarly(Option<i32>),
    /// It runs.
    Running,
    /// It ended, and that was told.
    Ended(Exit),
}

/// A container that the agent knows of.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    /// Docker's id of it.
    pub(crate) docker: String,
    pub(crate) state: State,
    /// The signal that asks it to end.
    pub(crate) stop_signal: String,
    /// Whether its output was read to its end.
    pub(crate) drained: watch::Receiver<bool>,
    /// Tells that.
    pub(crate) reading: Arc<watch::Sender<bool>>,
}

impl Tracked {
    pub(crate) fn new(docker: String, state: State, stop_signal: String) -> Self {
        // Who has not begun to read has nothing left to read.
        let (reading, drained) = watch::channel(true);
        Self { docker, state, stop_signal, drained, reading: Arc::new(reading) }
    }
}

/// A pod's sandbox.
#[derive(Debug)]
struct KnownSandbox {
    /// Docker's id of it.
    docker: String,
    /// The pod's address.
    address: IpAddr,
    /// It was seen running, and nothing was heard since that could have ended it.
    runs: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: DockerOptions,
    /// The folder of the pods' files, absolute: Docker mounts parts of it.
    pub(crate) state_dir: PathBuf,
    pub(crate) engine: Engine,
    pub(crate) host: Arc<dyn RuntimeHost>,
    containers: Mutex<BTreeMap<ContainerId, Tracked>>,
    /// The pods that have a sandbox.
    sandboxes: Mutex<BTreeMap<Uid, KnownSandbox>>,
    /// The pods of which the Engine may have something; `None`: any. What nothing was ever asked for need not be looked for.
    touched: Mutex<Option<BTreeSet<Uid>>>,
    /// Commands of probes that run on after their time, by Docker's id of each.
    lingering: Mutex<BTreeMap<ContainerId, Vec<String>>>,
    /// The agent was told what is there from before, and whether that was known or the Engine was away.
    pub(crate) told_existing: AtomicBool,
    pub(crate) saw_existing: AtomicBool,
    /// The Engine can tell the kernel what to end last.
    pub(crate) protects: AtomicBool,
    /// The network was found or made since the Engine was connected.
    pub(crate) network_ready: tokio::sync::Mutex<bool>,
}

impl Shared {
    pub(crate) fn new(options: DockerOptions, state_dir: PathBuf, host: Arc<dyn RuntimeHost>) -> Self {
        Self {
            engine: Engine::new(options.socket.clone()),
            options,
            state_dir,
            host,
            containers: Mutex::default(),
            sandboxes: Mutex::default(),
            touched: Mutex::default(),
            lingering: Mutex::default(),
            told_existing: AtomicBool::new(false),
            saw_existing: AtomicBool::new(false),
            protects: AtomicBool::new(true),
            network_ready: tokio::sync::Mutex::new(false),
        }
    }

    pub(crate) fn tell(&self, event: RuntimeEvent) {
        self.host.event(event);
    }

    /// The folder of a pod.
    pub(crate) fn pod_dir(&self, pod: &Uid) -> Result<PodDir, String> {
        Ok(PodDir(self.state_dir.join("pods").join(one_component(pod.as_str())?)))
    }

    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Tracked>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<Uid, KnownSandbox>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The commands of probes that run on after their time.
    pub(crate) fn lingering(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Vec<String>>> {
        self.lingering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container that the agent knows of.
    pub(crate) fn container(&self, id: &ContainerId) -> Option<Tracked> {
        self.containers().get(id).cloned()
    }

    /// All of them, by which has which Docker id.
    pub(crate) fn all(&self) -> Vec<(ContainerId, Tracked)> {
        self.containers().iter().map(|(id, tracked)| (id.clone(), tracked.clone())).collect()
    }

    /// Those of a pod.
    pub(crate) fn of_pod(&self, pod: &Uid) -> Vec<(ContainerId, Tracked)> {
        self.all().into_iter().filter(|(id, _)| id.pod == *pod).collect()
    }

    pub(crate) fn track(&self, id: ContainerId, tracked: Tracked) {
        self.containers().insert(id, tracked);
    }

    pub(crate) fn forget(&self, id: &ContainerId) {
        self.containers().remove(id);
        self.lingering().remove(id);
    }

    /// Forgets a pod's containers.
    pub(crate) fn forget_pod(&self, pod: &Uid) {
        self.containers().retain(|id, _| id.pod != *pod);
        self.lingering().retain(|id, _| id.pod != *pod);
        self.sandboxes().remove(pod);
        if let Some(touched) = &mut *self.touched() {
            touched.remove(pod);
        }
    }

    fn touched(&self) -> MutexGuard<'_, Option<BTreeSet<Uid>>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods of which the Engine had something when everything was listed.
    pub(crate) fn found(&self, pods: BTreeSet<Uid>) {
        self.touched().get_or_insert_default().extend(pods);
    }

    /// Whether the Engine may have something of a pod from before. From now on it may.
    pub(crate) fn touch(&self, pod: &Uid) -> bool {
        self.touched().as_mut().is_none_or(|touched| !touched.insert(pod.clone()))
    }

    /// Changes how a container stands; what it was before.
    pub(crate) fn set_state(&self, id: &ContainerId, state: State) -> Option<State> {
        self.containers().get_mut(id).map(|tracked| std::mem::replace(&mut tracked.state, state))
    }

    /// Tells that a container ended, once.
    pub(crate) fn ended(&self, id: &ContainerId, exit: Exit) {
        let before = self.set_state(id, State::Ended(exit.clone()));
        if !matches!(before, None | Some(State::Ended(_))) {
            self.tell(RuntimeEvent::ContainerExited { id: id.clone(), exit });
        }
    }

    /// A pod's sandbox was found running, or made.
    pub(crate) fn set_sandbox(&self, pod: &Uid, docker: String, address: IpAddr) {
        self.sandboxes().insert(pod.clone(), KnownSandbox { docker, address, runs: true });
    }

    /// Something went wrong that a sandbox which does not run explains: of this pod, or of all.
    pub(crate) fn doubt(&self, pod: Option<&Uid>) {
        for (_, sandbox) in self.sandboxes().iter_mut().filter(|(uid, _)| pod.is_none_or(|pod| pod == *uid)) {
            sandbox.runs = false;
        }
    }

    /// The Docker id of a pod's sandbox that certainly ran a moment ago.
    pub(crate) fn running_sandbox(&self, pod: &Uid) -> Option<String> {
        self.sandboxes().get(pod).filter(|sandbox| sandbox.runs).map(|sandbox| sandbox.docker.clone())
    }

    /// The address of a pod that has a sandbox.
    pub(crate) fn address(&self, pod: &Uid) -> Option<IpAddr> {
        self.sandboxes().get(pod).map(|sandbox| sandbox.address)
    }

    /// The Docker id of a pod's sandbox.
    pub(crate) fn sandbox(&self, pod: &Uid) -> Option<String> {
        self.sandboxes().get(pod).map(|sandbox| sandbox.docker.clone())
    }

    /// The pods that have a sandbox.
    pub(crate) fn pods(&self) -> BTreeSet<Uid> {
        self.sandboxes().keys().cloned().collect()
    }
}

/// Why something cannot be done without the Engine.
pub(crate) fn no_create(why: impl Into<String>) -> ContainerError {
    ContainerError::Create(why.into())
}

/// How a container ends that nobody knows of any more.
pub(crate) fn lost(message: &str) -> Exit {
    Exit {
        code: 137,
        signal: None,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some(message.into()),
        log_tail: None,
    }
}
