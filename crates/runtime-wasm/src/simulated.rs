//! The Wasm runtime under virtual time: real modules, polled by hand, linked with hosts of our own.
//!
//! It is the counterpart of `node::fake::FakeRuntime`: a command gives the events that come of it at once, and whoever drives it
//! calls [`SimulatedRuntime::run`] when [`SimulatedRuntime::next_wakeup`] has come. Here are no thread, no clock, no file, no
//! socket and no async runtime, and of `wasmtime-wasi` nothing is linked: equal seeds, commands and times give equal events and
//! equal output, byte for byte.
//!
//! Time is what a guest's instructions take: ten of them a virtual microsecond, on a core of its own. A guest runs in turns of at most
//! ten milliseconds; with `limits.cpu` (or fuel a second) its turns lie further apart. What a guest sees of the clocks is the
//! time of its turn and what it has done since; while it sleeps it has no turn.
//!
//! Guests are core modules with `_start`. Components, services and connections are not simulated: a component is not created, and a
//! probe finds that nobody listens, which is what a command is to it in production too.

mod container;
mod errno;
mod folder;
mod guest;
mod images;
mod ledger;
mod pod;
mod wasi;

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::Uid;
use coracle_base::{DelayQueue, Instant, Now, Rng};
use coracle_node::canonical_image_name;
use coracle_node::runtime::{
    ContainerError, ContainerId, ContainerSpec, DiskUse, Exit, LogStream, RuntimeCommand, RuntimeEvent, StorageUse,
};

use crate::account::NodeMemory;
use crate::pod::{absent, absent_exit, arguments, environment};
use crate::{exit, probe, shared};
use container::{Container, Made};
use pod::Pod;

pub use images::SimulatedImages;

/// What a container wrote, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Which instance.
    pub container: ContainerId,
    /// To which of its outputs.
    pub stream: LogStream,
    /// Any number of bytes, not necessarily whole lines.
    pub bytes: Vec<u8>,
}

/// A node's runtime in simulation.
#[derive(Debug)]
pub struct SimulatedRuntime {
    images: SimulatedImages,
    memory: Arc<NodeMemory>,
    rng: Rng,
    pods: BTreeMap<Uid, Pod>,
    containers: BTreeMap<ContainerId, Container>,
    turns: DelayQueue<ContainerId>,
    output: Vec<Output>,
}

impl SimulatedRuntime {
    /// A runtime without pods, whose guests draw from this generator, and hold so many bytes of memory together at most.
    pub fn new(images: SimulatedImages, memory_total: u64, rng: Rng) -> Self {
        Self {
            images,
            memory: Arc::new(NodeMemory::new(memory_total)),
            rng,
            pods: BTreeMap::new(),
            containers: BTreeMap::new(),
            turns: DelayQueue::default(),
            output: Vec::new(),
        }
    }

