//! One pod of the node, from its sandbox to its removal: the order among its containers, and its end.
//!
//! It is told what happened and then advanced; advancing does all that can be done, so a lost or repeated wake-up changes nothing.

mod report;
mod setup;
pub(crate) mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::ObjectKey;
use coracle_base::{Instant, Timestamp};

use crate::admission::Rejection;
use crate::container::{Container, Step as ContainerStep, StopReason, from_status};
use crate::context::Context;
use crate::pod_spec::{PodView, Role, seconds};
use crate::reasons;
use crate::runtime::{
    ContainerError, ContainerId, ExistingContainer, Exit, ImageError, ImageInfo, ProbeId, ProbeResult, PullId,
    RuntimeKind, StorageUse,
};
use crate::{ContainerCheckpoint, EventType, PodCheckpoint, storage, volume};

use report::Report;
use setup::{Sandbox, VolumeState};
use tokens::Tokens;

/// What a sidecar has at least to end by itself when the others have used up the pod's grace.
const LEAST_SIDECAR_GRACE: Duration = Duration::from_secs(2);

/// What an evicted pod has to end, as kubelets give it.
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// What is said of a container that never started in a pod that ends.
const NEVER_STARTED: &str = "The container could not be located when the pod was terminated";

/// Where a pod is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Its sandbox and its volumes are made.
    Preparing,
    /// Its containers run.
    Running,
    /// Its containers are stopped; killed at the deadline.
    Stopping { deadline: Instant },
    /// Nothing of it runs or will run again.
    Ended,
}

/// Why the node ended a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `status.reason`.
    pub(crate) reason: &'static str,
    /// `status.message`.
    pub(crate) message: String,
    /// Whether it was never taken: then there is nothing to say of its containers.
    pub(crate) rejected: bool,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct PodWorker {
    pod: Arc<PodView>,
    step: Step,
    /// What runs it, once that is decided.
    runtime: Option<RuntimeKind>,
    /// `status.podIP`; it stays in the status when the pool has it back.
    address: Option<IpAddr>,
    holds_address: bool,
    sandbox: Sandbox,
    volumes: BTreeMap<String, VolumeState>,
    tokens: Tokens,
    containers: Vec<Container>,
    references: BTreeSet<ObjectKey>,
    /// Something that it refers to changed.
    objects_changed: bool,
    initialized: bool,
    started_at: Timestamp,
    /// `status.reason` and `message`, where the node ended it.
    verdict: Option<Verdict>,
    /// The API server wants it gone.
    deleting: bool,
    /// The API server does not have it any more.
    gone: bool,
    report: Report,
}

impl PodWorker {
    /// A worker for a pod that the API server has, or (`kept`) that ran here before.
    pub(crate) fn new(
        pod: Arc<PodView>,
        kept: Option<PodCheckpoint>,
        existing: &BTreeMap<ContainerId, ExistingContainer>,
        context: &mut Context<'_>,
    ) -> Self {
        let status = &pod.value["status"];
        let started_at = kept.as_ref().map(|kept| kept.started_at).or_else(|| {
            let text = status["startTime"].as_str()?;
            Timestamp::parse(text).ok()
        });
        let crash_loop_max = context.shared.config.crash_loop_max;
        let containers =
            pod.containers().map(|(role, spec)| Container::new(role, spec, &pod, crash_loop_max)).collect();
        let mut worker = Self {
            step: Step::Preparing,
            runtime: None,
            address: None,
            holds_address: false,
            sandbox: Sandbox::None,
            volumes: BTreeMap::new(),
            tokens: Tokens::default(),
            containers,
            references: volume::references(&pod),
            objects_changed: false,
            initialized: false,
            started_at: started_at.unwrap_or(context.now.wall),
            verdict: None,
            deleting: false,
            gone: false,
            report: Report::new(status),
            pod: Arc::clone(&pod),
        };
        if pod.is_terminal() {
            worker.step = Step::Ended;
            worker.sandbox = Sandbox::Removed;
            worker.report.freeze();
        } else {
            worker.restore(kept, existing, context);
        }
        worker.note_deletion(context);
        worker
    }

