//! The pods of a node: who has a worker, which worker an input goes to, and when each wants to be woken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resources::{RUNTIME_CLASSES, SERVICES};
use coracle_api::{Object, ObjectKey, Response, Uid};
use coracle_base::{DelayQueue, Instant, Now};

use crate::admission;
use crate::context::Context;
use crate::objects::Objects;
use crate::pod_spec::PodView;
use crate::pod_worker::PodWorker;
use crate::runtime::{ContainerId, ExistingContainer, RuntimeCommand, RuntimeEvent};
use crate::{Checkpoint, PodCheckpoint, RequestId};

/// How long what was kept waits for the API server, which may want other pods by now, before it runs without one.
const API_WAIT: Duration = Duration::from_secs(5);

/// How many pods are advanced in one step at most, so that a step stays short; the others have their turn in the next.
const ADVANCED_MAX: usize = 16;

/// The pods.
#[derive(Debug)]
pub(super) struct Pods {
    workers: BTreeMap<Uid, PodWorker>,
    timers: DelayQueue<Uid>,
    /// Who is advanced at the end of this step, or of the next ones.
    touched: BTreeSet<Uid>,
    /// The time of the last step.
    now: Instant,
    /// What was kept of pods, until their workers are made.
    kept: Vec<PodCheckpoint>,
    /// When what was kept runs even without an API server.
    offline_at: Instant,
    /// Pods that the API server told of before workers could be made.
    arrived: BTreeMap<Uid, Arc<PodView>>,
    /// What the runtime had at the start; `None`: it has not said yet.
    existing: Option<BTreeMap<ContainerId, ExistingContainer>>,
    /// Whether everything in the API was known once, and whether it is being told.
    synced: bool,
    listing: bool,
    /// Whether what should not run was looked for.
    compared: bool,
    /// Pods told of while everything is being told, and at the start until what runs was compared with them.
    seen: BTreeSet<Uid>,
    /// Objects told of meanwhile, so that those that are gone are forgotten.
    seen_objects: BTreeSet<ObjectKey>,
    /// Pods that are removed before the node is Ready.
    leftovers: BTreeSet<Uid>,
}

impl Pods {
    pub(super) fn new(kept: Vec<PodCheckpoint>) -> Self {
        Self {
            workers: BTreeMap::new(),
            timers: DelayQueue::default(),
            touched: BTreeSet::new(),
            now: Instant::ZERO,
            kept,
            offline_at: Instant::ZERO,
            arrived: BTreeMap::new(),
            existing: None,
            synced: false,
            listing: true,
            compared: false,
            seen: BTreeSet::new(),
            seen_objects: BTreeSet::new(),
            leftovers: BTreeSet::new(),
        }
    }

