//! Three members in three processes: durable writes beside a three-member etcd in the same run, failover, catching up, and idling.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use coracle::Cluster;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::load::{Api, Load, Measured};
use crate::{Report, Target};

/// The argument that makes the bench's program a member.
pub const ARGUMENT: &str = "member";

const OBJECTS: usize = 100_000;
const KILLS: usize = 100;
const IDLE: Duration = Duration::from_mins(1);
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_mins(2);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// How a member is started.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    name: String,
    directory: PathBuf,
    listen: SocketAddr,
    /// Where the cluster is that it joins, and the token.
    join: Option<(String, String)>,
    extras: Extras,
}

/// What a member does beside serving the API.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Extras {
    /// It opens node ports on the loopback.
    pub(crate) node_ports: bool,
    /// Where it serves DNS.
    pub(crate) dns: Option<SocketAddr>,
    /// It has a node that runs containers on this Engine.
    pub(crate) docker: Option<PathBuf>,
    /// It has a node that runs WebAssembly.
    pub(crate) wasm: Option<WasmNode>,
}

/// A node that runs WebAssembly.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct WasmNode {
    /// The most pods.
    pub(crate) pods: u32,
    /// Its images: names, and the files that they are read from.
    pub(crate) images: Vec<(String, PathBuf)>,
}

/// What a member says once it runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Started {
    address: SocketAddr,
    token: String,
    ca_certificate: String,
}

/// The member's program: its order on standard input, one line when it runs, and then nothing until it is killed.
#[expect(clippy::print_stdout, reason = "its answer to the process that started it")]
pub fn main() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().lock().read_line(&mut text)?;
    let order: Order = serde_json::from_str(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut builder = Cluster::builder().lan().name(&order.name).data_dir(&order.directory).listen(order.listen);
        builder = match (order.extras.docker, order.extras.wasm) {
            (Some(socket), None) => builder.nodes(1).node_capacity(64_000, 64 << 30, 1_000).docker(socket),
            (None, Some(node)) => {
                for (name, file) in node.images {
                    builder = builder.image(name, std::fs::read(file)?);
                }
                builder.nodes(1).node_capacity(64_000, 64 << 30, node.pods)
            }
            (None, None) => builder.nodes(0),
            (Some(_), Some(_)) => bail!("a member has one node here"),
        };
        if let Some((address, token)) = order.join {
            builder = builder.join(address, token);
        }
        if order.extras.node_ports {
            builder = builder.node_port_address(Ipv4Addr::LOCALHOST.into());
        }
        if let Some(address) = order.extras.dns {
            builder = builder.dns_address(address);
        }
        let cluster = builder.start_timeout(PATIENCE).start().await?;
        let started = Started {
            address: cluster.address().context("it listens")?,
            token: cluster.token().to_owned(),
            ca_certificate: cluster.ca_certificate().to_owned(),
        };
        println!("{}", serde_json::to_string(&started)?);
        // Until whoever started it is gone.
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut Vec::new())).await;
        anyhow::Ok(())
    })
}

/// A member in a process of its own.
pub(crate) struct Member {
    pub(crate) name: String,
    directory: PathBuf,
    child: Child,
    started: Started,
    extras: Extras,
}