    /// Refuses a pod that the node has no place for: it fails without ever beginning.
    pub(crate) fn reject(&mut self, rejection: Rejection, context: &mut Context<'_>) {
        let Rejection { reason, message } = rejection;
        let told = format!("Pod was rejected: {message}");
        context.event(&self.pod, None, EventType::Warning, reason, message);
        self.verdict = Some(Verdict { reason, message: told, rejected: true });
        self.step = Step::Ended;
        self.sandbox = Sandbox::Removed;
    }

    /// Whether it is new here, so that the node may still refuse it.
    pub(crate) fn is_new(&self) -> bool {
        let begun = self.pod.value["status"]["startTime"].is_string();
        !begun && !self.deleting && self.step == Step::Preparing && self.sandbox == Sandbox::None
    }

    /// Whether it takes up room on the node.
    pub(crate) fn counts(&self) -> bool {
        !self.gone && self.step != Step::Ended
    }

    fn restore(
        &mut self,
        kept: Option<PodCheckpoint>,
        existing: &BTreeMap<ContainerId, ExistingContainer>,
        context: &mut Context<'_>,
    ) {
        let pod = Arc::clone(&self.pod);
        let status = &pod.value["status"];
        let told = status["podIP"].as_str().and_then(|text| text.parse().ok());
        if let Some(kept) = &kept {
            self.tokens = Tokens::restore(kept.tokens.clone(), context.now);
        }
        let of_existing =
            existing.values().find(|existing| existing.id.pod == pod.uid).map(|existing| existing.runtime);
        let of_kept = kept.as_ref().and_then(|kept| kept.runtime);
        if let Some(runtime) = of_existing.or(of_kept).or_else(|| setup::runtime_of(status, &context.shared.config)) {
            self.set_runtime(runtime);
        }
        let address: Option<IpAddr> = kept.as_ref().and_then(|kept| kept.address).or(told);
        if let Some(address) = address.filter(|address| context.shared.addresses.claim(*address)) {
            self.take_address(address, context);
        }
        let mut kept: BTreeMap<String, _> =
            kept.into_iter().flat_map(|kept| kept.containers).map(|kept| (kept.name.clone(), kept)).collect();
        for container in &mut self.containers {
            let found = existing
                .values()
                .filter(|existing| existing.id.pod == pod.uid && existing.id.container == container.spec.name)
                .max_by_key(|existing| existing.id.instance);
            // What was kept may be a moment older than what the API server or the runtime knows.
            let known = [kept.remove(&container.spec.name), from_status(status, &container.spec.name)];
            let newest = known.into_iter().flatten().reduce(|a, b| if b.instance > a.instance { b } else { a });
            // It may have started and nothing of that been kept or told.
            let newest = newest.or_else(|| found.map(ContainerCheckpoint::found));
            let Some(mut newest) = newest else { continue };
            let found = found.filter(|found| Some(found.id.instance) >= newest.instance);
            if let Some(found) = found.filter(|found| Some(found.id.instance) > newest.instance) {
                newest.instance = Some(found.id.instance);
                newest.last_termination = newest.terminated.take().or(newest.last_termination);
            }
            container.restore(newest, found, &pod, context);
        }
        if self.containers.iter().any(Container::is_alive) {
            self.initialized = self.containers.iter().any(|c| c.role == Role::Main && c.instance.is_some());
        } else if self.containers.iter().any(|c| c.role == Role::Main && c.step != ContainerStep::Ended) {
            self.containers.iter_mut().for_each(Container::run_again);
        } else {
            self.initialized = true;
        }
    }

    pub(crate) fn pod(&self) -> &PodView {
        &self.pod
    }

    /// Whether it reads this ConfigMap or Secret.
    pub(crate) fn reads(&self, key: &ObjectKey) -> bool {
        self.references.contains(key)
    }

