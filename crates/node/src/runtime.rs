//! The `Runtime` port: what a node asks of a container runtime, what it hears back, and the byte streams beside.
//!
//! The control half is plain, serializable data. A runtime has no policy and never sleeps to wait for something:
//! restart policy, back-off, probes, pull policy and phases are decided in the agent.
//! The streams half (attach, exec, port) carries bytes that never pass through the agent.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;

use bytes::Bytes;
use coracle_api::Uid;
use coracle_base::Timestamp;
use serde::{Deserialize, Serialize};

mod duplex;

pub use duplex::duplex;

/// Which instance of which container of which pod. A restarted container is another instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    /// The pod's uid.
    pub pod: Uid,
    /// The container's name in the pod (init containers included: names are unique in a pod).
    pub container: String,
    /// The instance: 0 for the first, one more at each creation.
    pub instance: u32,
}

/// `<pod uid>/<container>/<instance>`.
impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.pod, self.container, self.instance)
    }
}

/// The pod that containers share: its names and its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
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
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeAction {
    /// An HTTP GET; success is a status from 200 to 399.
    Http {
        /// The host to connect to instead of the pod's address.
        host: Option<String>,
        /// The port.
        port: u16,
        /// The path with its query.
        path: String,
        /// Whether to speak TLS (certificates are not checked).
        https: bool,
        /// Headers to send.
        headers: Vec<(String, String)>,
    },
    /// A TCP connection that opens.
    Tcp {
        /// The host to connect to instead of the pod's address.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// A gRPC health check.
    Grpc {
        /// The port.
        port: u16,
        /// The service name.
        service: String,
    },
    /// A command in the container; success is exit code 0.
    Exec {
        /// The command.
        command: Vec<String>,
    },
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeResult {
    /// It succeeded.
    Success,
    /// It failed; the text is what follows `Readiness probe failed: ` in the Event.
    Failure(String),
    /// It could not be made at all; it counts as neither.
    Error(String),
}

/// Which probe an answer belongs to; chosen by the agent, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProbeId(pub u64);

/// What the agent asks of a runtime. Every command is answered by the event that its docs name, at some time.
/// Commands about one pod are carried out in order; a command about something that is not there is answered all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeCommand {
    /// Tell what is there from before: [`RuntimeEvent::Existing`].
    ListExisting,
    /// Look an image up in the node's store, or fetch it: [`RuntimeEvent::ImageReady`].
    PullImage {
        /// The image as the pod names it.
        image: String,
        /// Whether the node's own copy will do; fetch otherwise.
        policy: PullPolicy,
    },
    /// Create the pod's sandbox: [`RuntimeEvent::SandboxCreated`].
    CreateSandbox(Sandbox),
    /// Remove a sandbox, its containers and its volumes: [`RuntimeEvent::SandboxRemoved`].
    RemoveSandbox(Uid),
    /// Make or replace a volume: [`RuntimeEvent::VolumeWritten`].
    WriteVolume {
        /// The pod.
        pod: Uid,
        /// The volume's name.
        volume: String,
        /// What is in it.
        source: VolumeSource,
    },
    /// Create a container: [`RuntimeEvent::ContainerCreated`].
    CreateContainer(Box<ContainerSpec>),
    /// Start a created container: [`RuntimeEvent::ContainerStarted`], and [`RuntimeEvent::ContainerExited`] when it ends.
    StartContainer(ContainerId),
    /// Ask a container to end (SIGTERM's counterpart); it may take its time: [`RuntimeEvent::ContainerExited`] when it ends.
    StopContainer(ContainerId),
    /// End a container now: [`RuntimeEvent::ContainerExited`].
    KillContainer(ContainerId),
    /// Forget an ended container: [`RuntimeEvent::ContainerRemoved`].
    RemoveContainer(ContainerId),
    /// Probe a container: [`RuntimeEvent::Probed`].
    Probe {
        /// Which probe.
        id: ProbeId,
        /// The container.
        container: ContainerId,
        /// The pod's address.
        address: IpAddr,
        /// What to do.
        action: ProbeAction,
        /// How long it may take.
        timeout_millis: u64,
    },
    /// Measure use: [`RuntimeEvent::Stats`].
    Stats,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Ask the registry whether there is a newer one.
    Always,
    /// Fetch only what is not there.
    IfNotPresent,
    /// Never fetch.
    Never,
}

/// An image in the node's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The name and digest, as `status.containerStatuses[].imageID` shows it.
    pub id: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was there already.
    pub present: bool,
    /// How long fetching took, in milliseconds; zero when it was there.
    pub pull_millis: u64,
}

/// Why an image cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageError {
    /// The name is no image reference: `InvalidImageName`.
    InvalidName(String),
    /// It is not there and may not be fetched: `ErrImageNeverPull`.
    NeverPull,
    /// It could not be fetched: `ErrImagePull`, then `ImagePullBackOff`.
    Pull(String),
}

/// Why a container could not be created or started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerError {
    /// The container cannot be made as its spec says: `CreateContainerError`.
    Create(String),
    /// It was made and cannot be run: `RunContainerError`.
    Run(String),
}

