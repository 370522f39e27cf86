//! The `Runtime` port: what a node asks of a container runtime, what it hears back, and the byte streams beside.
//!
//! The control half is plain, serializable data. A runtime has no policy and never sleeps to wait for something:
//! restart policy, back-off, probes, pull policy and phases are decided in the agent.
//! The streams half (attach, exec, port) carries bytes that never pass through the agent.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use coracle_api::Uid;
use coracle_base::Timestamp;
use serde::{Deserialize, Serialize};

mod duplex;
mod image;
mod key_value;
mod session;
mod spec;

pub use duplex::duplex;
pub use image::{DiskUse, ImageError, ImageInfo, Login, PullId, PullPolicy, StoredImage};
pub use key_value::{KeyValueAnswer, KeyValueAnswering, KeyValueCall, KeyValueError};
pub use session::{
    ByteReader, ByteWriter, Opening, Resize, Session, SessionExit, SessionKind, SessionSpec, TerminalSize,
};
pub use spec::{
    ContainerSpec, HostAlias, HostPort, Limits, Mount, Namespaces, PodMetadata, Profile, Propagation, Resolver,
    RuntimeKind, Sandbox, Security, Terminal, VolumeFile, VolumeSource,
};

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
    /// Look an image up in the node's store, or fetch it: [`RuntimeEvent::ImageReady`], and before it [`RuntimeEvent::ImagePulling`] when
    /// it has to be fetched. A pull makes progress or fails: a minute without a byte is a failure.
    PullImage {
        /// Which pull.
        pull: PullId,
        /// The image as the pod names it.
        image: String,
        /// Whether the node's own copy will do; fetch otherwise.
        policy: PullPolicy,
        /// As whom to ask the registry, in this order: the next when one is refused, then those of [`RuntimeHost::logins`], and at last
        /// as nobody.
        logins: Vec<Login>,
        /// The runtime that it is for; `None`: the one that it is made for, which the answer tells.
        runtime: Option<RuntimeKind>,
    },
    /// Tell what images there are and how much room they leave: [`RuntimeEvent::Images`].
    ListImages,
    /// Remove an image by its [`ImageInfo::id`], which no container has: [`RuntimeEvent::ImageRemoved`].
    RemoveImage(String),
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
    /// Measure what a pod has on the disk: [`RuntimeEvent::StorageMeasured`].
    MeasureStorage(Uid),
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
    /// The runtime that has it.
    pub runtime: RuntimeKind,
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

/// What a pod has on its node's disk, in bytes. Logs are not among it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageUse {
    /// Its empty volumes, by name.
    pub volumes: BTreeMap<String, u64>,
    /// What its containers have written beside, by their names.
    pub containers: BTreeMap<String, u64>,
}

/// What a runtime tells the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeEvent {
    /// What was there when the runtime started.
    Existing(Vec<ExistingContainer>),
    /// An image is not there, or may be old, and is being fetched.
    ImagePulling {
        /// Which pull.
        pull: PullId,
    },
    /// The images that could be fetched again if they were removed, and the room that is left.
    Images {
        /// Where they lie.
        disk: DiskUse,
        /// The images.
        images: Vec<StoredImage>,
    },
    /// An image was removed, or the sentence that says why not.
    ImageRemoved {
        /// As it was named.
        id: String,
        /// What came of it: the bytes that were given back.
        result: Result<u64, String>,
    },
    /// An image is there, or cannot be had.
    ImageReady {
        /// Which pull.
        pull: PullId,
        /// The image as the pod names it.
        image: String,
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
    /// The program of a running container says whether it is ready. What it said last holds beside its probes; before it says anything it
    /// counts as ready.
    ReadinessSaid {
        /// Which instance.
        id: ContainerId,
        /// Whether it is.
        ready: bool,
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
    /// A runtime that is not always there (another program) can be used, or not: then its sentence is shown as a condition of the
    /// node, and pods of other runtimes go on. Told when it changes and once at the start.
    Health {
        /// Which runtime.
        runtime: RuntimeKind,
        /// `docker://20.10.24`, or why it cannot be used.
        result: Result<String, String>,
    },
    /// What a pod has on the disk; nothing of what could not be read.
    StorageMeasured {
        /// The pod.
        pod: Uid,
        /// What it has.
        used: StorageUse,
    },
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
        /// Who connects, as far as it is known; port 0 is any. A loopback address stands for the inside of the pod.
        from: Option<SocketAddr>,
    },
    /// A way for UDP datagrams to a port of a pod's address and back: in both directions each has two bytes before it that say its
    /// length, the higher first.
    Datagrams {
        /// The pod.
        pod: Uid,
        /// The port.
        port: u16,
        /// Who sends, as above.
        from: Option<SocketAddr>,
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
    fn open(&self, spec: StreamSpec) -> Connecting;

    /// Opens a session in a container, as [`Session`] says.
    fn session(&self, spec: SessionSpec) -> Opening;

    /// The node ends in good order: ends and removes what would outlive it. Nothing is asked for after it.
    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
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

/// A name that is being looked up: its addresses, one at least.
pub type Resolving = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, OpenError>> + Send>>;

/// Users of a registry that are being looked for.
pub type FindingLogins = Pin<Box<dyn Future<Output = Vec<Login>> + Send>>;

/// What surrounds a runtime: the driver, which brings events to the agent, keeps logs and dials for guests.
pub trait RuntimeHost: fmt::Debug + Send + Sync {
    /// Something happened.
    fn event(&self, event: RuntimeEvent);

    /// A container wrote something: any number of bytes, not necessarily whole lines.
    fn log(&self, container: &ContainerId, stream: LogStream, bytes: &[u8]);

    /// The same where the runtime knows when it was written: bytes of one or more lines, the last of which may go on.
    fn log_at(&self, container: &ContainerId, stream: LogStream, at: Timestamp, bytes: &[u8]) {
        let _ = at;
        self.log(container, stream, bytes);
    }

    /// When the last thing that is kept of a container's output was written: who reads the output of a container that ran before this
    /// process goes on behind it.
    fn logged_until(&self, container: &ContainerId) -> Option<Timestamp> {
        let _ = container;
        None
    }

    /// A guest of a pod opens a TCP connection: the one Dialer decides where it goes.
    fn connect(&self, from: &Uid, to: Destination) -> Connecting;

    /// As whom the user who runs the node asks for an image; asked only when one is fetched, and used after those that the pod has.
    fn logins(&self, image: &str) -> FindingLogins {
        let _ = image;
        Box::pin(std::future::ready(Vec::new()))
    }

    /// A guest of a pod uses a bucket of the cluster's key-value store: one of those that the pod's ServiceAccount has. A read has every
    /// write that was answered before it, wherever that was.
    fn key_value(&self, from: &Uid, bucket: &str, call: KeyValueCall) -> KeyValueAnswering {
        let _ = (from, bucket, call);
        Box::pin(std::future::ready(Err(KeyValueError::Other("there is no key-value store here".into()))))
    }

    /// A guest of a pod opens a way for UDP datagrams from a port of its own, framed as for [`StreamSpec::Datagrams`].
    fn datagrams(&self, from: &Uid, port: u16, to: SocketAddr) -> Connecting {
        let _ = (from, port);
        Box::pin(std::future::ready(Err(OpenError(format!("dial udp {to}: no route to host")))))
    }

    /// A guest of a pod looks a name up.
    fn resolve(&self, from: &Uid, name: &str) -> Resolving;
}