    /// Whether there is nothing left to do for it and nobody who asks.
    pub(crate) fn is_over(&self) -> bool {
        self.gone && self.step == Step::Ended && self.sandbox == Sandbox::Removed
    }

    /// Whether any of its containers runs.
    pub(crate) fn has_running_container(&self) -> bool {
        self.containers.iter().any(Container::is_alive)
    }

    /// What to keep of it; nothing once it is over.
    pub(crate) fn checkpoint(&self, now: coracle_base::Now) -> Option<PodCheckpoint> {
        if self.step == Step::Ended || self.gone {
            return None;
        }
        Some(PodCheckpoint {
            uid: self.pod.uid.clone(),
            pod: Arc::clone(&self.pod.value),
            address: self.address.filter(|_| self.holds_address),
            runtime: self.runtime,
            started_at: self.started_at,
            tokens: self.tokens.checkpoint(),
            containers: self.containers.iter().map(|container| container.checkpoint(now)).collect(),
        })
    }

    /// When it wants to be advanced again.
    pub(crate) fn next_wakeup(&self, now: coracle_base::Now) -> Option<Instant> {
        // The others are not advanced before the init containers are over, but for the one whose image decides the runtime. Containers
        // that were taken over wait for their sandbox, too.
        let all = self.initialized || self.runtime.is_none();
        let any = self.step != Step::Preparing || self.runtime.is_none();
        let advanced = self.containers.iter().filter(|container| any && (all || container.role != Role::Main));
        let containers = advanced.filter_map(Container::next_wakeup).min();
        let begins = matches!(self.step, Step::Preparing | Step::Running);
        let stopping = match self.step {
            // The containers have timers of their own for what they were told; sidecars wait for their turn.
            Step::Stopping { deadline } if deadline > now.mono => Some(deadline),
            _ => None,
        };
        let active = self.active_deadline().map(|deadline| now.mono + deadline.saturating_since(now.wall));
        let setup = [active, self.setup_wakeup()].into_iter().flatten().min().filter(|_| begins);
        let report = self.report.next_wakeup().filter(|_| !self.gone);
        [containers, stopping, setup, report].into_iter().flatten().min()
    }

    /// The pod changed in the API.
    pub(crate) fn update(&mut self, pod: Arc<PodView>, context: &mut Context<'_>) {
        self.pod = Arc::clone(&pod);
        self.report.compare(pod.revision, &pod.value["status"]);
        let Some(address) = self.address else {
            for ((_, spec), container) in pod.containers().zip(&mut self.containers) {
                container.spec = spec.clone();
            }
            return self.note_deletion(context);
        };
        for ((_, spec), container) in pod.containers().zip(&mut self.containers) {
            if spec.name == container.spec.name && spec.image != container.spec.image {
                container.change_image(spec, &pod, address, context);
            }
        }
        self.note_deletion(context);
    }

