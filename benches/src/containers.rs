//! What a node adds to Docker Engine: a pod's start beside the same calls of the Engine, many pods beside as many `docker run`, and a
//! connection to a container of another member beside a direct one. It needs Docker Engine, root, and Debian's busybox-static.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::load::Api;
use crate::members::{Extras, Member, free_address, joined};
use crate::relay::Relay;
use crate::report::median;
use crate::{Report, Target};

/// What can be measured of containers, each by its own name; `containers` is all of them.
pub const PARTS: [&str; 3] = ["containers-start", "containers-many", "containers-tunnel"];

const SOCKET: &str = "/var/run/docker.sock";
const IMAGE: &str = "coracle.bench/busybox:1";
/// What finds the bench's own containers and network.
const OURS: &str = "label=coracle.bench=yes";
const NETWORK: &str = "coracle-bench";
const SUBNET: &str = "10.199.0.0/16";
const BUSYBOX: &str = "/bin/busybox";
const NAMESPACE: &str = "/api/v1/namespaces/default/pods";
const STARTS: usize = 20;
const PODS: usize = 100;
const NODE_PORT: u16 = 30_081;
const TRANSFER: u64 = 1 << 30;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_mins(5);
/// How often it is looked whether a pod is Ready: one whose time is taken, and one of many.
const LOOK: Duration = Duration::from_millis(1);
const LOOK_AT_MANY: Duration = Duration::from_millis(50);

/// What is wanted about containers.
pub async fn measure(report: &mut Report, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    if let Err(error) = image() {
        report.figure(&format!("no containers to measure with: {error:#}"), 0.0, "", Target::None);
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let mut result = Ok(());
    if wanted("containers-start") {
        let relay = Relay::new(directory.path(), SOCKET)?;
        let (member, node) = one_node(&directory.path().join("start"), &relay.socket)?;
        result = starts(report, &member.api(), &relay).await;
        drop(member);
        remove(&[&node, OURS])?;
    }
    if result.is_ok() && wanted("containers-many") {
        let (member, node) = one_node(&directory.path().join("many"), Path::new(SOCKET))?;
        result = many(report, &member.api()).await;
        drop(member);
        remove(&[&node, OURS])?;
    }
    if result.is_ok() && wanted("containers-tunnel") {
        result = tunnel(report, directory.path()).await;
    }
    result
}

/// A member whose node asks the Engine at this socket, and the filter that finds what it has there.
fn one_node(directory: &Path, socket: &Path) -> anyhow::Result<(Member, String)> {
    network()?;
    let extras = Extras { docker: Some(socket.to_owned()), ..Extras::default() };
    let member = Member::start(directory, free_address()?, None, &extras)?;
    let node = format!("label=coracle.dev/node={}", member.name);
    Ok((member, node))
}

/// The image: busybox with the names that are used of it.
fn image() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin)?;
    std::fs::copy(BUSYBOX, bin.join("busybox")).context("there is no /bin/busybox; Debian has it in busybox-static")?;
    for applet in ["sh", "sleep", "nc", "head"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    let mut tar = Command::new("tar").arg("-C").arg(folder.path()).args(["-c", "."]).stdout(Stdio::piped()).spawn()?;
    let archive = tar.stdout.take().context("it is piped")?;
    let imported = Command::new("docker").args(["import", "-", IMAGE]).stdin(archive).output().context("no docker")?;
    tar.wait()?;
    ensure!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr).trim());
    Ok(())
}

/// A network for what is compared: a node's pods are on one of its own, too, which costs the Engine more than its default one.
fn network() -> anyhow::Result<()> {
    let arguments = ["network", "create", "--label", "coracle.bench=yes", "--subnet", SUBNET, NETWORK];
    let made = Command::new("docker").args(arguments).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(())
}