    /// The agent begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.offline_at = now + API_WAIT;
    }

    /// Whether it is known what runs, and nothing waits to be taken over: before that there is nothing new to keep.
    pub(super) fn has_begun(&self) -> bool {
        self.existing.is_some() && self.kept.is_empty()
    }

    /// Whether what runs is what should, as far as removing goes.
    pub(super) fn is_clean(&self) -> bool {
        self.compared && self.leftovers.is_empty()
    }

    pub(super) fn has_running_container(&self) -> bool {
        self.workers.values().any(PodWorker::has_running_container)
    }

    /// The pods whose use of the disk is to be measured.
    pub(super) fn limiting_storage(&self) -> impl Iterator<Item = &Uid> {
        self.workers.iter().filter(|(_, worker)| worker.limits_storage()).map(|(uid, _)| uid)
    }

    /// The ids of the images that containers have.
    pub(super) fn images(&self) -> BTreeSet<String> {
        self.workers.values().flat_map(PodWorker::images).map(str::to_owned).collect()
    }

    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        let backlog = (!self.touched.is_empty()).then_some(self.now);
        let offline = (!self.kept.is_empty() && self.existing.is_some()).then_some(self.offline_at);
        [self.timers.next(), backlog, offline].into_iter().flatten().min()
    }

    /// A pod changed in the API.
    pub(super) fn watch(&mut self, object: &Arc<Object>, deleted: bool, context: &mut Context<'_>) {
        let known = object.metadata().uid.as_ref().and_then(|uid| self.workers.get(uid)).map(PodWorker::pod);
        let Some(pod) = PodView::new(Arc::new(object.value(None)), known) else { return };
        if pod.spec.node_name.as_deref() != Some(context.shared.config.name.as_str()) {
            return;
        }
        let (uid, pod) = (pod.uid.clone(), Arc::new(pod));
        if self.listing || !self.compared {
            self.seen.insert(uid.clone());
        }
        self.touched.insert(uid.clone());
        match (self.workers.get_mut(&uid), deleted) {
            (Some(worker), true) => {
                worker.update(pod, context);
                worker.removed_from_api(context);
            }
            (Some(worker), false) if worker.pod().revision <= pod.revision => worker.update(pod, context),
            (Some(_), false) => {}
            (None, true) => _ = self.arrived.remove(&uid),
            (None, false) => _ = self.arrived.insert(uid, pod),
        }
    }

    /// A ConfigMap, a Secret or a Service changed.
    pub(super) fn object_changed(&mut self, key: &ObjectKey) {
        if self.listing {
            self.seen_objects.insert(key.clone());
        }
        for (uid, worker) in self.workers.iter_mut().filter(|(_, worker)| worker.reads(key)) {
            worker.object_changed();
            self.touched.insert(uid.clone());
        }
    }

    /// Everything in the API is about to be told.
    pub(super) fn listing(&mut self) {
        self.listing = true;
        self.seen.clear();
        self.seen_objects.clear();
    }

    /// Everything in the API was told.
    pub(super) fn synced(&mut self, context: &mut Context<'_>) {
        self.synced = true;
        if !std::mem::replace(&mut self.listing, false) {
            return;
        }
        let seen = std::mem::take(&mut self.seen_objects);
        context.shared.objects.retain(|key| seen.contains(key));
        let seen = &self.seen;
        self.arrived.retain(|uid, _| seen.contains(uid));
        for (uid, worker) in &mut self.workers {
            worker.object_changed();
            // What the start had is compared once it is known what runs.
            if self.compared && !seen.contains(uid) {
                worker.removed_from_api(context);
            }
        }
        self.touched.extend(self.workers.keys().cloned());
        if self.compared {
            self.seen.clear();
        }
    }

    /// Makes the workers that can be made, and once finds what should not run.
    fn admit(&mut self, context: &mut Context<'_>) {
        let Some(existing) = &self.existing else { return };
        if !self.synced && self.offline_at > context.now.mono {
            return;
        }
        for kept in std::mem::take(&mut self.kept) {
            let newest = self.arrived.remove(&kept.uid);
            let Some(pod) = newest.or_else(|| PodView::new(Arc::clone(&kept.pod), None).map(Arc::new)) else {
                continue;
            };
            self.touched.insert(pod.uid.clone());
            self.workers.insert(pod.uid.clone(), PodWorker::new(pod, Some(kept), existing, context));
        }
        if !self.synced {
            return;
        }
        let mut arrived: Vec<_> = std::mem::take(&mut self.arrived).into_iter().collect();
        // Who came first has the place.
        arrived.sort_by(|(a, x), (b, y)| (x.metadata.creation_timestamp, a).cmp(&(y.metadata.creation_timestamp, b)));
        for (uid, pod) in arrived {
            self.touched.insert(uid.clone());
            let mut worker = PodWorker::new(pod, None, existing, context);
            if worker.is_new() {
                let others = self.workers.values().filter(|worker| worker.counts()).map(PodWorker::pod);
                let shared = &*context.shared;
                if let Err(rejection) = admission::check(worker.pod(), others, &shared.config, &shared.node_labels) {
                    worker.reject(rejection, context);
                }
            }
            self.workers.insert(uid, worker);
        }
        if !self.listing && !std::mem::replace(&mut self.compared, true) {
            self.find_leftovers(context);
        }
    }

    fn find_leftovers(&mut self, context: &mut Context<'_>) {
        let seen = std::mem::take(&mut self.seen);
        for (uid, worker) in self.workers.iter_mut().filter(|(uid, _)| !seen.contains(*uid)) {
            worker.removed_from_api(context);
            self.leftovers.insert(uid.clone());
            self.touched.insert(uid.clone());
        }
        let existing: BTreeSet<Uid> = self.existing.iter().flatten().map(|(id, _)| id.pod.clone()).collect();
        for uid in existing.into_iter().filter(|uid| !self.workers.contains_key(uid)) {
            context.command(RuntimeCommand::RemoveSandbox(uid.clone()));
            self.leftovers.insert(uid);
        }
        // The containers are taken over or lost by now.
        self.existing = Some(BTreeMap::new());
    }

    /// Something happened in the runtime.
    pub(super) fn runtime(&mut self, event: RuntimeEvent, context: &mut Context<'_>) {
        match event {
            RuntimeEvent::Existing(containers) => {
                let by_id = containers.into_iter().map(|container| (container.id.clone(), container));
                self.existing.get_or_insert_with(|| by_id.collect());
            }
            RuntimeEvent::ImagePulling { pull } => {
                if let Some(pull) = context.shared.pulls.get_mut(&pull) {
                    pull.fetching = true;
                }
                self.workers.values_mut().for_each(|worker| worker.image_pulling(pull, context));
            }
            RuntimeEvent::ImageReady { pull, result, .. } => {
                context.shared.pulls.remove(&pull);
                for (uid, worker) in &mut self.workers {
                    if worker.image_answered(pull, &result, context) {
                        self.touched.insert(uid.clone());
                    }
                }
            }
            RuntimeEvent::SandboxCreated { pod, result } => {
                self.with(&pod, |worker| worker.sandbox_created(result, context));
            }
            RuntimeEvent::SandboxRemoved { pod } => {
                self.with(&pod, |worker| worker.sandbox_removed(context));
                if !self.workers.contains_key(&pod) {
                    self.leftovers.remove(&pod);
                }
            }
            RuntimeEvent::VolumeWritten { pod, volume, result } => {
                self.with(&pod, |worker| worker.volume_written(&volume, result, context));
            }
            RuntimeEvent::ContainerCreated { id, result } => {
                self.with(&id.pod, |worker| worker.created(&id, result, context));
            }
            RuntimeEvent::ContainerStarted { id, result } => {
                self.with(&id.pod, |worker| worker.started(&id, result, context));
            }
            RuntimeEvent::ContainerExited { id, exit } => {
                self.with(&id.pod, |worker| worker.exited(&id, exit, context));
            }
            RuntimeEvent::ReadinessSaid { id, ready } => {
                self.with(&id.pod, |worker| worker.readiness_said(&id, ready));
            }
            RuntimeEvent::Probed { id, result } => {
                if let Some(uid) = context.shared.probes.remove(&id) {
                    self.with(&uid, |worker| worker.probed(id, &result, context));
                }
            }
            RuntimeEvent::StorageMeasured { pod, used } => {
                self.with(&pod, |worker| worker.storage_measured(&used, context));
            }
            RuntimeEvent::ContainerRemoved { .. }
            | RuntimeEvent::Stats(_)
            | RuntimeEvent::Images { .. }
            | RuntimeEvent::ImageRemoved { .. }
            | RuntimeEvent::Health { .. } => {}
        }
    }

    fn with(&mut self, uid: &Uid, tell: impl FnOnce(&mut PodWorker)) {
        if let Some(worker) = self.workers.get_mut(uid) {
            tell(worker);
            self.touched.insert(uid.clone());
        }
    }

    /// The API server answered a pod's request.
    pub(super) fn answered(&mut self, uid: &Uid, id: RequestId, response: &Response, context: &Context<'_>) {
        self.with(uid, |worker| worker.answered(id, response, context));
    }

    /// Advances whoever was told something or whose time has come.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) {
        self.now = context.now.mono;
        self.admit(context);
        while let Some(uid) = self.timers.pop(context.now.mono) {
            self.touched.insert(uid);
        }
        for _ in 0..ADVANCED_MAX {
            let Some(uid) = self.touched.pop_first() else { return };
            let Some(worker) = self.workers.get_mut(&uid) else { continue };
            worker.advance(context);
            if worker.is_over() {
                self.workers.remove(&uid);
                self.leftovers.remove(&uid);
                self.timers.remove(&uid);
                continue;
            }
            match worker.next_wakeup(context.now) {
                Some(instant) => self.timers.set(uid, instant),
                None => self.timers.remove(&uid),
            }
        }
    }

    /// What to keep.
    pub(super) fn checkpoint(&self, now: Now, objects: &Objects) -> Checkpoint {
        let wanted = |key: &ObjectKey| {
            [RUNTIME_CLASSES, SERVICES].contains(&key.resource) || self.workers.values().any(|worker| worker.reads(key))
        };
        Checkpoint {
            pods: self.workers.values().filter_map(|worker| worker.checkpoint(now)).collect(),
            objects: objects.checkpoint(wanted),
        }
    }
}
