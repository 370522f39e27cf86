//! What a runtime is given to make sandboxes, volumes and containers of. Plain data; what it means is decided before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use coracle_api::Uid;
use serde::{Deserialize, Serialize};

use super::ContainerId;

/// What runs a pod: one of a node's runtimes, the same for all containers of the pod, because they share its sandbox.
///
/// The agent decides it. A RuntimeClass or an annotation says it, or the node has one runtime only; else the first image of the pod
/// does, and [`crate::runtime::ImageInfo::runtime`] is how an image says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RuntimeKind {
    /// WebAssembly modules and components.
    Wasm,
    /// Containers of processes: OCI images on Docker Engine.
    Container,
}

/// The pod that containers share: its names, its address, and what it shares with its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Which runtime makes it; commands about the pod go to that one from then on.
    pub runtime: RuntimeKind,
    /// The pod's uid.
    pub pod: Uid,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's hostname.
    pub hostname: String,
    /// The pod's address, chosen by the agent out of its node's range.
    pub address: IpAddr,
    /// The service account's name, for what is kept per account.
    pub service_account: String,
    /// What its processes share with the node and with each other.
    pub namespaces: Namespaces,
    /// What its resolver is told; names are found in the process where there is no resolver.
    pub resolver: Resolver,
    /// `hostAliases`: lines of its hosts file beside its own name.
    pub hosts: Vec<HostAlias>,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
    /// `securityContext.sysctls`.
    pub sysctls: BTreeMap<String, String>,
    /// `securityContext.fsGroup`: the group that owns its volumes.
    pub fs_group: Option<u32>,
}

impl Sandbox {
    /// A sandbox of a pod in its own namespaces, without a resolver, with its uid as all of its names.
    pub fn new(runtime: RuntimeKind, pod: Uid, address: IpAddr) -> Self {
        Self {
            runtime,
            namespace: "default".into(),
            name: pod.to_string(),
            hostname: pod.to_string(),
            pod,
            address,
            service_account: "default".into(),
            namespaces: Namespaces::default(),
            resolver: Resolver::default(),
            hosts: Vec::new(),
            host_ports: Vec::new(),
            sysctls: BTreeMap::new(),
            fs_group: None,
        }
    }
}

/// Which Linux namespaces a pod's containers share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// `hostNetwork`: the node's network; the pod's address is the node's.
    pub host_network: bool,
    /// `hostPID`.
    pub host_pid: bool,
    /// `hostIPC`.
    pub host_ipc: bool,
    /// `shareProcessNamespace`: the containers see each other's processes.
    pub shared_processes: bool,
}

/// The contents of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// `nameserver` lines, as they are written.
    pub nameservers: Vec<String>,
    /// The domains of the `search` line.
    pub searches: Vec<String>,
    /// The `options` line, as in `ndots:5`.
    pub options: Vec<String>,
}

/// One of `hostAliases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// The address.
    pub address: IpAddr,
    /// Its names.
    pub names: Vec<String>,
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The node's address that it is opened on; `None`: all of them.
    pub address: Option<IpAddr>,
    /// The port of the node.
    pub host_port: u16,
    /// The port of the pod.
    pub port: u16,
    /// Whether it is UDP; TCP otherwise.
    pub udp: bool,
}

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFile {
    /// The path in the volume, with `/` between its parts; never absolute, never with `..`.
    pub path: String,
    /// The contents.
    pub contents: Bytes,
    /// The permission bits.
    pub mode: u32,
}

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A directory of the pod's own that starts empty and is removed with the pod.
    EmptyDir {
        /// The most it may hold, in bytes.
        size_limit: Option<u64>,
        /// `medium: Memory`: it is kept in memory, where the runtime can.
        in_memory: bool,
    },
    /// A file or a folder of the node. Only for runtimes with [`crate::RuntimeFeature::HostNamespaces`].
    HostPath {
        /// The path on the node.
        path: String,
        /// `hostPath.type`: what has to be there or is made; empty: nothing is looked at.
        expects: String,
    },
    /// Exactly these files, replaced as a whole whenever the command is given again.
    Files(Vec<VolumeFile>),
}

