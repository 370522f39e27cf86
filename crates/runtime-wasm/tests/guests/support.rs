//! A host that remembers what it is told, and short ways to run guests on it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::Duration;

use coracle_api::Uid;
use coracle_node::runtime::{
    ByteStream, Connecting, ContainerId, ContainerSpec, Destination, Exit, LogStream, OpenError, ProbeAction, ProbeId,
    ProbeResult, PullId, PullPolicy, Resolving, Runtime, RuntimeCommand, RuntimeEvent, RuntimeHost, RuntimeKind,
    Sandbox, StreamSpec,
};
use coracle_runtime_wasm::{WasmOptions, WasmRuntime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

/// Longer than anything here takes, on any machine: a test that gets here has failed.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug, Default)]
pub(crate) struct Host {
    heard: Mutex<Heard>,
    changed: Condvar,
    runtime: OnceLock<Weak<WasmRuntime>>,
    /// Who connects to [`GATE`] waits here, and is refused.
    gate: Arc<Gate>,
}

/// A port that answers only when the test says so.
pub(crate) const GATE: u16 = 5000;

#[derive(Debug)]
struct Gate {
    reached: Semaphore,
    opened: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self { reached: Semaphore::new(0), opened: Semaphore::new(0) }
    }
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<RuntimeEvent>,
    logs: BTreeMap<(ContainerId, LogStreamName), Vec<u8>>,
}

type LogStreamName = &'static str;

impl RuntimeHost for Host {
    fn event(&self, event: RuntimeEvent) {
        self.heard.lock().unwrap().events.push(event);
        self.changed.notify_all();
    }

    fn log(&self, container: &ContainerId, stream: LogStream, bytes: &[u8]) {
        let stream = if stream == LogStream::Stdout { "stdout" } else { "stderr" };
        let mut heard = self.heard.lock().unwrap();
        heard.logs.entry((container.clone(), stream)).or_default().extend_from_slice(bytes);
        self.changed.notify_all();
    }

    /// A world in which every name is the pod itself, but for the other pod's address.
    fn connect(&self, from: &Uid, to: Destination) -> Connecting {
        let runtime = self.runtime.get().and_then(Weak::upgrade);
        let pod = to.host.parse().ok().and_then(pod_at).unwrap_or_else(|| from.clone());
        let spec = StreamSpec::Port { pod, port: to.port, from: Some((address_of(from), 0).into()) };
        let gate = Arc::clone(&self.gate);
        if to.port == GATE {
            return Box::pin(async move {
                gate.reached.add_permits(1);
                let _ = gate.opened.acquire().await;
                Err(OpenError("connection refused".to_owned()))
            });
        }
        Box::pin(async move { runtime.ok_or_else(|| OpenError("no runtime".to_owned()))?.open(spec).await })
    }

    fn datagrams(&self, from: &Uid, port: u16, to: SocketAddr) -> Connecting {
        let runtime = self.runtime.get().and_then(Weak::upgrade).unwrap();
        let from = Some(SocketAddr::new(address_of(from), port));
        match pod_at(to.ip()) {
            Some(pod) => runtime.open(StreamSpec::Datagrams { pod, port: to.port(), from }),
            None => Box::pin(std::future::ready(Err(OpenError("no route to host".to_owned())))),
        }
    }

    fn resolve(&self, _from: &Uid, name: &str) -> Resolving {
        let found = match name {
            "other.test" => Ok(vec![OTHER_ADDRESS]),
            "localhost" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
            _ => Err(OpenError(format!("lookup {name}: no such host"))),
        };
        Box::pin(std::future::ready(found))
    }
}

impl Host {
    /// Waits for the first event that answers the question.
    pub(crate) fn wait<T>(&self, what: &str, mut answer: impl FnMut(&RuntimeEvent) -> Option<T>) -> T {
        let heard = self.heard.lock().unwrap();
        let mut found = None;
        let (heard, timeout) = self
            .changed
            .wait_timeout_while(heard, PATIENCE, |heard| {
                found = heard.events.iter().find_map(&mut answer);
                found.is_none()
            })
            .unwrap();
        assert!(!timeout.timed_out(), "no {what}; heard {:?}", heard.events);
        found.unwrap()
    }
}

impl Host {
    /// Waits until what was heard is like that.
    fn wait_until(&self, what: &str, holds: impl Fn(&Heard) -> bool) {
        let heard = self.heard.lock().unwrap();
        let (heard, timeout) = self.changed.wait_timeout_while(heard, PATIENCE, |heard| !holds(heard)).unwrap();
        assert!(!timeout.timed_out(), "no {what}; heard {heard:?}");
    }