impl Member {
    pub(crate) fn start(
        directory: &Path,
        listen: SocketAddr,
        join: Option<(String, String)>,
        extras: &Extras,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a member")?;
        // Of the port, which no other has on this machine.
        let name = format!("bench-{}", listen.port());
        let order = Order { name: name.clone(), directory: directory.to_owned(), listen, join, extras: extras.clone() };
        let mut text = serde_json::to_vec(&order)?;
        text.push(b'\n');
        child.stdin.as_mut().context("it has an input")?.write_all(&text)?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().context("it has an output")?).read_line(&mut line)?;
        let started = serde_json::from_str(&line).context("a member did not start")?;
        Ok(Self { name, directory: directory.to_owned(), child, started, extras: extras.clone() })
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again; it has caught up when this returns.
    fn start_again(&mut self) -> anyhow::Result<()> {
        *self = Self::start(&self.directory.clone(), self.started.address, None, &self.extras.clone())?;
        Ok(())
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // A tick is a hundredth of a second on Linux.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Bytes of it that are in memory.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it runs")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    pub(crate) fn api(&self) -> Api {
        let Started { address, token, ca_certificate } = self.started.clone();
        Api { address, token, ca_certificate }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What can be measured of three members, each by its own name; `members` is all of them.
pub const PARTS: [&str; 4] = ["members-writes", "members-idle", "members-catch-up", "members-failover"];

/// What is wanted about three members.
pub async fn measure(report: &mut Report, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut members = three(directory.path(), &<[Extras; 3]>::default()).await?;
    if wanted("members-writes") {
        beside_etcd(report, &members, directory.path()).await?;
    }
    if wanted("members-idle") {
        idle(report, &members).await?;
    }
    if wanted("members-catch-up") {
        catch_up(report, &mut members).await?;
    } else if wanted("members-failover") {
        let leader = leader(&members).await?;
        crate::load::run(&members[leader].api(), "there", 64, OBJECTS).await?;
    }
    if wanted("members-failover") {
        failover(report, &mut members).await?;
    }
    Ok(())
}

async fn beside_etcd(report: &mut Report, members: &[Member], directory: &Path) -> anyhow::Result<()> {
    let leader = leader(members).await?;
    let ours = writes(&members[leader].api()).await?;
    match crate::etcd::three(directory).await {
        Ok(peer) => {
            let theirs = writes(&peer.leader).await?;
            drop(peer);
            for ((clients, ours), (_, theirs)) in ours.iter().zip(&theirs) {
                compare(report, *clients, ours, theirs);
            }
        }
        Err(error) => {
            for (clients, ours) in &ours {
                report.figure(&format!("writes of 1 KiB, 3 members, {clients} clients"), ours.rate, "/s", Target::None);
            }
            report.figure(&format!("  no etcd to compare with: {error}"), 0.0, "", Target::None);
        }
    }
    Ok(())
}

fn compare(report: &mut Report, clients: usize, ours: &Measured, theirs: &Measured) {
    let what = format!("writes of 1 KiB, fsync, 3 members, {clients} clients");
    report.figure(&what, ours.rate, "/s", Target::None);
    report.figure("  three members of etcd", theirs.rate, "/s", Target::None);
    report.figure("  ratio", ours.rate / theirs.rate, "", Target::AtLeast(1.0));
    report.time("  half of them within", ours.quantile(0.5), Target::None);
    report.time("  99 % within", ours.quantile(0.99), Target::None);
    report.time("  99 % of etcd's within", theirs.quantile(0.99), Target::None);
    let ratio = ours.quantile(0.99).as_secs_f64() / theirs.quantile(0.99).as_secs_f64();
    report.figure("  ratio", ratio, "", Target::AtMost(1.0));
}

/// Writes by 1 and by 64 clients.
async fn writes(target: &impl Load) -> anyhow::Result<Vec<(usize, Measured)>> {
    let mut measured = Vec::new();
    for (clients, requests) in [(1, 2_000), (64, 30_000)] {
        let name = format!("bench-{clients}");
        measured.push((clients, crate::load::run(target, &name, clients, requests).await?));
    }
    Ok(measured)
}

pub(crate) async fn three(directory: &Path, extras: &[Extras; 3]) -> anyhow::Result<Vec<Member>> {
    let members = joined(directory, extras).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = members[0].api().json("GET", "/coracle/v1/members", &Value::Null).await?;
        let voters = list["members"][0]["status"]["membership"]["voters"].as_array().map_or(0, Vec::len);
        if voters == members.len() {
            return Ok(members);
        }
        ensure!(Instant::now() < deadline, "the members do not become voters: {list}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A cluster of several processes: the first one's, and those that join it.
pub(crate) async fn joined(directory: &Path, extras: &[Extras]) -> anyhow::Result<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    let mut door = None;
    for (number, extras) in extras.iter().enumerate() {
        let member = Member::start(&directory.join(number.to_string()), free_address()?, door.clone(), extras)?;
        if door.is_none() {
            let token = member.api().json("POST", "/coracle/v1/tokens", &json!({})).await?["token"].clone();
            let token = token.as_str().context("there is a token")?.to_owned();
            door = Some((member.started.address.to_string(), token));
        }
        members.push(member);
    }
    Ok(members)
}

/// The place of the leader among the members that run.
async fn leader(members: &[Member]) -> anyhow::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for member in members {
            let Ok(list) = member.api().json("GET", "/coracle/v1/members", &Value::Null).await else { continue };
            let leads = |row: &&Value| row["status"]["role"] == "Leader";
            let found = list["members"].as_array().into_iter().flatten().find(leads).and_then(|row| row["id"].as_u64());
            if let Some(id) = found {
                return Ok(usize::try_from(id)? - 1);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("nobody leads")
}

/// A minute without anything to do.
async fn idle(report: &mut Report, members: &[Member]) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = |member: &Member| -> anyhow::Result<(f64, u64)> {
        let io = std::fs::read_to_string(format!("/proc/{}/io", member.child.id()))?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap_or("0").parse()?;
        Ok((member.cpu()?.as_secs_f64(), written))
    };
    let before = members.iter().map(used).collect::<anyhow::Result<Vec<_>>>()?;
    tokio::time::sleep(IDLE).await;
    let after = members.iter().map(used).collect::<anyhow::Result<Vec<_>>>()?;
    let mut most = 0.0_f64;
    let mut written = 0;
    for ((cpu, bytes), (cpu_before, bytes_before)) in after.into_iter().zip(before) {
        most = most.max((cpu - cpu_before) / IDLE.as_secs_f64());
        written += bytes - bytes_before;
    }
    report.figure(
        "an idle cluster for a minute: processor of the busiest member",
        most * 100.0,
        "%",
        Target::AtMost(1.0),
    );
    report.figure("  written to the disk by all", written as f64, "bytes", Target::AtMost(0.0));
    Ok(())
}

/// A follower that was down for many writes.
async fn catch_up(report: &mut Report, members: &mut [Member]) -> anyhow::Result<()> {
    let leader = leader(members).await?;
    let behind = (leader + 1) % members.len();
    members[behind].kill();
    let measured = crate::load::run(&members[leader].api(), "missed", 64, OBJECTS).await?;
    report.figure("writes of 1 KiB while one of three is down, 64 clients", measured.rate, "/s", Target::None);
    let started = Instant::now();
    members[behind].start_again()?;
    let what = format!("a follower that was down for {OBJECTS} writes has caught up");
    report.figure(&what, started.elapsed().as_secs_f64(), "s", Target::AtMost(5.0));
    Ok(())
}

/// From the leader's end to the next write that is answered, again and again.
async fn failover(report: &mut Report, members: &mut [Member]) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for kill in 0..KILLS {
        let lost = leader(members).await?;
        let asked = (lost + 1) % members.len();
        let api = members[asked].api();
        let mut connection = api.connect().await?;
        connection.create(&format!("before-{kill}")).await?;
        let started = Instant::now();
        members[lost].kill();
        for attempt in 0.. {
            ensure!(started.elapsed() < PATIENCE, "nobody leads after {kill} kills");
            let name = format!("after-{kill}-{attempt}");
            let written = tokio::time::timeout(Duration::from_secs(2), connection.create(&name)).await;
            match written {
                Ok(Ok(())) => break,
                _ => connection = api.connect().await?,
            }
        }
        times.push(started.elapsed());
        members[lost].start_again()?;
    }
    let measured = Measured::new(0.0, times);
    let count = members[0].api().json("GET", &format!("{CONFIG_MAPS}?limit=1"), &Value::Null).await?;
    let left = count["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
    report.figure("objects in the store", left as f64, "", Target::AtLeast(OBJECTS as f64));
    report.time("a leader is killed, the next write is answered: half within", measured.quantile(0.5), Target::None);
    report.time("  99 % within", measured.quantile(0.99), Target::AtMost(500.0));
    Ok(())
}

pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}