/// A volume in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The volume's name in the pod.
    pub volume: String,
    /// Where the container sees it.
    pub path: String,
    /// A path inside the volume instead of its root.
    pub sub_path: Option<String>,
    /// Whether writes fail.
    pub read_only: bool,
    /// Whether mounts of the node made later show in the container, and its own on the node.
    pub propagation: Propagation,
}

/// `mountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Neither way.
    #[default]
    None,
    /// The node's mounts show in the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// With which rights a container's processes run. A guest of WebAssembly has none of them, so nothing of this concerns it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// `runAsUser`; `None`: the image's.
    pub user: Option<u32>,
    /// `runAsGroup`; `None`: the image's, or root's.
    pub group: Option<u32>,
    /// `supplementalGroups`, and `fsGroup` behind them.
    pub groups: Vec<u32>,
    /// `privileged`.
    pub privileged: bool,
    /// `capabilities.add`, as they are written in the pod.
    pub added_capabilities: Vec<String>,
    /// `capabilities.drop`.
    pub dropped_capabilities: Vec<String>,
    /// `allowPrivilegeEscalation: false`.
    pub no_new_privileges: bool,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
    /// `seccompProfile`.
    pub seccomp: Profile,
    /// `appArmorProfile`.
    pub app_armor: Profile,
    /// `seLinuxOptions`, as in `level:s0:c1`.
    pub se_linux: Vec<String>,
    /// `procMount: Unmasked`.
    pub unmasked: bool,
}

/// A profile of seccomp or AppArmor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// The runtime's own.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One of the node's, by its name.
    Localhost(String),
}

/// A container's standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// `stdin`: it stays open for who attaches.
    pub stdin: bool,
    /// `stdinOnce`: it is closed when the first who attached leaves.
    pub stdin_once: bool,
    /// `tty`: it is a terminal, and the output with it.
    pub tty: bool,
}

/// What a container may use. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory; a container that grows beyond ends as `OOMKilled`.
    pub memory: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// `requests.cpu` in thousandths of a core: the weight among those that want more than there is.
    pub cpu_weight: u64,
    /// Instructions for the container's whole life (`limits."coracle.dev/fuel"`).
    pub fuel: Option<u64>,
    /// Instructions per second (`limits."coracle.dev/fuel-per-second"`).
    pub fuel_per_second: Option<u64>,
    /// How willingly the kernel ends it when the machine is out of memory, from -1000 to 1000, by the pod's QoS class.
    pub oom_score_adjust: i16,
    /// The most processes and threads.
    pub processes: Option<u32>,
}

/// What a pod's programs may know of it beside its names and address, where a runtime has a way to tell them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodMetadata {
    /// The node's name.
    pub node: String,
    /// Its labels, as they are when the container is created.
    pub labels: BTreeMap<String, String>,
    /// Its annotations, as they are when the container is created.
    pub annotations: BTreeMap<String, String>,
}

/// Everything a runtime needs to create a container; references are resolved already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Which instance.
    pub id: ContainerId,
    /// The image as the pod names it.
    pub image: String,
    /// `command` (empty: the image's own entry point).
    pub command: Vec<String>,
    /// `args`.
    pub args: Vec<String>,
    /// The environment, in order, references expanded.
    pub env: Vec<(String, String)>,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// The volumes.
    pub mounts: Vec<Mount>,
    /// The TCP ports that the container says it listens on; a `wasi:http` service is served on each (none: 8080).
    pub ports: Vec<u16>,
    /// Its limits.
    pub limits: Limits,
    /// `terminationMessagePath`.
    pub termination_message_path: String,
    /// Its rights.
    pub security: Security,
    /// Its standard input.
    pub terminal: Terminal,
    /// `lifecycle.stopSignal`; `None`: the image's, or SIGTERM.
    pub stop_signal: Option<String>,
    /// Its pod.
    #[serde(default)]
    pub pod: PodMetadata,
}

impl ContainerSpec {
    /// A container of this image that runs its entry point, with nothing else said.
    pub fn new(id: ContainerId, image: impl Into<String>) -> Self {
        Self {
            id,
            image: image.into(),
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            ports: Vec::new(),
            limits: Limits::default(),
            termination_message_path: "/dev/termination-log".into(),
            security: Security::default(),
            terminal: Terminal::default(),
            stop_signal: None,
            pod: PodMetadata::default(),
        }
    }
}