    /// Everything that was told of readiness.
    pub(crate) fn said_ready(&self) -> Vec<bool> {
        let heard = self.heard.lock().unwrap();
        let said = heard.events.iter().filter_map(|event| match event {
            RuntimeEvent::ReadinessSaid { ready, .. } => Some(*ready),
            _ => None,
        });
        said.collect()
    }

    /// The CPU time of the one container, from the last `Stats`, which is taken out.
    pub(crate) fn take_cpu_nanos(&self) -> u64 {
        let mut heard = self.heard.lock().unwrap();
        let cpu = heard.events.iter().rev().find_map(|event| match event {
            RuntimeEvent::Stats(usage) => usage.values().next().map(|usage| usage.cpu_nanos),
            _ => None,
        });
        heard.events.retain(|event| !matches!(event, RuntimeEvent::Stats(_)));
        cpu.unwrap_or_default()
    }
}

impl Host {
    /// Waits until a guest stands before the gate.
    pub(crate) async fn gate_reached(&self) {
        let _ = self.gate.reached.acquire().await;
    }

    pub(crate) fn open_gate(&self) {
        self.gate.opened.add_permits(1);
    }
}

/// A runtime with one pod.
pub(crate) struct World {
    pub(crate) host: Arc<Host>,
    pub(crate) runtime: Arc<WasmRuntime>,
    probes: std::cell::Cell<u64>,
    pulls: std::cell::Cell<u64>,
}

/// A second pod, which is there when a test asks for it.
pub(crate) const OTHER_POD: &str = "7d1f5f2e-0000-4000-8000-000000000002";
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 42, 0, 5));
const OTHER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 42, 0, 6));

fn pod_at(address: IpAddr) -> Option<Uid> {
    [(ADDRESS, POD), (OTHER_ADDRESS, OTHER_POD)].into_iter().find(|(at, _)| *at == address).map(|(_, pod)| pod.into())
}

fn address_of(pod: &Uid) -> IpAddr {
    if *pod == OTHER_POD.into() { OTHER_ADDRESS } else { ADDRESS }
}

pub(crate) const POD: &str = "7d1f5f2e-0000-4000-8000-000000000001";

impl World {
    /// A stream to a port of the pod.
    pub(crate) fn open(&self, port: u16) -> Result<ByteStream, OpenError> {
        block_on(self.runtime.open(StreamSpec::Port { pod: POD.into(), port, from: None }))
    }

    /// A stream to a port of the other pod.
    pub(crate) fn open_other(&self, port: u16) -> ByteStream {
        block_on(self.runtime.open(StreamSpec::Port { pod: OTHER_POD.into(), port, from: None })).unwrap()
    }

    pub(crate) fn add_other_pod(&self) {
        let sandbox = Sandbox {
            hostname: "other-0".to_owned(),
            ..Sandbox::new(RuntimeKind::Wasm, OTHER_POD.into(), OTHER_ADDRESS)
        };
        self.send(RuntimeCommand::CreateSandbox(sandbox));
    }

    /// Waits until a container has said something.
    pub(crate) fn wait_for_output(&self, id: &ContainerId) {
        self.wait_for_log(id, "stdout", "");
    }

    /// Waits until a container has said this.
    pub(crate) fn wait_for_log(&self, id: &ContainerId, stream: LogStreamName, words: &str) {
        self.host.wait_until(&format!("{words:?} in the log of {id}"), |heard| {
            let said = heard.logs.get(&(id.clone(), stream));
            said.is_some_and(|said| String::from_utf8_lossy(said).contains(words))
        });
    }

    pub(crate) fn new() -> Self {
        Self::with(WasmOptions::default())
    }

    pub(crate) fn with(options: WasmOptions) -> Self {
        let host = Arc::new(Host::default());
        let runtime = WasmRuntime::new(options, Arc::clone(&host) as Arc<dyn RuntimeHost>).unwrap();
        host.runtime.set(Arc::downgrade(&runtime)).unwrap();
        let world = Self { host, runtime, probes: std::cell::Cell::new(0), pulls: std::cell::Cell::new(0) };
        world.runtime.command(RuntimeCommand::CreateSandbox(sandbox()));
        world
    }

    pub(crate) fn send(&self, command: RuntimeCommand) {
        self.runtime.command(command);
    }

    pub(crate) fn create(&self, spec: ContainerSpec) -> Result<(), coracle_node::runtime::ContainerError> {
        let wanted = spec.id.clone();
        self.send(RuntimeCommand::CreateContainer(Box::new(spec)));
        self.host.wait("ContainerCreated", |event| match event {
            RuntimeEvent::ContainerCreated { id, result } if *id == wanted => Some(result.clone()),
            _ => None,
        })
    }

