//! The agent of one node: a pure machine that runs the pods bound to it.
//!
//! It only routes: pods are [`crate::pod_worker`]'s, the Node object is [`crate::node_status`]'s.

mod pods;

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_api::resources::{NODES, PODS};
use coracle_api::{GroupResource, Response, WatchEvent};
use coracle_base::{Instant, Now, Rng};

use crate::address::Addresses;
use crate::context::{Context, Purpose, Shared};
use crate::image_gc::ImageCollector;
use crate::node_status::{self, NodeReport};
use crate::objects::Objects;
use crate::runtime::{RuntimeCommand, RuntimeEvent, Usage};
use crate::{Checkpoint, Heartbeat, Input, NodeConfig, Output, RequestId, reasons};

use pods::Pods;

/// How often a node gives a sign of life, unless it is told otherwise.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// How far apart checkpoints are at least: a crash loses no more than this, and what it loses the API server knows.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// The agent of one node.
#[derive(Debug)]
pub struct NodeAgent {
    shared: Shared,
    pods: Pods,
    node: NodeReport,
    images: ImageCollector,
    usage: BTreeMap<String, Usage>,
    begun: bool,
    next_heartbeat: Instant,
    heartbeat_interval: Duration,
    /// When the next checkpoint may be given; `None`: nothing has happened since the last.
    checkpoint_due: Option<Instant>,
    last_checkpoint: Option<(Instant, Checkpoint)>,
}

impl NodeAgent {
    /// An agent that starts from what it kept, or from nothing. Give it an [`Input::Tick`] right away.
    ///
    /// `rng` is where the agent's ids for probes and requests begin, so that an answer to an agent from before is not taken for
    /// one to this.
    pub fn new(config: NodeConfig, checkpoint: Option<Checkpoint>, mut rng: Rng) -> Self {
        let checkpoint = checkpoint.unwrap_or_default();
        let mut objects = Objects::default();
        for object in checkpoint.objects {
            objects.restore(object);
        }
        // Half of the range stays above what is drawn.
        let first_id = rng.below(u64::MAX / 2);
        let shared = Shared {
            addresses: Addresses::new(config.pod_range),
            node_labels: node_status::labels(&config),
            config,
            objects,
            quiet: false,
            pulls: BTreeMap::new(),
            probes: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_pull: first_id,
            next_probe: first_id,
            next_request: first_id,
        };
        Self {
            shared,
            pods: Pods::new(checkpoint.pods),
            node: NodeReport::default(),
            images: ImageCollector::new(),
            usage: BTreeMap::new(),
            begun: false,
            next_heartbeat: Instant::ZERO,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            checkpoint_due: None,
            last_checkpoint: None,
        }
    }

    /// The node's configuration.
    pub fn config(&self) -> &NodeConfig {
        &self.shared.config
    }

    /// Whether the node reports Ready: it knows what runs and what should, and has removed what should not.
    pub fn is_ready(&self) -> bool {
        self.pods.is_clean()
    }