/// Removes containers, and what they leave, by these filters.
fn remove(filters: &[&str]) -> anyhow::Result<()> {
    for filter in filters {
        for (list, remove) in [("ps", ["rm", "-fv"]), ("network", ["network", "rm"]), ("volume", ["volume", "rm"])] {
            let mut listing = Command::new("docker");
            if list == "ps" {
                listing.args(["ps", "-aq"])
            } else {
                listing.args([list, "ls", "-q"])
            };
            let found = String::from_utf8(listing.args(["--filter", filter]).output()?.stdout)?;
            let found: Vec<&str> = found.split_whitespace().collect();
            if !found.is_empty() {
                Command::new("docker").args(remove).args(found).output()?;
            }
        }
    }
    Ok(())
}

/// A request to the Engine, and its answer.
async fn engine(method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let stream = TokioIo::new(UnixStream::connect(SOCKET).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "docker")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(if body.is_null() { String::new() } else { body.to_string() })))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&bytes));
    Ok(if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? })
}

/// A sandbox and a container in its network, made and started by the Engine's own calls.
async fn pair() -> anyhow::Result<()> {
    let mut sandbox = None;
    for _ in 0..2 {
        let network = sandbox.as_ref().map_or_else(|| NETWORK.to_owned(), |id| format!("container:{id}"));
        let body = json!({
            "Image": IMAGE, "Cmd": ["/bin/sleep", "1000000"], "Labels": {"coracle.bench": "yes"},
            "HostConfig": {"NetworkMode": network},
        });
        let made = engine("POST", "/containers/create", &body).await?;
        let id = made["Id"].as_str().context("it has an id")?.to_owned();
        engine("POST", &format!("/containers/{id}/start"), &Value::Null).await?;
        sandbox.get_or_insert(id);
    }
    Ok(())
}

fn pod(name: &str, command: &[&str]) -> Value {
    let container = json!({"name": "main", "image": IMAGE, "command": command, "imagePullPolicy": "Never"});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    })
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Waits until a pod is Ready.
async fn ready(api: &Api, name: &str, every: Duration) -> anyhow::Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pod = api.json("GET", &format!("{NAMESPACE}/{name}"), &Value::Null).await?;
        if is_ready(&pod) {
            return Ok(pod);
        }
        ensure!(Instant::now() < deadline, "the pod {name} is not ready: {}", pod["status"]);
        tokio::time::sleep(every).await;
    }
}

/// One pod after the other, each after the same calls of the Engine without a node. What of a start is the Engine's is the time for which
/// it had a request of the node to answer.
async fn starts(report: &mut Report, api: &Api, relay: &Relay) -> anyhow::Result<()> {
    let (mut ours, mut added, mut own, mut asked) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..=STARTS {
        let began = Instant::now();
        pair().await?;
        let engine = began.elapsed();
        let name = format!("start-{round}");
        relay.settle();
        let began = Instant::now();
        api.json("POST", NAMESPACE, &pod(&name, &["/bin/sleep", "1000000"])).await?;
        ready(api, &name, LOOK).await?;
        let took = began.elapsed();
        let (busy, requests) = relay.settle();
        // The first makes the sandbox's image and the network.
        if round > 0 {
            own.push(engine);
            ours.push(took);
            added.push(took.saturating_sub(busy));
            asked += requests;
        }
    }
    let (ours, added, own) = (median(ours), median(added), median(own));
    report.time("a pod of one container, from its creation until it is Ready, half", ours, Target::None);
    report.time("  of that the Engine had nothing to do, half", added, Target::AtMost(10.0));
    report.figure("  requests to the Engine", asked as f64 / STARTS as f64, "a pod", Target::None);
    report.time("  two containers created and started by the Engine's four calls alone, half", own, Target::None);
    Ok(())
}

