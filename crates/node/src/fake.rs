//! A runtime as data: it runs nothing, and answers as its scripts say.
//!
//! It is the runtime of fake nodes (no script: images are there, containers start at once, stay, and are ready)
//! and of simulations and tests. It is pure: a command gives the events that it leads to, each after a delay.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_base::Now;

use crate::runtime::{
    ContainerError, ContainerId, DiskUse, ExistingContainer, Exit, ImageError, ImageInfo, Login, ProbeResult, PullId,
    RuntimeCommand, RuntimeEvent, RuntimeKind, StorageUse,
};

/// How containers of an image behave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Fetching the image fails so.
    pub pull: Option<ImageError>,
    /// Only this user may fetch the image.
    pub pull_as: Option<String>,
    /// Fetching the image takes so long; without it the image is there already.
    pub pull_takes: Option<Duration>,
    /// Creating or starting a container fails so.
    pub start: Option<ContainerError>,
    /// The containers end so long after their start, so; without it they run until they are stopped.
    pub exit: Option<(Duration, Exit)>,
    /// How long after its start a container's probes succeed.
    pub ready_after: Duration,
    /// How long a container takes to end when it is asked to; `None`: it does not, and must be killed.
    pub stop_after: Option<Duration>,
    /// A container with this variable and value in its environment does not end by itself.
    pub healed_by: Option<(String, String)>,
}

impl Script {
    /// Runs for ever, is ready at once, ends at once when asked.
    pub fn runs() -> Self {
        Self { stop_after: Some(Duration::ZERO), ..Self::default() }
    }

    /// Ends with `code` so long after each start.
    pub fn exits(after: Duration, code: i32) -> Self {
        let exit = Exit { code, signal: None, reason: None, message: None, log_tail: None };
        Self { exit: Some((after, exit)), ..Self::runs() }
    }

    /// The image cannot be fetched, for this reason.
    pub fn pull_error(why: &str) -> Self {
        Self { pull: Some(ImageError::Pull(why.into())), ..Self::runs() }
    }

    /// Only this user may fetch the image, which takes a second.
    pub fn private(user: &str) -> Self {
        Self { pull_as: Some(user.into()), pull_takes: Some(Duration::from_secs(1)), ..Self::runs() }
    }

    /// A container of this image cannot be started, for this reason.
    pub fn never_starts(why: &str) -> Self {
        Self { start: Some(ContainerError::Run(why.into())), ..Self::runs() }
    }

    /// The same, but containers with this variable in their environment run for ever.
    #[must_use]
    pub fn unless_env(self, name: &str, value: &str) -> Self {
        Self { healed_by: Some((name.into(), value.into())), ..self }
    }

    /// Its probes succeed so long after its start.
    pub fn ready_after(after: Duration) -> Self {
        Self { ready_after: after, ..Self::runs() }
    }
}

/// A runtime that runs nothing. Whoever drives it keeps the events until their time and gives each to the agent,
/// and first asks [`Self::is_current`] whether it still happens.
#[derive(Clone, Debug, Default)]
pub struct FakeRuntime {
    scripts: BTreeMap<String, Script>,
    containers: BTreeMap<ContainerId, Container>,
    /// What every pod has on the disk.
    stored: StorageUse,
}

#[derive(Clone, Debug)]
struct Container {
    image: String,
    env: Vec<(String, String)>,
    started: Option<Now>,
    exit: Option<Exit>,
}

impl FakeRuntime {
    /// A runtime where every image runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how containers of an image behave from now on.
    pub fn script(&mut self, image: &str, script: Script) {
        self.scripts.insert(image.into(), script);
    }

    /// Says what every pod has on the disk from now on.
    pub fn store(&mut self, used: StorageUse) {
        self.stored = used;
    }

    /// Loses every container, as a process that ends does with its Wasm containers.
    pub fn lose_containers(&mut self) {
        self.containers.clear();
    }

    /// How many containers run.
    pub fn running(&self) -> usize {
        self.containers.values().filter(|container| container.started.is_some() && container.exit.is_none()).count()
    }

