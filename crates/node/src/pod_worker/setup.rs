//! What a pod needs around its containers: an address, a sandbox, volumes; and giving them back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_base::Instant;

use super::{Container, Context, EventType, PodWorker, Step, reasons};
use crate::Output;
use crate::downward::Downward;
use crate::runtime::{RuntimeCommand, Sandbox as SandboxSpec, VolumeSource};
use crate::volume::contents;

/// How long to wait before a sandbox, a volume or an address is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The pod's sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sandbox {
    None,
    Creating,
    Ready,
    /// It could not be created, or there was no address.
    BackOff {
        until: Instant,
    },
    Removing,
    Removed,
}

/// One volume.
#[derive(Debug)]
pub(super) struct VolumeState {
    /// What was last given to the runtime, or why nothing could be.
    wanted: Result<VolumeSource, String>,
    /// Whether the runtime has it.
    written: bool,
    /// When to try again what the runtime refused.
    retry: Option<Instant>,
}

impl PodWorker {
    pub(super) fn setup_wakeup(&self) -> Option<Instant> {
        let sandbox = match self.sandbox {
            Sandbox::BackOff { until } => Some(until),
            _ => None,
        };
        let volumes = self.volumes.values().filter_map(|volume| volume.retry).min();
        [sandbox, volumes, self.tokens.next_wakeup()].into_iter().flatten().min()
    }

    /// Makes the sandbox, then the volumes, then lets the containers begin.
    pub(super) fn prepare(&mut self, context: &mut Context<'_>) {
        self.create_sandbox(context);
        if self.sandbox != Sandbox::Ready {
            return;
        }
        if !self.request_tokens(context) {
            return;
        }
        self.objects_changed = false;
        self.refresh_volumes(context);
        if self.volumes.values().all(|volume| volume.written) {
            self.step = Step::Running;
        }
    }

    pub(super) fn take_address(&mut self, address: IpAddr, context: &mut Context<'_>) {
        self.address = Some(address);
        self.holds_address = true;
        context.out.push(Output::RouteChanged { address, pod: Some(self.pod.uid.clone()) });
    }

    fn create_sandbox(&mut self, context: &mut Context<'_>) {
        let now = context.now.mono;
        let due = match self.sandbox {
            Sandbox::None => true,
            Sandbox::BackOff { until } => until <= now,
            _ => false,
        };
        if !due {
            return;
        }
        let hostname = match self.check_runtime(context).and_then(|()| {
            let domain = &context.shared.config.cluster_domain;
            self.pod.hostname(domain)
        }) {
            Ok(hostname) => hostname,
            Err(why) => return self.sandbox_failed(&why, context),
        };
        if !self.holds_address {
            let Some(address) = context.shared.addresses.take() else {
                return self.sandbox_failed("the node has no free pod address", context);
            };
            self.take_address(address, context);
        }
        let Some(address) = self.address else { return };
        self.sandbox = Sandbox::Creating;
        context.command(RuntimeCommand::CreateSandbox(SandboxSpec {
            pod: self.pod.uid.clone(),
            namespace: self.pod.namespace().into(),
            name: self.pod.name().into(),
            hostname,
            address,
            service_account: self.pod.service_account().into(),
        }));
    }

    /// Whether the node runs pods of the pod's RuntimeClass.
    fn check_runtime(&self, context: &Context<'_>) -> Result<(), String> {
        let (class, annotation) = self.pod.runtime();
        let of_class = match class {
            Some(class) => {
                let handler = context.shared.objects.runtime_handler(class);
                Some(handler.ok_or_else(|| format!("RuntimeClass {class:?} not found"))?)
            }
            None => None,
        };
        let handlers = &context.shared.config.runtime_handlers;
        let has = |handler: &str| handlers.as_ref().is_none_or(|handlers| handlers.contains(handler));
        let unknown = of_class.as_deref().into_iter().chain(annotation).find(|handler| !has(handler));
        unknown.map_or(Ok(()), |handler| {
            Err(format!("failed to get sandbox runtime: no runtime for {handler:?} is configured"))
        })
    }