    /// When the next guest is to have a turn, or ends.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.turns.next()
    }

    /// How many containers run.
    pub fn running(&self) -> usize {
        self.containers.values().filter(|container| container.is_running()).count()
    }

    /// What containers wrote since this was last asked.
    pub fn take_output(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.output)
    }

    /// Loses every pod, as a process that ends does.
    pub fn lose_containers(&mut self) {
        self.pods.clear();
        self.containers.clear();
        self.turns = DelayQueue::default();
    }

    /// Gives their turns to the guests that are due; answers those that ended.
    pub fn run(&mut self, now: Now) -> Vec<RuntimeEvent> {
        let mut events = Vec::new();
        while let Some(id) = self.turns.pop(now.mono) {
            let Some(container) = self.containers.get_mut(&id) else { continue };
            let due = container.turn(now);
            self.output.extend(written(&id, container));
            match (due, container.ended()) {
                // A turn takes time, however short it was.
                (Some(due), _) => self.turns.set(id, due.max(Instant::from_nanos(now.mono.as_nanos() + 1))),
                (None, Some(exit)) => events.push(RuntimeEvent::ContainerExited { id, exit: exit.clone() }),
                (None, None) => {}
            }
        }
        events
    }

    /// Takes a command; what comes of it at once. That a guest ended is told by [`Self::run`].
    pub fn command(&mut self, command: &RuntimeCommand, now: Now) -> Vec<RuntimeEvent> {
        match command {
            // A Wasm container ends with the process that ran it: nothing is there from before.
            RuntimeCommand::ListExisting => vec![RuntimeEvent::Existing(Vec::new())],
            RuntimeCommand::PullImage { pull, image, policy, .. } => {
                let result = shared::look_up(self.images.store(), image, *policy).map(|(_, info)| info);
                vec![RuntimeEvent::ImageReady { pull: *pull, image: image.clone(), result }]
            }
            // Images in memory are given, not fetched: none of them may go.
            RuntimeCommand::ListImages => vec![RuntimeEvent::Images { disk: DiskUse::default(), images: Vec::new() }],
            // Folders in memory have a bound of their own.
            RuntimeCommand::MeasureStorage(pod) => {
                vec![RuntimeEvent::StorageMeasured { pod: pod.clone(), used: StorageUse::default() }]
            }
            RuntimeCommand::RemoveImage(id) => {
                let result = Err("images of a simulation stay".to_owned());
                vec![RuntimeEvent::ImageRemoved { id: id.clone(), result }]
            }
            RuntimeCommand::CreateSandbox(sandbox) => {
                self.pods.insert(sandbox.pod.clone(), Pod::new(sandbox.clone()));
                vec![RuntimeEvent::SandboxCreated { pod: sandbox.pod.clone(), result: Ok(()) }]
            }
            RuntimeCommand::RemoveSandbox(pod) => self.remove_sandbox(pod),
            RuntimeCommand::WriteVolume { pod, volume, source } => match self.pods.get_mut(pod) {
                Some(there) => {
                    there.write_volume(volume, source);
                    vec![RuntimeEvent::VolumeWritten { pod: pod.clone(), volume: volume.clone(), result: Ok(()) }]
                }
                None => absent(command.clone()).into_iter().collect(),
            },
            RuntimeCommand::CreateContainer(spec) => {
                let result = self.create_container(spec);
                vec![RuntimeEvent::ContainerCreated { id: spec.id.clone(), result }]
            }
            RuntimeCommand::StartContainer(id) => {
                let result = self.start_container(id, now).map_err(ContainerError::Run);
                vec![RuntimeEvent::ContainerStarted { id: id.clone(), result }]
            }
            RuntimeCommand::StopContainer(id) => vec![self.end_container(id, exit::terminated())],
            RuntimeCommand::KillContainer(id) => vec![self.end_container(id, exit::killed())],
            RuntimeCommand::RemoveContainer(id) => {
                let mut events = Vec::new();
                if self.containers.get(id).is_some_and(Container::is_running) {
                    events.push(self.end_container(id, exit::killed()));
                }
                self.containers.remove(id);
                events.push(RuntimeEvent::ContainerRemoved { id: id.clone() });
                events
            }
            RuntimeCommand::Probe { id, address, action, .. } => {
                vec![RuntimeEvent::Probed { id: *id, result: probe::unheard(*address, action) }]
            }
            RuntimeCommand::Stats => {
                let usage = |(id, container): (&ContainerId, &Container)| Some((id.to_string(), container.usage()?));
                vec![RuntimeEvent::Stats(self.containers.iter().filter_map(usage).collect())]
            }
        }
    }

    fn remove_sandbox(&mut self, pod: &Uid) -> Vec<RuntimeEvent> {
        let theirs = self.containers.keys().filter(|id| id.pod == *pod).cloned().collect::<Vec<_>>();
        let mut events = Vec::new();
        for id in theirs {
            if self.containers.get(&id).is_some_and(Container::is_running) {
                events.push(self.end_container(&id, exit::killed()));
            }
            self.turns.remove(&id);
            self.containers.remove(&id);
        }
        self.pods.remove(pod);
        events.push(RuntimeEvent::SandboxRemoved { pod: pod.clone() });
        events
    }

    fn create_container(&mut self, spec: &ContainerSpec) -> Result<(), ContainerError> {
        let pod = self.pods.get(&spec.id.pod);
        let pod = pod.ok_or_else(|| ContainerError::Create("the pod has no sandbox".to_owned()))?;
        let image = canonical_image_name(&spec.image).ok().and_then(|name| self.images.store().find(&name));
        let image = image.ok_or_else(|| {
            ContainerError::Create(format!("image {:?} is not in the node's image store", spec.image))
        })?;
        let linked = self.images.program(&image);
        let linked = linked.map_err(|error| ContainerError::Create(format!("image {:?}: {error}", spec.image)))?;
        let (preopens, message) = pod.prepare(spec).map_err(ContainerError::Create)?;
        let env = environment(spec, &pod.sandbox, &image.config)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let made = Made { args: arguments(spec, &image.config), env, preopens, message, linked, rng: self.rng.fork() };
        self.containers.insert(spec.id.clone(), Container::new(spec, made, &self.memory));
        Ok(())
    }

    fn start_container(&mut self, id: &ContainerId, now: Now) -> Result<(), String> {
        let container = self.containers.get_mut(id).ok_or_else(|| format!("container {id} is not there"))?;
        if !container.is_created() {
            return Err(format!("container {id} was started already"));
        }
        if let Some(missing) = container.missing() {
            return Err(missing.to_owned());
        }
        container.start(now)?;
        self.turns.set(id.clone(), now.mono);
        Ok(())
    }

    /// Ends a container: WASI has no signals, so a guest ends at once when it is asked to. One that has ended says so again.
    fn end_container(&mut self, id: &ContainerId, exit: Exit) -> RuntimeEvent {
        let Some(container) = self.containers.get_mut(id) else { return absent_exit(id.clone()) };
        if container.ended().is_none() {
            container.end(exit);
            self.turns.remove(id);
        }
        let exit = container.ended().cloned().unwrap_or_else(exit::killed);
        RuntimeEvent::ContainerExited { id: id.clone(), exit }
    }
}

/// What a container wrote in its turn.
fn written(id: &ContainerId, container: &mut Container) -> Vec<Output> {
    let output = container.take_output().into_iter();
    output.map(|(stream, bytes)| Output { container: id.clone(), stream, bytes }).collect()
}
