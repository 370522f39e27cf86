//! Requests to services of WebAssembly through a node port, beside a native server: each in a process that is not the clients'.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::Guests;
use crate::load::{Api, Measured};
use crate::members::{Extras, Member, WasmNode, free_address};
use crate::network::{backend, middle, requests_to, serve_at};
use crate::{Report, Target};

/// The argument that makes the bench's program the native server.
pub const ARGUMENT: &str = "native";

const CONNECTIONS: usize = 32;
const REQUESTS: usize = 20_000;
/// How often each way is measured, one after the other, so that what else the machine does meets all alike.
const ROUNDS: usize = 3;
const NODE_PORTS: [u16; 3] = [30_082, 30_083, 30_084];
const PATIENCE: Duration = Duration::from_mins(1);

/// The native server's program: it says its address, and serves until whoever started it is gone.
#[expect(clippy::print_stdout, reason = "its answer to the process that started it")]
pub fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        println!("{}", backend().await?);
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut Vec::new())).await;
        anyhow::Ok(())
    })
}

/// The native server in a process of its own.
struct Native {
    child: Child,
    address: SocketAddr,
}

impl Native {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the native server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("it has an output")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the native server did not start")?;
        Ok(Self { child, address })
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests over 32 connections: to a native server, directly and through a node port; and to services of WASI 0.2, which have an instance
/// for each request, and of WASI 0.3, whose instances answer many. The target of a service is a part of what the native one does directly.
pub(super) async fn measure(report: &mut Report, guests: &Guests) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let images = vec![(image(2), guests.hello2.clone()), (image(3), guests.hello3.clone())];
    let extras = Extras { node_ports: true, wasm: Some(WasmNode { pods: 110, images }), ..Extras::default() };
    let member = Member::start(&directory.path().join("one"), free_address()?, None, &extras)?;
    let api = member.api();
    let native = Native::start()?;
    let port = native.address.port();
    let spec = node_port(NODE_PORTS[0], port, &Value::Null);
    serve_at(&api, "native", spec, port, &[native.address.ip().to_string()]).await?;
    serve(&api, 2, NODE_PORTS[1]).await?;
    serve(&api, 3, NODE_PORTS[2]).await?;
    let [relayed, wasi2, wasi3] = NODE_PORTS.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let ways = [
        ("a native server", native.address, Target::None),
        ("a native server, through a node port", relayed, Target::None),
        ("wasi:http 0.2, an instance for each", wasi2, Target::AtLeast(0.2)),
        ("wasi:http 0.3, instances that are reused", wasi3, Target::AtLeast(0.6)),
    ];
    for (what, address, _) in &ways {
        until_answered(*address).await.with_context(|| (*what).to_owned())?;
    }
    let mut measured: [Vec<Measured>; 4] = Default::default();
    for _ in 0..ROUNDS {
        for (way, (what, address, _)) in measured.iter_mut().zip(&ways) {
            let took = requests_to(*address, CONNECTIONS, REQUESTS, true).await;
            way.push(took.with_context(|| (*what).to_owned())?);
        }
    }
    let measured = measured.map(middle);
    let base = measured[0].rate;
    for ((what, _, target), measured) in ways.into_iter().zip(&measured) {
        report.figure(&format!("requests over {CONNECTIONS} connections: {what}"), measured.rate, "/s", Target::None);
        report.time("  99 % within", measured.quantile(0.99), Target::None);
        report.figure("  beside the native server", measured.rate / base, "", target);
    }
    Ok(())
}

/// The name of the image that serves by this version of WASI.
fn image(version: u8) -> String {
    format!("example.com/hello:{version}")
}

/// A Service's spec that is reached at a node port.
fn node_port(node_port: u16, port: u16, selector: &Value) -> Value {
    let mut spec = json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": port, "nodePort": node_port}]});
    if !selector.is_null() {
        spec["selector"] = selector.clone();
    }
    spec
}

/// A pod that serves, and its Service.
async fn serve(api: &Api, version: u8, port: u16) -> anyhow::Result<()> {
    let name = format!("hello{version}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": image(version), "ports": [{"containerPort": 8080}]}]},
    });
    api.json("POST", "/api/v1/namespaces/default/pods", &pod).await?;
    let spec = node_port(port, 8080, &json!({"app": name}));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    api.json("POST", "/api/v1/namespaces/default/services", &service).await?;
    Ok(())
}

/// Waits for a first answer; what goes wrong before it, as while the image is compiled, is told only when it does not come.
async fn until_answered(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = tokio::time::timeout(PATIENCE, requests_to(address, 1, 1, false)).await;
        match asked {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if Instant::now() > deadline => return Err(error),
            Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(_) => bail!("{address} does not answer"),
        }
    }
}