    pub(crate) fn start(&self, wanted: &ContainerId) -> Result<(), coracle_node::runtime::ContainerError> {
        self.send(RuntimeCommand::StartContainer(wanted.clone()));
        self.host.wait("ContainerStarted", |event| match event {
            RuntimeEvent::ContainerStarted { id, result } if id == wanted => Some(result.clone()),
            _ => None,
        })
    }

    pub(crate) fn exit(&self, wanted: &ContainerId) -> Exit {
        self.host.wait("ContainerExited", |event| match event {
            RuntimeEvent::ContainerExited { id, exit } if id == wanted => Some(exit.clone()),
            _ => None,
        })
    }

    /// Starts a program of `tests/guests`.
    pub(crate) fn launch_component(&self, name: &str, change: impl FnOnce(&mut ContainerSpec)) -> ContainerId {
        self.runtime.import(name, &component(name)).unwrap();
        let mut spec = spec(name);
        change(&mut spec);
        let id = spec.id.clone();
        self.create(spec).unwrap();
        self.start(&id).unwrap();
        id
    }

    /// Runs the text of a module to its end.
    pub(crate) fn run(&self, wat: &str, change: impl FnOnce(&mut ContainerSpec)) -> Exit {
        let id = self.launch(wat, change);
        self.exit(&id)
    }

    /// Starts the text of a module.
    pub(crate) fn launch(&self, wat: &str, change: impl FnOnce(&mut ContainerSpec)) -> ContainerId {
        self.runtime.import("guest", wat.as_bytes()).unwrap();
        let mut spec = spec("guest");
        change(&mut spec);
        let id = spec.id.clone();
        self.create(spec).unwrap();
        self.start(&id).unwrap();
        id
    }

    pub(crate) fn log(&self, id: &ContainerId, stream: LogStreamName) -> String {
        let heard = self.host.heard.lock().unwrap();
        let bytes = heard.logs.get(&(id.clone(), stream)).cloned().unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    }

    pub(crate) fn probe(&self, action: ProbeAction) -> ProbeResult {
        let number = self.probes.get();
        self.probes.set(number + 1);
        self.send(RuntimeCommand::Probe {
            id: ProbeId(number),
            container: spec("guest").id,
            address: ADDRESS,
            action,
            timeout_millis: 60_000,
        });
        self.host.wait("Probed", |event| match event {
            RuntimeEvent::Probed { id, result } if *id == ProbeId(number) => Some(result.clone()),
            _ => None,
        })
    }

    pub(crate) fn pull(&self, wanted: &str, with: PullPolicy) -> RuntimeEvent {
        let pull = PullId(self.pulls.get());
        self.pulls.set(pull.0 + 1);
        let runtime = Some(RuntimeKind::Wasm);
        self.send(RuntimeCommand::PullImage {
            pull,
            image: wanted.to_owned(),
            policy: with,
            logins: Vec::new(),
            runtime,
        });
        self.host.wait("ImageReady", |event| match event {
            RuntimeEvent::ImageReady { pull: answered, .. } if *answered == pull => Some(event.clone()),
            _ => None,
        })
    }
}

/// A program of `tests/guests`, built once a test run.
pub(crate) fn component(name: &str) -> Vec<u8> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/guests/Cargo.toml");
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("test-guests");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked", "--target", "wasm32-wasip2", "--manifest-path", manifest])
        .arg("--target-dir")
        .arg(&target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .unwrap();
    assert!(built.success(), "the test's guests do not build");
    std::fs::read(target.join(format!("wasm32-wasip2/release/{name}.wasm"))).unwrap()
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox { hostname: "web-0".to_owned(), ..Sandbox::new(RuntimeKind::Wasm, POD.into(), ADDRESS) }
}

/// Waits for what needs no clock and no socket.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Sends something, ends its way, and reads until the other side ends.
pub(crate) fn exchange_over(stream: ByteStream, said: &str) -> String {
    block_on(async {
        let mut stream = stream.compat();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    })
}

/// Gives back all that comes.
pub(crate) fn echo(stream: ByteStream) {
    block_on(async {
        let (mut from, mut to) = tokio::io::split(stream.compat());
        let mut all = Vec::new();
        from.read_to_end(&mut all).await.unwrap();
        to.write_all(&all).await.unwrap();
        to.shutdown().await.unwrap();
    });
}

pub(crate) fn spec(image: &str) -> ContainerSpec {
    ContainerSpec::new(ContainerId { pod: POD.into(), container: "main".to_owned(), instance: 0 }, image)
}