    /// Takes a command; what comes of it, each event after its delay.
    pub fn command(&mut self, command: &RuntimeCommand, now: Now) -> Vec<(Duration, RuntimeEvent)> {
        match command {
            RuntimeCommand::ListExisting => at_once(RuntimeEvent::Existing(self.existing())),
            RuntimeCommand::PullImage { pull, image, logins, .. } => self.pull(*pull, image, logins),
            RuntimeCommand::ListImages => {
                at_once(RuntimeEvent::Images { disk: DiskUse::default(), images: Vec::new() })
            }
            RuntimeCommand::RemoveImage(id) => at_once(RuntimeEvent::ImageRemoved { id: id.clone(), result: Ok(0) }),
            RuntimeCommand::CreateSandbox(sandbox) => {
                at_once(RuntimeEvent::SandboxCreated { pod: sandbox.pod.clone(), result: Ok(()) })
            }
            RuntimeCommand::RemoveSandbox(pod) => {
                self.containers.retain(|id, _| id.pod != *pod);
                at_once(RuntimeEvent::SandboxRemoved { pod: pod.clone() })
            }
            RuntimeCommand::WriteVolume { pod, volume, .. } => {
                at_once(RuntimeEvent::VolumeWritten { pod: pod.clone(), volume: volume.clone(), result: Ok(()) })
            }
            RuntimeCommand::CreateContainer(spec) => {
                let error = self.script_of(&spec.image).start.filter(|e| matches!(e, ContainerError::Create(_)));
                let (image, env) = (spec.image.clone(), spec.env.clone());
                let container = Container { image, env, started: None, exit: None };
                self.containers.insert(spec.id.clone(), container);
                at_once(RuntimeEvent::ContainerCreated { id: spec.id.clone(), result: error.map_or(Ok(()), Err) })
            }
            RuntimeCommand::StartContainer(id) => self.start(id, now),
            RuntimeCommand::StopContainer(id) => {
                let script = self.containers.get(id).map(|container| self.script_of(&container.image));
                let stop = script.and_then(|script| script.stop_after);
                stop.map_or_else(Vec::new, |after| vec![(after, exited(id, 0, None))])
            }
            RuntimeCommand::KillContainer(id) => at_once(exited(id, 137, Some(9))),
            RuntimeCommand::RemoveContainer(id) => {
                self.containers.remove(id);
                at_once(RuntimeEvent::ContainerRemoved { id: id.clone() })
            }
            RuntimeCommand::Probe { id, container, .. } => {
                at_once(RuntimeEvent::Probed { id: *id, result: self.probe(container, now) })
            }
            RuntimeCommand::MeasureStorage(pod) => {
                let used = self.stored.clone();
                at_once(RuntimeEvent::StorageMeasured { pod: pod.clone(), used })
            }
            RuntimeCommand::Stats => at_once(RuntimeEvent::Stats(BTreeMap::new())),
        }
    }

    /// Whether an event still happens when its time has come, and notes it: a container ends once, and not after it was removed.
    pub fn is_current(&mut self, event: &RuntimeEvent) -> bool {
        let RuntimeEvent::ContainerExited { id, exit } = event else { return true };
        match self.containers.get_mut(id) {
            Some(container) if container.exit.is_none() => {
                container.exit = Some(exit.clone());
                true
            }
            _ => false,
        }
    }

    fn script_of(&self, image: &str) -> Script {
        self.scripts.get(image).cloned().unwrap_or_else(Script::runs)
    }

    fn pull(&self, pull: PullId, image: &str, logins: &[Login]) -> Vec<(Duration, RuntimeEvent)> {
        let script = self.script_of(image);
        let ready = |result| RuntimeEvent::ImageReady { pull, image: image.to_owned(), result };
        let refused = script.pull_as.filter(|user| logins.iter().all(|login| login.username != *user));
        let refused = refused.map(|_| ImageError::Pull(format!("pull access denied for {image}")));
        if let Some(error) = script.pull.or(refused) {
            return at_once(ready(Err(error)));
        }
        let info = ImageInfo::present(image, 0);
        let Some(takes) = script.pull_takes else { return at_once(ready(Ok(info))) };
        let millis = u64::try_from(takes.as_millis()).unwrap_or(u64::MAX);
        let fetched = ImageInfo { present: false, pull_millis: millis, waited_millis: millis, ..info };
        vec![(Duration::ZERO, RuntimeEvent::ImagePulling { pull }), (takes, ready(Ok(fetched)))]
    }

    fn existing(&self) -> Vec<ExistingContainer> {
        let existing = |(id, container): (&ContainerId, &Container)| ExistingContainer {
            id: id.clone(),
            started_at: container.started.map(|now| now.wall),
            exit: container.exit.clone(),
            runtime: RuntimeKind::Wasm,
        };
        self.containers.iter().filter(|(_, container)| container.started.is_some()).map(existing).collect()
    }

    fn start(&mut self, id: &ContainerId, now: Now) -> Vec<(Duration, RuntimeEvent)> {
        let started = |result| (Duration::ZERO, RuntimeEvent::ContainerStarted { id: id.clone(), result });
        let Some(container) = self.containers.get(id) else {
            return vec![started(Err(ContainerError::Run("no such container".into())))];
        };
        let script = self.script_of(&container.image);
        let healed = script.healed_by.as_ref().is_some_and(|variable| container.env.contains(variable));
        if let Some(error) = script.start {
            return vec![started(Err(error))];
        }
        if let Some(container) = self.containers.get_mut(id) {
            container.started = Some(now);
        }
        let mut events = vec![started(Ok(()))];
        if let Some((after, exit)) = script.exit.filter(|_| !healed) {
            events.push((after, RuntimeEvent::ContainerExited { id: id.clone(), exit }));
        }
        events
    }

    fn probe(&self, id: &ContainerId, now: Now) -> ProbeResult {
        let running = self.containers.get(id).filter(|container| container.exit.is_none());
        let Some((container, started)) = running.and_then(|c| Some((c, c.started?))) else {
            return ProbeResult::Failure("connection refused".into());
        };
        if now.mono.saturating_since(started.mono) >= self.script_of(&container.image).ready_after {
            ProbeResult::Success
        } else {
            ProbeResult::Failure("HTTP probe failed with statuscode: 503".into())
        }
    }
}

fn at_once(event: RuntimeEvent) -> Vec<(Duration, RuntimeEvent)> {
    vec![(Duration::ZERO, event)]
}

fn exited(id: &ContainerId, code: i32, signal: Option<i32>) -> RuntimeEvent {
    RuntimeEvent::ContainerExited {
        id: id.clone(),
        exit: Exit { code, signal, reason: None, message: None, log_tail: None },
    }
}