    fn note_deletion(&mut self, context: &mut Context<'_>) {
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.deleting = true;
            self.begin_stop(self.pod.deletion_grace(), context);
        }
    }

    /// The API server does not have it any more: it ends, and nothing is reported.
    pub(crate) fn removed_from_api(&mut self, context: &mut Context<'_>) {
        self.gone = true;
        self.deleting = true;
        self.begin_stop(self.pod.deletion_grace(), context);
    }

    /// A ConfigMap or Secret that it reads changed.
    pub(crate) fn object_changed(&mut self) {
        self.objects_changed = true;
    }

    /// Does all that can be done now.
    pub(crate) fn advance(&mut self, context: &mut Context<'_>) {
        self.check_active_deadline(context);
        if self.step == Step::Preparing {
            self.prepare(context);
        }
        if self.step == Step::Running {
            self.advance_running(context);
        }
        if matches!(self.step, Step::Stopping { .. }) {
            self.advance_stopping(context);
        }
        if self.step == Step::Ended {
            self.clean_up(context);
        }
        self.report(context);
    }

    fn advance_running(&mut self, context: &mut Context<'_>) {
        let Some(address) = self.address else { return };
        let pod = Arc::clone(&self.pod);
        if self.setup_wakeup().is_some_and(|retry| retry <= context.now.mono) {
            self.request_tokens(context);
            self.refresh_volumes(context);
        }
        if std::mem::take(&mut self.objects_changed) {
            self.refresh_volumes(context);
            for container in &mut self.containers {
                container.objects_changed(&pod, address, context);
            }
        }
        let mut may_begin = true;
        for container in &mut self.containers {
            if container.role == Role::Main {
                self.initialized |= may_begin;
                may_begin = self.initialized;
            }
            let under_way = container.role != Role::Main && container.step != ContainerStep::Idle;
            if may_begin || self.initialized || under_way {
                container.advance(&pod, address, context);
            }
            if container.role != Role::Main {
                may_begin &= container.lets_next_begin();
            }
        }
        let init_failed = !self.initialized && self.containers.iter().any(|c| c.role == Role::Init && c.has_failed());
        let mains_over = self.mains().all(|container| container.step == ContainerStep::Ended);
        if init_failed || mains_over {
            self.begin_stop(pod.grace(), context);
        }
    }

    fn mains(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.role == Role::Main)
    }

    /// Begins to stop the containers, or shortens their grace.
    fn begin_stop(&mut self, grace: Duration, context: &mut Context<'_>) {
        let asked = context.now.mono + grace;
        let deadline = match self.step {
            Step::Stopping { deadline } => deadline.min(asked),
            Step::Ended => return,
            Step::Preparing | Step::Running => asked,
        };
        self.step = Step::Stopping { deadline };
    }

    /// Stops the containers, and when they have ended the sidecars, last first.
    fn advance_stopping(&mut self, context: &mut Context<'_>) {
        let Step::Stopping { deadline } = self.step else { return };
        let pod = Arc::clone(&self.pod);
        let grace = deadline.saturating_since(context.now.mono);
        let address = self.address.unwrap_or(context.shared.config.address);
        let mut waits = false;
        for container in self.containers.iter_mut().filter(|container| container.role != Role::Sidecar) {
            stop(container, &pod, address, grace, context);
            waits |= container.is_alive();
        }
        let sidecar_grace = grace.max(LEAST_SIDECAR_GRACE);
        for container in self.containers.iter_mut().rev().filter(|container| container.role == Role::Sidecar) {
            if waits && grace > Duration::ZERO {
                // It still serves the others; its probes and hooks go on.
                container.advance_if_running(&pod, address, context);
            } else if container.is_alive() && container.is_stopping() {
                container.advance_stop(&pod, context);
            } else {
                stop(container, &pod, address, sidecar_grace, context);
            }
            waits |= container.is_alive();
        }
        if !waits {
            self.end(context);
        }
    }

    fn end(&mut self, context: &mut Context<'_>) {
        self.step = Step::Ended;
        for container in &mut self.containers {
            if self.deleting || self.verdict.is_some() {
                container.mark_lost(NEVER_STARTED, context.now.wall);
            }
        }
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        Some(self.started_at + seconds(self.pod.spec.active_deadline_seconds?))
    }

    fn check_active_deadline(&mut self, context: &mut Context<'_>) {
        let over = self.active_deadline().is_some_and(|deadline| deadline <= context.now.wall);
        if over && matches!(self.step, Step::Preparing | Step::Running) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.verdict =
                Some(Verdict { reason: reasons::DEADLINE_EXCEEDED, message: message.into(), rejected: false });
            context.event(&self.pod, None, EventType::Normal, reasons::DEADLINE_EXCEEDED, message.into());
            self.begin_stop(self.pod.grace(), context);
        }
    }

    /// Whether what it has on the disk is to be measured.
    pub(crate) fn limits_storage(&self) -> bool {
        self.step == Step::Running && storage::has_limits(&self.pod)
    }

    /// What it has on the disk: beyond its limits it is evicted.
    pub(crate) fn storage_measured(&mut self, used: &StorageUse, context: &mut Context<'_>) {
        if !matches!(self.step, Step::Preparing | Step::Running) {
            return;
        }
        let Some(message) = storage::excess(&self.pod, used) else { return };
        context.event(&self.pod, None, EventType::Warning, reasons::EVICTED, message.clone());
        self.verdict = Some(Verdict { reason: reasons::EVICTED, message, rejected: false });
        self.begin_stop(EVICTION_GRACE, context);
    }

    /// An image is there, or cannot be had.
    pub(crate) fn image_answered(
        &mut self,
        pull: PullId,
        result: &Result<ImageInfo, ImageError>,
        context: &mut Context<'_>,
    ) -> bool {
        // Before a sandbox is there the pod's first image is only asked for to learn what runs it.
        let address = self.address.filter(|_| self.runtime.is_some());
        let pod = Arc::clone(&self.pod);
        let mut any = false;
        for container in self.containers.iter_mut().filter(|container| container.awaits_image(pull)) {
            container.image_answered(&pod, address, result, context);
            any = true;
        }
        if let (true, None, Ok(info)) = (any, self.runtime, result) {
            self.set_runtime(info.runtime);
        }
        any
    }

    /// An image is being fetched.
    pub(crate) fn image_pulling(&mut self, pull: PullId, context: &mut Context<'_>) {
        let pod = Arc::clone(&self.pod);
        for container in self.containers.iter_mut().filter(|container| container.awaits_image(pull)) {
            container.say_pulling(&pod, context);
        }
    }

    /// The ids of the images that its containers have.
    pub(crate) fn images(&self) -> impl Iterator<Item = &str> {
        let there = self.sandbox != Sandbox::Removed;
        self.containers.iter().map(|c| c.image_id.as_str()).filter(move |id| there && !id.is_empty())
    }

    fn container(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.spec.name == name)
    }

    /// A container was created, or why not.
    pub(crate) fn created(&mut self, id: &ContainerId, result: Result<(), ContainerError>, context: &mut Context<'_>) {
        let pod = Arc::clone(&self.pod);
        if let Some(container) = self.container(&id.container) {
            container.created(&pod, id, result, context);
        }
    }

    /// A container was started, or why not.
    pub(crate) fn started(&mut self, id: &ContainerId, result: Result<(), ContainerError>, context: &mut Context<'_>) {
        let (pod, Some(address)) = (Arc::clone(&self.pod), self.address) else { return };
        if let Some(container) = self.container(&id.container) {
            container.start_answered(&pod, id, address, result, context);
        }
    }

    /// A container ended.
    pub(crate) fn exited(&mut self, id: &ContainerId, exit: Exit, context: &mut Context<'_>) {
        let pod = Arc::clone(&self.pod);
        if let Some(container) = self.container(&id.container) {
            container.exited(&pod, id, exit, context);
        }
    }

    /// The program of a container said whether it is ready.
    pub(crate) fn readiness_said(&mut self, id: &ContainerId, ready: bool) {
        if let Some(container) = self.container(&id.container) {
            container.readiness_said(id, ready);
        }
    }

    /// A probe or a hook was answered.
    pub(crate) fn probed(&mut self, id: ProbeId, result: &ProbeResult, context: &mut Context<'_>) {
        let (pod, Some(address)) = (Arc::clone(&self.pod), self.address) else { return };
        for container in &mut self.containers {
            if container.probed(&pod, address, id, result, context) {
                return;
            }
        }
    }
}

fn stop(container: &mut Container, pod: &PodView, address: IpAddr, grace: Duration, context: &mut Context<'_>) {
    let message = format!("Stopping container {}", container.name());
    container.stop(pod, address, StopReason::PodEnds, grace, message, context);
    container.advance_if_running(pod, address, context);
}