/// A hundred pods at once, and two hundred `docker run` at once.
async fn many(report: &mut Report, api: &Api) -> anyhow::Result<()> {
    let began = Instant::now();
    for number in 0..PODS {
        api.json("POST", NAMESPACE, &pod(&format!("many-{number}"), &["/bin/sleep", "1000000"])).await?;
    }
    for number in 0..PODS {
        ready(api, &format!("many-{number}"), LOOK_AT_MANY).await?;
    }
    let ours = began.elapsed();
    let began = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..PODS {
        running.spawn(async move {
            let sandbox = format!("coracle-bench-{number}");
            docker_run(&["--name", &sandbox, "--network", NETWORK]).await?;
            docker_run(&["--network", &format!("container:{sandbox}")]).await
        });
    }
    while let Some(run) = running.join_next().await {
        run??;
    }
    let own = began.elapsed();
    report.figure(&format!("{PODS} pods created and Ready"), ours.as_secs_f64(), "s", Target::None);
    report.figure(&format!("  {} `docker run`, {PODS} at a time", 2 * PODS), own.as_secs_f64(), "s", Target::None);
    report.figure("  ratio", ours.as_secs_f64() / own.as_secs_f64(), "", Target::AtMost(1.0));
    Ok(())
}

async fn docker_run(arguments: &[&str]) -> anyhow::Result<()> {
    let ran = tokio::process::Command::new("docker")
        .args(["run", "-d", "--label", "coracle.bench=yes"])
        .args(arguments)
        .args([IMAGE, "/bin/sleep", "1000000"])
        .output()
        .await?;
    ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr).trim());
    Ok(())
}

/// What a container of the second member sends, read directly and through the first member's node port.
async fn tunnel(report: &mut Report, directory: &Path) -> anyhow::Result<()> {
    let extras = [
        Extras { node_ports: true, ..Extras::default() },
        Extras { docker: Some(PathBuf::from(SOCKET)), ..Extras::default() },
    ];
    let members = joined(&directory.join("tunnel"), &extras).await?;
    let result = transfer(report, &members[0].api()).await;
    let node = members[1].name.clone();
    drop(members);
    remove(&[&format!("label=coracle.dev/node={node}")])?;
    result
}

async fn transfer(report: &mut Report, api: &Api) -> anyhow::Result<()> {
    let send = format!("head -c {TRANSFER} /dev/zero");
    let body = pod("source", &["/bin/sh", "-c", &format!("exec nc -ll -p 9000 -e {send}")]);
    api.json("POST", NAMESPACE, &body).await?;
    let pod = ready(api, "source", LOOK_AT_MANY).await?;
    let address: IpAddr = pod["status"]["podIP"].as_str().context("it has an address")?.parse()?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "source"},
        "spec": {"type": "NodePort", "selector": {"app": "source"},
                 "ports": [{"port": 80, "targetPort": 9000, "nodePort": NODE_PORT}]},
    });
    api.json("POST", "/api/v1/namespaces/default/services", &service).await?;
    let ways = [SocketAddr::new(address, 9000), SocketAddr::from(([127, 0, 0, 1], NODE_PORT))];
    let mut measured: [Vec<Duration>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (times, way) in measured.iter_mut().zip(ways) {
            times.push(read_all(way).await?);
        }
    }
    let rate = |times: Vec<Duration>| TRANSFER as f64 / median(times).as_secs_f64() / f64::from(1 << 20);
    let [direct, ours] = measured.map(rate);
    report.figure("a GiB from a container, directly over the bridge", direct, "MiB/s", Target::None);
    report.figure("  from another member, through the tunnel between them, encrypted", ours, "MiB/s", Target::None);
    report.figure("  ratio", ours / direct, "", Target::AtLeast(0.5));
    Ok(())
}

async fn read_all(from: SocketAddr) -> anyhow::Result<Duration> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = vec![0; 256 << 10];
    loop {
        ensure!(Instant::now() < deadline, "nobody sends from {from}");
        let Ok(mut stream) = TcpStream::connect(from).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (began, mut read) = (Instant::now(), 0);
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            read += length as u64;
        }
        if read == TRANSFER {
            return Ok(began.elapsed());
        }
        if read > 0 {
            bail!("{from} sent {read} bytes of {TRANSFER}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