    /// Takes one input and says what to do.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.shared.quiet = matches!(input, Input::Tick);
        if !std::mem::replace(&mut self.begun, true) {
            self.begin(now, &mut out);
        }
        self.take(now, input, &mut out);
        let mut context = Context { now, shared: &mut self.shared, out: &mut out };
        self.pods.advance(&mut context);
        self.node.advance(self.pods.is_clean(), &mut context);
        if let Some(command) = self.images.advance(now.mono) {
            out.push(Output::Runtime(command));
        }
        self.heartbeat(now, &mut out);
        self.checkpoint(now, &mut out);
        out
    }

    /// When to give the next [`Input::Tick`]: at once only when there is nothing else to give, because what a pod has to say
    /// gathers until then and goes out in one patch.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let heartbeat = self.begun.then_some(self.next_heartbeat);
        let checkpoint = self.checkpoint_due.filter(|_| self.pods.has_begun());
        let images = self.begun.then(|| self.images.next_wakeup());
        [self.pods.next_wakeup(), self.node.next_wakeup(), checkpoint, heartbeat, images].into_iter().flatten().min()
    }

    fn begin(&mut self, now: Now, out: &mut Vec<Output>) {
        self.next_heartbeat = now.mono;
        self.pods.begin(now.mono);
        self.images.begin(now.mono);
        let mut context = Context { now, shared: &mut self.shared, out };
        NodeReport::begin(&mut context);
        context.command(RuntimeCommand::ListExisting);
    }

    fn take(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let mut context = Context { now, shared: &mut self.shared, out };
        match input {
            Input::Watch { resource, event } => self.watch(now, &resource, event, out),
            Input::Listing => self.pods.listing(),
            Input::Synced => self.pods.synced(&mut context),
            Input::HeartbeatEvery(interval) => {
                self.heartbeat_interval = interval;
                self.next_heartbeat = self.next_heartbeat.min(now.mono + interval);
            }
            Input::AddressChanged(address) => {
                self.shared.config.address = address;
                self.node.report_again();
            }
            Input::Runtime(RuntimeEvent::Stats(usage)) => self.usage = usage,
            Input::Runtime(RuntimeEvent::Images { disk, images }) => {
                let (commands, shortfall) = self.images.listed(now, disk, &images, &self.pods.images());
                for command in commands {
                    context.command(command);
                }
                if let Some(message) = shortfall {
                    node_status::warn(&mut context, reasons::FREE_DISK_SPACE_FAILED, message);
                }
            }
            Input::Runtime(RuntimeEvent::ImageRemoved { id, .. }) => self.images.removed(&id),
            Input::Runtime(RuntimeEvent::Health { runtime, result }) => {
                self.node.runtime_health(runtime, result, &mut context);
            }
            Input::Runtime(event) => {
                self.pods.runtime(event, &mut context);
                self.something_happened(now);
            }
            Input::Answer(id, response) => self.answer(now, id, &response, out),
            Input::Tick => {}
        }
    }

    fn watch(&mut self, now: Now, resource: &GroupResource, event: WatchEvent, out: &mut Vec<Output>) {
        let mut context = Context { now, shared: &mut self.shared, out };
        let (object, deleted) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(_) => return,
        };
        if *resource == PODS {
            self.pods.watch(&object, deleted, &mut context);
            self.something_happened(now);
        } else if *resource == NODES {
            self.node.watch(&object, deleted, &mut context);
        } else if Objects::keeps(resource) {
            self.pods.object_changed(object.key());
            if deleted {
                context.shared.objects.remove(object.key());
            } else {
                context.shared.objects.insert(object);
            }
        }
    }

    fn answer(&mut self, now: Now, id: RequestId, response: &Response, out: &mut Vec<Output>) {
        let Some(purpose) = self.shared.requests.remove(&id) else { return };
        let context = Context { now, shared: &mut self.shared, out };
        match purpose {
            Purpose::Pod(uid) => self.pods.answered(&uid, id, response, &context),
            Purpose::RegisterNode | Purpose::NodeStatus => self.node.answered(&purpose, response, &context),
        }
    }

    fn heartbeat(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.next_heartbeat > now.mono {
            return;
        }
        self.next_heartbeat = now.mono + self.heartbeat_interval;
        out.push(Output::Heartbeat(Heartbeat { usage: self.usage.clone() }));
        if self.pods.has_running_container() {
            out.push(Output::Runtime(RuntimeCommand::Stats));
            let measured = self.pods.limiting_storage().cloned().map(RuntimeCommand::MeasureStorage);
            out.extend(measured.map(Output::Runtime));
        } else {
            self.usage.clear();
        }
    }

    fn something_happened(&mut self, now: Now) {
        let earliest = self.last_checkpoint.as_ref().map_or(now.mono, |(last, _)| *last + CHECKPOINT_INTERVAL);
        self.checkpoint_due.get_or_insert(earliest.max(now.mono));
    }

    fn checkpoint(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.pods.has_begun() || self.checkpoint_due.is_none_or(|due| due > now.mono) {
            return;
        }
        self.checkpoint_due = None;
        let checkpoint = self.pods.checkpoint(now, &self.shared.objects);
        let changed = self.last_checkpoint.as_ref().is_none_or(|(_, last)| *last != checkpoint);
        if changed {
            out.push(Output::Checkpoint(checkpoint.clone()));
        }
        self.last_checkpoint = Some((now.mono, checkpoint));
    }
}

#[cfg(test)]
mod tests;