impl ContainerError {
    /// The sentence.
    pub fn message(&self) -> &str {
        match self {
            Self::Create(message) | Self::Run(message) => message,
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 137 when it was killed.
    pub code: i32,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// Why, where the runtime knows better than the code: `OOMKilled`, `FuelExhausted`.
    pub reason: Option<String>,
    /// What it left at its termination message path, or what a trap said; at most 4,096 bytes.
    pub message: Option<String>,
    /// The end of what it printed, at most [`LOG_TAIL_BYTES`] and [`LOG_TAIL_LINES`]. A runtime leaves it empty: who keeps the
    /// logs fills it in, and the agent uses it where `terminationMessagePolicy` asks for it.
    #[serde(default)]
    pub log_tail: Option<String>,
}

/// How much of a log a termination message holds at most, as in Kubernetes.
pub const LOG_TAIL_BYTES: usize = 2048;
/// How many lines of it.
pub const LOG_TAIL_LINES: usize = 80;

/// A container that a runtime found from before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExistingContainer {
    /// Which instance.
    pub id: ContainerId,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// How it ended; `None`: it runs.
    pub exit: Option<Exit>,
}

/// The use of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since it started, in nanoseconds.
    pub cpu_nanos: u64,
    /// Bytes of memory now.
    pub memory_bytes: u64,
    /// Instructions since it started, where they are counted.
    pub fuel: Option<u64>,
}

/// What a runtime tells the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeEvent {
    /// What was there when the runtime started.
    Existing(Vec<ExistingContainer>),
    /// An image is there, or cannot be had.
    ImageReady {
        /// The image as the pod names it.
        image: String,
        /// The policy that was asked for.
        policy: PullPolicy,
        /// What came of it.
        result: Result<ImageInfo, ImageError>,
    },
    /// A sandbox is there, or the sentence that says why not.
    SandboxCreated {
        /// The pod.
        pod: Uid,
        /// What came of it.
        result: Result<(), String>,
    },
    /// A sandbox is gone, with all that was in it.
    SandboxRemoved {
        /// The pod.
        pod: Uid,
    },
    /// A volume is there, or the sentence that says why not.
    VolumeWritten {
        /// The pod.
        pod: Uid,
        /// The volume's name.
        volume: String,
        /// What came of it.
        result: Result<(), String>,
    },
    /// A container was created, or why not.
    ContainerCreated {
        /// Which instance.
        id: ContainerId,
        /// What came of it.
        result: Result<(), ContainerError>,
    },
    /// A container runs, or why not.
    ContainerStarted {
        /// Which instance.
        id: ContainerId,
        /// What came of it.
        result: Result<(), ContainerError>,
    },
    /// A container ended.
    ContainerExited {
        /// Which instance.
        id: ContainerId,
        /// How.
        exit: Exit,
    },
    /// A container is forgotten.
    ContainerRemoved {
        /// Which instance.
        id: ContainerId,
    },
    /// A probe was made.
    Probed {
        /// Which probe.
        id: ProbeId,
        /// What came of it.
        result: ProbeResult,
    },
    /// What the running containers use.
    Stats(BTreeMap<String, Usage>),
}

/// A two-way stream of bytes on bounded queues, of no particular async runtime.
pub type ByteStream = Pin<Box<dyn Duplex>>;

/// Reads and writes.
pub trait Duplex: futures_io::AsyncRead + futures_io::AsyncWrite + Send {}

impl<T: futures_io::AsyncRead + futures_io::AsyncWrite + Send> Duplex for T {}

/// What to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamSpec {
    /// A connection to a port of a pod's address.
    Port {
        /// The pod.
        pod: Uid,
        /// The port.
        port: u16,
    },
}

/// Why a stream cannot be opened; the sentence is what a client is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

/// What a stream to a service fails with when the service ends before it begins with what was sent since the last byte that it
/// answered: a request that it has not seen, or none at all. Who holds what was sent may send it to another endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service ends, and has not begun with what was sent")]
pub struct Drained;

impl Drained {
    /// Whether it is why a stream failed.
    pub fn is_cause_of(error: &std::io::Error) -> bool {
        error.get_ref().and_then(|cause| cause.downcast_ref::<Self>()).is_some()
    }
}

impl From<Drained> for std::io::Error {
    fn from(drained: Drained) -> Self {
        Self::new(std::io::ErrorKind::ConnectionAborted, drained)
    }
}

/// A container runtime. Commands are taken without waiting; what comes of them is told to the [`RuntimeHost`].
pub trait Runtime: fmt::Debug + Send + Sync {
    /// Takes a command.
    fn command(&self, command: RuntimeCommand);

    /// Opens a stream. Its reads and writes may fail with [`Drained`].
    fn open(&self, spec: StreamSpec) -> Result<ByteStream, OpenError>;
}

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where a guest's connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// A name or an address, as the guest gave it.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A connection that is being opened.
pub type Connecting = Pin<Box<dyn Future<Output = Result<ByteStream, OpenError>> + Send>>;

/// What surrounds a runtime: the driver, which brings events to the agent, keeps logs and dials for guests.
pub trait RuntimeHost: fmt::Debug + Send + Sync {
    /// Something happened.
    fn event(&self, event: RuntimeEvent);

    /// A container wrote something: any number of bytes, not necessarily whole lines.
    fn log(&self, container: &ContainerId, stream: LogStream, bytes: &[u8]);

    /// A guest of a pod opens a TCP connection: the one Dialer decides where it goes.
    fn connect(&self, from: &Uid, to: Destination) -> Connecting;

    /// A guest of a pod looks a name up.
    fn resolve(&self, from: &Uid, name: &str) -> Result<Vec<IpAddr>, OpenError>;
}
