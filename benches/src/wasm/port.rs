//! Containers at the `Runtime` port, without a node: a host of the bench's own hears what the runtime tells, and gives it to whom it
//! concerns.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use coracle::api::Uid;
use coracle_node::runtime::{
    Connecting, ContainerId, ContainerSpec, Destination, LogStream, OpenError, Resolving, Runtime as _, RuntimeCommand,
    RuntimeEvent, RuntimeHost, RuntimeKind, Sandbox,
};
use coracle_runtime_wasm::{WasmOptions, WasmRuntime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::load::Measured;
use crate::{Report, Target};

const STARTS: usize = 2_000;
const SHORT: u32 = 10_000;
/// Those before the first that counts, in each pod.
const WARM_UP: u32 = 100;
/// Pods that have a container at the same time.
const AT_ONCE: usize = 8;

/// Its first act is a line of output, and its last.
const SPEAKS: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\08\00\00\00\02\00\00\00x\n")
  (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;
/// It ends at once.
pub(super) const ENDS: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// What a pod hears.
#[derive(Debug)]
enum Heard {
    Event(RuntimeEvent),
    /// Output, and when it came.
    Output(Instant),
}

/// Gives each pod what is its own.
#[derive(Debug)]
struct Host(BTreeMap<Uid, UnboundedSender<Heard>>);

impl Host {
    fn give(&self, pod: &Uid, heard: Heard) {
        if let Some(to) = self.0.get(pod) {
            // A pod that is done does not listen.
            let _ = to.send(heard);
        }
    }
}

impl RuntimeHost for Host {
    fn event(&self, event: RuntimeEvent) {
        let pod = match &event {
            RuntimeEvent::SandboxCreated { pod, .. } => pod.clone(),
            RuntimeEvent::ContainerCreated { id, .. }
            | RuntimeEvent::ContainerStarted { id, .. }
            | RuntimeEvent::ContainerExited { id, .. }
            | RuntimeEvent::ContainerRemoved { id } => id.pod.clone(),
            _ => return,
        };
        self.give(&pod, Heard::Event(event));
    }

    fn log(&self, container: &ContainerId, _stream: LogStream, _bytes: &[u8]) {
        self.give(&container.pod, Heard::Output(Instant::now()));
    }

    fn connect(&self, _from: &Uid, to: Destination) -> Connecting {
        Box::pin(std::future::ready(Err(OpenError(format!("dial {}: there is no network here", to.host)))))
    }

    fn datagrams(&self, _from: &Uid, _port: u16, to: SocketAddr) -> Connecting {
        Box::pin(std::future::ready(Err(OpenError(format!("dial {to}: there is no network here")))))
    }

    fn resolve(&self, _from: &Uid, name: &str) -> Resolving {
        Box::pin(std::future::ready(Err(OpenError(format!("lookup {name}: no such host")))))
    }
}

/// A pod, and what it hears.
struct Pod {
    runtime: Arc<WasmRuntime>,
    uid: Uid,
    image: &'static str,
    heard: UnboundedReceiver<Heard>,
    /// Containers so far.
    containers: u32,
}

/// A runtime with one image, and pods in it. Its state is in `directory`.
async fn pods(directory: &std::path::Path, text: &str, count: usize) -> anyhow::Result<Vec<Pod>> {
    const IMAGE: &str = "example.com/guest:1";
    let (mut senders, mut pods) = (BTreeMap::new(), Vec::new());
    for number in 0..count {
        let uid = Uid::from(&*format!("7d1f5f2e-0000-4000-8000-{number:012}"));
        let (sender, heard) = unbounded_channel();
        senders.insert(uid.clone(), sender);
        pods.push((uid, heard));
    }
    let mut options = WasmOptions::default();
    options.state_dir = Some(directory.to_owned());
    let runtime = WasmRuntime::new(options, Arc::new(Host(senders)))?;
    runtime.import(IMAGE, text.as_bytes())?;
    let mut made = Vec::new();
    for (number, (uid, heard)) in (1..).zip(pods) {
        let address = IpAddr::V4(Ipv4Addr::new(10, 42, 0, number));
        let mut pod = Pod { runtime: Arc::clone(&runtime), uid, image: IMAGE, heard, containers: 0 };
        let sandbox = Sandbox::new(RuntimeKind::Wasm, pod.uid.clone(), address);
        runtime.command(RuntimeCommand::CreateSandbox(sandbox));
        pod.until(|event| match event {
            RuntimeEvent::SandboxCreated { result, .. } => Some(result.map_err(|error| anyhow!(error))),
            _ => None,
        })
        .await??;
        // The first one compiles.
        for _ in 0..WARM_UP {
            pod.run().await?;
        }
        made.push(pod);
    }
    Ok(made)
}

impl Pod {
    async fn hear(&mut self) -> anyhow::Result<Heard> {
        self.heard.recv().await.context("the runtime is gone")
    }

    /// What an event says, as soon as one comes that says it.
    async fn until<T>(&mut self, says: impl Fn(RuntimeEvent) -> Option<T>) -> anyhow::Result<T> {
        loop {
            if let Heard::Event(event) = self.hear().await?
                && let Some(said) = says(event)
            {
                return Ok(said);
            }
        }
    }

    /// Creates a container, starts it, waits for its end and removes it. When it was to be started, and when its first output came.
    async fn run(&mut self) -> anyhow::Result<(Instant, Option<Instant>)> {
        let id = ContainerId { pod: self.uid.clone(), container: "main".to_owned(), instance: self.containers };
        self.containers += 1;
        let spec = ContainerSpec::new(id.clone(), self.image);
        self.runtime.command(RuntimeCommand::CreateContainer(Box::new(spec)));
        self.until(|event| match event {
            RuntimeEvent::ContainerCreated { result, .. } => Some(result.map_err(|error| anyhow!("{error:?}"))),
            _ => None,
        })
        .await??;
        let began = Instant::now();
        self.runtime.command(RuntimeCommand::StartContainer(id.clone()));
        let mut spoke = None;
        let exit = loop {
            match self.hear().await? {
                Heard::Output(at) => _ = spoke.get_or_insert(at),
                Heard::Event(RuntimeEvent::ContainerStarted { result: Err(error), .. }) => {
                    return Err(anyhow!("{error:?}"));
                }
                Heard::Event(RuntimeEvent::ContainerExited { exit, .. }) => break exit,
                Heard::Event(_) => {}
            }
        };
        ensure!(exit.code == 0, "a container ended so: {exit:?}");
        self.runtime.command(RuntimeCommand::RemoveContainer(id));
        self.until(|event| matches!(event, RuntimeEvent::ContainerRemoved { .. }).then_some(())).await?;
        Ok((began, spoke))
    }
}

/// From the command that starts a container to its guest's first word, code compiled before: one after the other, by the clock of who
/// hears it. It includes the guest's first instructions and its one write.
pub(super) async fn starts(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut pods = pods(directory.path(), SPEAKS, 1).await?;
    let pod = pods.first_mut().context("there is one")?;
    let mut times = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let (began, spoke) = pod.run().await?;
        times.push(spoke.context("a guest said nothing")?.saturating_duration_since(began));
    }
    let measured = Measured::new(0.0, times);
    let micros = |share| measured.quantile(share).as_secs_f64() * 1e6;
    let what = "from StartContainer to a guest's first write, code cached: half within";
    report.figure(what, micros(0.5), "us", Target::AtMost(100.0));
    report.figure("  99 % within", micros(0.99), "us", Target::AtMost(1000.0));
    Ok(())
}

/// Containers that end at once, made, started and removed in several pods at a time.
pub(super) async fn short(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let pods = pods(directory.path(), ENDS, AT_ONCE).await?;
    let next = Arc::new(AtomicU32::new(0));
    let mut running = JoinSet::new();
    let began = Instant::now();
    for mut pod in pods {
        let next = Arc::clone(&next);
        running.spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < SHORT {
                pod.run().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(pod) = running.join_next().await {
        pod??;
    }
    let rate = f64::from(SHORT) / began.elapsed().as_secs_f64();
    let what = format!("containers created, started, ended and removed, {AT_ONCE} at a time");
    report.figure(&what, rate, "/s", Target::AtLeast(2000.0));
    Ok(())
}
