//! What a pod needs around its containers: an address, a sandbox, volumes; and giving them back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_base::Instant;
use serde_json::Value;

use super::{Container, Context, EventType, PodWorker, Step, reasons};
use crate::downward::Downward;
use crate::pod_spec::PodView;
use crate::runtime::{HostPort, Namespaces, RuntimeCommand, RuntimeKind, Sandbox as SandboxSpec, VolumeSource};
use crate::volume::contents;
use crate::{NodeConfig, Output, RuntimeFeature, RuntimeInfo, resolver};

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
        if self.sandbox_is_due(context) {
            match self.decide_runtime(context) {
                Ok(Some(runtime)) => self.create_sandbox(runtime, context),
                Ok(None) => return self.ask_image(context),
                Err(why) => self.sandbox_failed(&why, context),
            }
        }
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

    fn sandbox_is_due(&self, context: &Context<'_>) -> bool {
        match self.sandbox {
            Sandbox::None => true,
            Sandbox::BackOff { until } => until <= context.now.mono,
            _ => false,
        }
    }

    fn create_sandbox(&mut self, runtime: RuntimeKind, context: &mut Context<'_>) {
        let config = &context.shared.config;
        let hostname = match self.pod.hostname(&config.cluster_domain) {
            Ok(hostname) => hostname,
            Err(why) => return self.sandbox_failed(&why, context),
        };
        let shares_host = config.runtimes.get(&runtime).is_some_and(|info| has_host(&info.features));
        let namespaces = if shares_host { namespaces(&self.pod) } else { Namespaces::default() };
        if namespaces.host_network {
            self.address = Some(config.address);
        } else if !self.holds_address {
            let Some(address) = context.shared.addresses.take(runtime) else {
                return self.sandbox_failed("the node has no free pod address", context);
            };
            self.take_address(address, context);
        }
        let Some(address) = self.address else { return };
        let security = &self.pod.value["spec"]["securityContext"];
        let sysctl = |item: &Value| Some((item["name"].as_str()?.to_owned(), item["value"].as_str()?.to_owned()));
        self.sandbox = Sandbox::Creating;
        let sandbox = SandboxSpec {
            pod: self.pod.uid.clone(),
            runtime,
            namespace: self.pod.namespace().into(),
            name: self.pod.name().into(),
            hostname,
            address,
            service_account: self.pod.service_account().into(),
            namespaces,
            resolver: resolver::of(&self.pod, &context.shared.config),
            hosts: resolver::host_aliases(&self.pod),
            host_ports: host_ports(&self.pod),
            sysctls: security["sysctls"].as_array().into_iter().flatten().filter_map(sysctl).collect(),
            fs_group: security["fsGroup"].as_u64().and_then(|group| u32::try_from(group).ok()),
        };
        context.command(RuntimeCommand::CreateSandbox(sandbox));
    }

    /// Which runtime runs the pod: the one that its RuntimeClass or annotation asks for, the node's only one, or the one that was found
    /// out before; `None` where its first image has to say it.
    fn decide_runtime(&mut self, context: &Context<'_>) -> Result<Option<RuntimeKind>, String> {
        let asked = self.asked_runtime(context)?;
        if let Some(runtime) = asked.or(self.runtime).or_else(|| context.shared.config.only_runtime()) {
            self.set_runtime(runtime);
        }
        Ok(self.runtime)
    }

    /// It is known what runs the pod.
    pub(super) fn set_runtime(&mut self, runtime: RuntimeKind) {
        self.runtime = Some(runtime);
        for container in &mut self.containers {
            container.runtime = Some(runtime);
        }
    }

    /// Has the first image, which says what runs the pod. Where none can say it any more the node's first runtime does.
    fn ask_image(&mut self, context: &mut Context<'_>) {
        let pod = Arc::clone(&self.pod);
        match self.containers.iter_mut().find(|container| container.may_decide()) {
            Some(container) => container.advance_pull(&pod, context),
            None => self.runtime = context.shared.config.runtimes.keys().next().copied(),
        }
    }

    /// The runtime that the pod asks for by its RuntimeClass and its annotations, if it does.
    fn asked_runtime(&self, context: &Context<'_>) -> Result<Option<RuntimeKind>, String> {
        let (class, annotation) = self.pod.runtime();
        let of_class = match class {
            Some(class) => {
                let handler = context.shared.objects.runtime_handler(class);
                Some(handler.ok_or_else(|| format!("RuntimeClass {class:?} not found"))?)
            }
            None => None,
        };
        let mut asked = None;
        for handler in of_class.as_deref().into_iter().chain(annotation) {
            let takes = |info: &RuntimeInfo| info.handlers.as_ref().is_none_or(|handlers| handlers.contains(handler));
            let found =
                context.shared.config.runtimes.iter().find(|(_, info)| takes(info)).map(|(runtime, _)| *runtime);
            let unknown = || format!("failed to get sandbox runtime: no runtime for {handler:?} is configured");
            let found = found.ok_or_else(unknown)?;
            if asked.replace(found).is_some_and(|before| before != found) {
                return Err(format!(
                    "failed to get sandbox runtime: its class and its annotation ({handler:?}) disagree"
                ));
            }
        }
        Ok(asked)
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
            let runtime = self.runtime.and_then(|runtime| context.shared.config.runtimes.get(&runtime));
            let host_paths = runtime.is_some_and(|info| has_host(&info.features));
            let wanted = contents(volume, &context.shared.objects, tokens, host_paths, downward);
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

/// Whether a runtime can give pods what is the node's.
fn has_host(features: &BTreeSet<RuntimeFeature>) -> bool {
    features.contains(&RuntimeFeature::HostNamespaces)
}

/// What ran a pod's containers, by the ids that its status has of them.
pub(super) fn runtime_of(status: &Value, config: &NodeConfig) -> Option<RuntimeKind> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let mut ids =
        lists.into_iter().flat_map(|list| status[list].as_array().into_iter().flatten()).filter_map(|found| {
            let ended = found["state"]["terminated"]["containerID"].as_str();
            found["containerID"].as_str().filter(|id| !id.is_empty()).or(ended)
        });
    let scheme = ids.find_map(|id| id.split_once("://"))?.0;
    config.runtimes.iter().find(|(_, info)| info.scheme == scheme).map(|(runtime, _)| *runtime)
}

fn namespaces(pod: &PodView) -> Namespaces {
    let asks = |field: &str| pod.value["spec"][field] == true;
    Namespaces {
        host_network: asks("hostNetwork"),
        host_pid: asks("hostPID"),
        host_ipc: asks("hostIPC"),
        shared_processes: asks("shareProcessNamespace"),
    }
}

/// The ports of the node that the pod's containers ask for.
fn host_ports(pod: &PodView) -> Vec<HostPort> {
    let ports = pod.containers().flat_map(|(_, container)| container.ports.iter().flatten());
    let host_port = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        Some(HostPort {
            address: port
                .host_ip
                .as_deref()
                .and_then(|address| address.parse().ok())
                .filter(|a: &IpAddr| !a.is_unspecified()),
            host_port: u16::try_from(port.host_port?).ok().filter(|port| *port > 0)?,
            port: u16::try_from(port.container_port).ok()?,
            udp: port.protocol.as_deref() == Some("UDP"),
        })
    };
    ports.filter_map(host_port).collect()
}
