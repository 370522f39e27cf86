//! What a node is: its name, size, address range and versions. Given once, when the agent is made.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::Value;

use crate::RuntimeFeature;
use crate::runtime::{Resolver, RuntimeKind};

/// How much a node has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Pods.
    pub pods: u32,
}

impl Default for Capacity {
    /// One core, 1 GiB, and Kubernetes' 110 pods.
    fn default() -> Self {
        Self { cpu_millis: 1000, memory: 1 << 30, pods: 110 }
    }
}

/// One of a node's runtimes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeInfo {
    /// What container ids begin with: `wasmtime` of `wasmtime://<id>`.
    pub scheme: String,
    /// What it can give to containers beyond running them; [`RuntimeFeature`] tells what is refused without.
    pub features: BTreeSet<RuntimeFeature>,
    /// The handlers of RuntimeClasses whose pods it runs; `None`: any.
    pub handlers: Option<BTreeSet<String>>,
}

impl RuntimeInfo {
    /// wasmtime, whose containers are given an input and nothing else.
    pub fn wasm() -> Self {
        let handlers = Some(["wasm", "wasmtime"].map(str::to_owned).into());
        Self { scheme: "wasmtime".into(), features: BTreeSet::from([RuntimeFeature::Input]), handlers }
    }

    /// Docker Engine, which has those of Linux.
    pub fn docker() -> Self {
        let handlers = Some(["docker", "runc"].map(str::to_owned).into());
        Self { scheme: "docker".into(), features: RuntimeFeature::of_linux(), handlers }
    }

    /// One that only pretends to run: it has everything, and takes every pod.
    pub fn fake() -> Self {
        Self { scheme: "fake".into(), features: RuntimeFeature::all(), handlers: None }
    }
}

/// A node as its agent registers and runs it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The Node's name, which is also its hostname.
    pub name: String,
    /// Labels beside `kubernetes.io/hostname`, `kubernetes.io/arch` and `kubernetes.io/os`.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Taints to register with, as in `spec.taints`.
    pub taints: Vec<Value>,
    /// Capacity; all of it is allocatable.
    pub capacity: Capacity,
    /// Whole units of other resources, by name: `ephemeral-storage`, devices.
    pub extended: BTreeMap<String, u64>,
    /// The pods' range: network and prefix length (8 to 30). Wasm pods have its upper half, containers the lower one.
    pub pod_range: (Ipv4Addr, u8),
    /// The node's own address: `InternalIP`, and `hostIP` of its pods.
    pub address: IpAddr,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `linux`, `darwin`, `windows`.
    pub operating_system: String,
    /// `nodeInfo.osImage`.
    pub os_image: String,
    /// `nodeInfo.kernelVersion`.
    pub kernel_version: String,
    /// `nodeInfo.kubeletVersion`, as in `v1.36.0+coracle.1`.
    pub kubelet_version: String,
    /// `nodeInfo.containerRuntimeVersion`, as in `wasmtime://48.0.8`.
    pub container_runtime_version: String,
    /// `nodeInfo.machineID` and `systemUUID`.
    pub machine_id: String,
    /// `nodeInfo.bootID`: another one each time the agent starts.
    pub boot_id: String,
    /// Its runtimes. A pod that asks for none runs on the only one, or on the one that its first image is for.
    pub runtimes: BTreeMap<RuntimeKind, RuntimeInfo>,
    /// What `dnsPolicy: Default` gives, and the other policies forward to: the node's own resolver.
    pub resolver: Resolver,
    /// The addresses of the cluster's DNS as containers reach it; empty: there is none, and pods get the node's resolver.
    pub cluster_dns: Vec<IpAddr>,
    /// The most processes of a container (`podPidsLimit`); `None`: as many as the machine lets.
    pub processes_max: Option<u32>,
    /// The domain of the cluster's names, as in `web.default.svc.cluster.local`.
    pub cluster_domain: String,
    /// Whether pods get the ServiceAccount tokens of their volumes; not where no container reads files.
    pub service_account_tokens: bool,
    /// The longest wait of a crash loop (`crashLoopBackOff.maxContainerRestartPeriod`), 1 s to 300 s.
    pub crash_loop_max: Duration,
}

impl NodeConfig {
    /// A node of this name with one core, 1 GiB, the range 10.42.0.0/24 and the address 127.0.0.1.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            taints: Vec::new(),
            capacity: Capacity::default(),
            extended: BTreeMap::new(),
            pod_range: (Ipv4Addr::new(10, 42, 0, 0), 24),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            architecture: "amd64".into(),
            operating_system: "linux".into(),
            os_image: "Coracle".into(),
            kernel_version: "unknown".into(),
            kubelet_version: concat!("v1.36.0+coracle.", env!("CARGO_PKG_VERSION")).into(),
            container_runtime_version: "wasmtime://48".into(),
            machine_id: String::new(),
            boot_id: String::new(),
            runtimes: BTreeMap::from([(RuntimeKind::Wasm, RuntimeInfo::wasm())]),
            resolver: Resolver::default(),
            cluster_dns: Vec::new(),
            processes_max: None,
            cluster_domain: "cluster.local".into(),
            service_account_tokens: false,
            crash_loop_max: Duration::from_mins(5),
        }
    }

    /// A node whose only runtime pretends to run every pod.
    #[must_use]
    pub fn fake(mut self) -> Self {
        self.container_runtime_version = "fake://1".into();
        self.runtimes = BTreeMap::from([(RuntimeKind::Wasm, RuntimeInfo::fake())]);
        self
    }

    /// What the ids of containers start with that a runtime runs; of the first one where it is not known yet which.
    pub(crate) fn runtime_scheme(&self, runtime: Option<RuntimeKind>) -> &str {
        let info = runtime.and_then(|runtime| self.runtimes.get(&runtime)).or_else(|| self.runtimes.values().next());
        info.map_or("", |info| info.scheme.as_str())
    }

    /// The only runtime, where there is one only.
    pub(crate) fn only_runtime(&self) -> Option<RuntimeKind> {
        self.runtimes.keys().next().copied().filter(|_| self.runtimes.len() == 1)
    }
}