    /// The sandbox is there, or why not.
    pub(crate) fn sandbox_created(&mut self, result: Result<(), String>, context: &mut Context<'_>) {
        if self.sandbox != Sandbox::Creating {
            return;
        }
        match result {
            Ok(()) => self.sandbox = Sandbox::Ready,
            Err(why) => self.sandbox_failed(&why, context),
        }
    }

    fn sandbox_failed(&mut self, why: &str, context: &mut Context<'_>) {
        let message = format!("Failed to create pod sandbox: {why}");
        context.event(&self.pod, None, EventType::Warning, reasons::FAILED_CREATE_POD_SANDBOX, message);
        self.sandbox = Sandbox::BackOff { until: context.now.mono + RETRY };
    }

    /// Asks for the tokens of the pod's volumes; says whether each is there or refused.
    pub(super) fn request_tokens(&mut self, context: &mut Context<'_>) -> bool {
        !context.shared.config.service_account_tokens || self.tokens.request(&self.pod, context)
    }

    /// Gives the runtime every volume whose contents are new. What fails is told once, until it fails otherwise.
    pub(super) fn refresh_volumes(&mut self, context: &mut Context<'_>) {
        let pod = Arc::clone(&self.pod);
        let now = context.now.mono;
        for volume in pod.spec.volumes.iter().flatten() {
            let downward = Downward { pod: &pod, config: &context.shared.config, address: self.address };
            let tokens = context.shared.config.service_account_tokens.then_some(&self.tokens);
            let wanted = contents(volume, &context.shared.objects, tokens, downward);
            let known = self.volumes.get(&volume.name);
            let again = known.and_then(|known| known.retry).is_some_and(|retry| retry <= now);
            if known.is_some_and(|known| known.wanted == wanted) && !again {
                continue;
            }
            let written = known.is_some_and(|known| known.written);
            match &wanted {
                Ok(source) => context.command(RuntimeCommand::WriteVolume {
                    pod: pod.uid.clone(),
                    volume: volume.name.clone(),
                    source: source.clone(),
                }),
                Err(why) => self.mount_failed(&volume.name, why, context),
            }
            self.volumes.insert(volume.name.clone(), VolumeState { wanted, written, retry: None });
        }
    }

    fn mount_failed(&self, volume: &str, why: &str, context: &mut Context<'_>) {
        let message = format!("MountVolume.SetUp failed for volume {volume:?} : {why}");
        context.event(&self.pod, None, EventType::Warning, reasons::FAILED_MOUNT, message);
    }

    /// A volume is there, or why not.
    pub(crate) fn volume_written(&mut self, name: &str, result: Result<(), String>, context: &mut Context<'_>) {
        let Some(volume) = self.volumes.get_mut(name) else { return };
        match result {
            Ok(()) => volume.written = true,
            Err(why) => {
                volume.retry = Some(context.now.mono + RETRY);
                self.mount_failed(name, &why, context);
            }
        }
    }

    /// Gives everything back once nothing runs any more.
    pub(super) fn clean_up(&mut self, context: &mut Context<'_>) {
        match self.sandbox {
            Sandbox::Removing | Sandbox::Removed => {}
            _ => {
                self.sandbox = Sandbox::Removing;
                self.volumes.clear();
                context.command(RuntimeCommand::RemoveSandbox(self.pod.uid.clone()));
            }
        }
        debug_assert!(!self.containers.iter().any(Container::is_alive));
    }

    /// The sandbox is gone.
    pub(crate) fn sandbox_removed(&mut self, context: &mut Context<'_>) {
        if self.sandbox != Sandbox::Removing {
            return;
        }
        self.sandbox = Sandbox::Removed;
        if let Some(address) = self.address.filter(|_| self.holds_address) {
            self.holds_address = false;
            context.shared.addresses.free(address);
            context.out.push(Output::RouteChanged { address, pod: None });
        }
    }
}
