//! What the cluster's network costs: a service's port beside HAProxy and no proxy at all, the DNS, and how fast a thousand services follow
//! their endpoints. Nothing here needs Docker or root.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::load::{Api, Measured};
use crate::members::{Extras, Member, free_address, three};
use crate::{Report, Target};

/// What can be measured of the network, each by its own name; `network` is all of them.
pub const PARTS: [&str; 3] = ["network-proxy", "network-dns", "network-services"];

const NODE_PORT: u16 = 30_080;
const CONNECTIONS: usize = 32;
const REQUESTS: usize = 40_000;
/// Of connections of one request each: all rounds and ways together take fewer ports than a machine has.
const SHORT: usize = 1_500;
/// How often each way is measured, one after the other, so that what else the machine does meets all alike.
const ROUNDS: usize = 3;
const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 10;
const CHANGES: usize = 50;
const QUESTIONS: usize = 400_000;
/// Questions at a steady rate, and that rate a second. An id names each.
const PACED: usize = u16::MAX as usize;
const PACED_RATE: f64 = 10_000.0;
const PATIENCE: Duration = Duration::from_mins(1);

/// What is wanted about the network.
pub async fn measure(report: &mut Report, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    if wanted("network-proxy") || wanted("network-dns") {
        let extras = Extras { node_ports: true, dns: Some(free_address()?), ..Extras::default() };
        let member = Member::start(&directory.path().join("one"), free_address()?, None, &extras)?;
        if wanted("network-proxy") {
            proxy(report, &member.api(), directory.path()).await?;
        }
        if wanted("network-dns") {
            let dns = extras.dns.context("it was asked for")?;
            dns_rate(report, &member, dns)?;
        }
    }
    if wanted("network-services") {
        services(report, directory.path()).await?;
    }
    Ok(())
}

/// An address of this machine that is not its loopback: endpoints may not be on that.
fn own_address() -> anyhow::Result<IpAddr> {
    // Nothing is sent: the system only says which address it would send from.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9").context("this machine has no address but its loopback")?;
    Ok(socket.local_addr()?.ip())
}

/// A server that answers every request with the same few bytes.
pub(crate) async fn backend() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((own_address()?, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let answer = hyper::service::service_fn(|_| async {
                    Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from_static(b"hello"))))
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    Ok(address)
}

/// A Service of given ports whose endpoints are these addresses.
pub(crate) async fn serve_at(
    api: &Api,
    name: &str,
    spec: Value,
    port: u16,
    addresses: &[String],
) -> anyhow::Result<()> {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    api.json("POST", "/api/v1/namespaces/default/services", &service).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"port": port}], "endpoints": endpoints(addresses),
    });
    api.json("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await?;
    Ok(())
}

/// An endpoint for each address, as slices have them.
fn endpoints(addresses: &[String]) -> Value {
    addresses.iter().map(|address| json!({"addresses": [address]})).collect()
}

/// A peer that is gone with the value.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy in TCP mode, from a free address to this one.
fn haproxy(directory: &Path, to: SocketAddr) -> anyhow::Result<(Proxy, SocketAddr)> {
    let listen = free_address()?;
    let file = directory.join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen bench\n  bind {listen}\n  server one {to}\n"
    );
    std::fs::write(&file, text)?;
    let child = Command::new("haproxy")
        .arg("-f")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("HAProxy cannot be started; Debian has it in haproxy")?;
    Ok((Proxy(child), listen))
}

async fn proxy(report: &mut Report, api: &Api, directory: &Path) -> anyhow::Result<()> {
    let direct = backend().await?;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80, "targetPort": direct.port(), "nodePort": NODE_PORT}]});
    serve_at(api, "bench", spec, direct.port(), &[direct.ip().to_string()]).await?;
    let ours = SocketAddr::from(([127, 0, 0, 1], NODE_PORT));
    let peer = haproxy(directory, direct);
    let mut ways = vec![("no proxy", direct), ("a service's port", ours)];
    match &peer {
        Ok((_, address)) => ways.push(("HAProxy", *address)),
        Err(error) => report.figure(&format!("no HAProxy to compare with: {error}"), 0.0, "", Target::None),
    }
    for (_, address) in &ways {
        until_open(*address).await?;
    }
    for (what, connections, requests, keeps) in [
        ("requests over 32 connections", CONNECTIONS, REQUESTS, true),
        ("connections of one request, 8 at a time", 8, SHORT, false),
    ] {
        let mut measured: Vec<Vec<Measured>> = ways.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (way, (_, address)) in measured.iter_mut().zip(&ways) {
                way.push(requests_to(*address, connections, requests, keeps).await?);
            }
        }
        let best: Vec<Measured> = measured.into_iter().map(middle).collect();
        for ((way, _), measured) in ways.iter().zip(&best) {
            report.figure(&format!("{what}: {way}"), measured.rate, "/s", Target::None);
            report.time("  99 % within", measured.quantile(0.99), Target::None);
        }
        if let [_, ours, theirs] = &best[..] {
            report.figure("  a service's port beside HAProxy", ours.rate / theirs.rate, "", Target::AtLeast(0.8));
        }
    }
    Ok(())
}

/// The one of some measurements whose rate is in the middle.
pub(crate) fn middle(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    measured.swap_remove(measured.len() / 2)
}

async fn until_open(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        ensure!(Instant::now() < deadline, "nobody listens at {address}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

type Sender = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

async fn open(address: SocketAddr) -> anyhow::Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// So many requests over so many connections at a time, each kept or opened anew for every request.
pub(crate) async fn requests_to(
    address: SocketAddr,
    connections: usize,
    requests: usize,
    keeps: bool,
) -> anyhow::Result<Measured> {
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut kept = if keeps { Some(open(address).await?) } else { None };
                while next.fetch_add(1, Ordering::Relaxed) < requests {
                    let began = Instant::now();
                    let mut own = None;
                    let sender = match &mut kept {
                        Some(sender) => sender,
                        None => own.insert(open(address).await?),
                    };
                    sender.ready().await?;
                    let request = http::Request::get("/").header("host", "bench").body(Empty::new())?;
                    let answer = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
                    ensure!(&answer[..] == b"hello", "another answer");
                    times.push(began.elapsed());
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    let mut times = Vec::with_capacity(requests);
    for worker in workers {
        times.extend(worker.await??);
    }
    Ok(Measured::new(requests as f64 / started.elapsed().as_secs_f64(), times))
}

/// A question for the addresses of a name, without its id.
fn question(name: &str) -> Vec<u8> {
    // Recursion is wanted, and there is one question.
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    // The end of the name; an address of the Internet.
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// The last byte of each address that an answer has. A name in it is a pointer to the question's.
fn last_bytes(packet: &[u8], question: usize) -> Option<Vec<u8>> {
    let count = usize::from(u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]));
    (0..count).map(|record| packet.get(question + record * 16 + 15).copied()).collect()
}

/// Questions by several clients at once, each with some on their way; then so many a second as a busy node asks, each a while after the last.
fn dns_rate(report: &mut Report, member: &Member, dns: SocketAddr) -> anyhow::Result<()> {
    const CLIENTS: usize = 2;
    const ON_THE_WAY: usize = 16;
    let before = member.cpu()?;
    let started = Instant::now();
    let asking: Vec<_> = (0..CLIENTS)
        .map(|_| {
            std::thread::spawn(move || -> anyhow::Result<Vec<Duration>> {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(dns)?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                let mut packet = question("kubernetes.default.svc.cluster.local");
                let mut sent = vec![Instant::now(); usize::from(u16::MAX) + 1];
                let (mut times, mut next, mut buffer) = (Vec::with_capacity(QUESTIONS / CLIENTS), 0_usize, [0; 512]);
                while times.len() < QUESTIONS / CLIENTS {
                    while next < QUESTIONS / CLIENTS && next - times.len() < ON_THE_WAY {
                        let id = next as u16;
                        packet[..2].copy_from_slice(&id.to_be_bytes());
                        sent[usize::from(id)] = Instant::now();
                        socket.send(&packet)?;
                        next += 1;
                    }
                    let length = socket.recv(&mut buffer).context("a question is not answered")?;
                    ensure!(length > packet.len() && buffer[3].trailing_zeros() >= 4, "another answer");
                    times.push(sent[usize::from(u16::from_be_bytes([buffer[0], buffer[1]]))].elapsed());
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::with_capacity(QUESTIONS);
    for client in asking {
        times.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    let took = started.elapsed();
    let cores = member.cpu()?.saturating_sub(before).as_secs_f64();
    let measured = Measured::new(QUESTIONS as f64 / took.as_secs_f64(), times);
    report.figure("DNS: answers, two clients on the same two cores", measured.rate, "/s", Target::None);
    report.figure("  a core of the node's", QUESTIONS as f64 / cores, "/s", Target::AtLeast(50_000.0));
    report.time("  99 % within", measured.quantile(0.99), Target::None);
    let paced = Measured::new(PACED_RATE, paced(dns)?);
    report.figure("DNS: questions, each asked when it is due", paced.rate, "/s", Target::None);
    report.time("  99 % within", paced.quantile(0.99), Target::AtMost(1.0));
    Ok(())
}

/// The times that answers take at a steady rate, from when each question was due: who is late in asking waits longer.
fn paced(dns: SocketAddr) -> anyhow::Result<Vec<Duration>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(dns)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let packet = question("kubernetes.default.svc.cluster.local");
    let began = Instant::now();
    let due = move |number: usize| began + Duration::from_secs_f64(number as f64 / PACED_RATE);
    let asking = {
        let (socket, mut packet) = (socket.try_clone()?, packet.clone());
        std::thread::spawn(move || -> anyhow::Result<()> {
            for number in 0..PACED {
                std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
                packet[..2].copy_from_slice(&(number as u16).to_be_bytes());
                socket.send(&packet)?;
            }
            Ok(())
        })
    };
    let (mut times, mut buffer) = (Vec::with_capacity(PACED), [0; 512]);
    while times.len() < PACED {
        let length = socket.recv(&mut buffer).context("a question is not answered")?;
        ensure!(length > packet.len() && buffer[3].trailing_zeros() >= 4, "another answer");
        times.push(due(usize::from(u16::from_be_bytes([buffer[0], buffer[1]]))).elapsed());
    }
    asking.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    Ok(times)
}

/// A thousand services with ten endpoints each on three members: how long a change of endpoints takes to every one of them.
async fn services(report: &mut Report, directory: &Path) -> anyhow::Result<()> {
    let dns = [free_address()?, free_address()?, free_address()?];
    let extras = dns.map(|dns| Extras { dns: Some(dns), ..Extras::default() });
    let members = three(directory, &extras).await?;
    let before: Vec<u64> = members.iter().map(Member::resident).collect::<anyhow::Result<_>>()?;
    let api = members[0].api();
    let address = |service: usize, last: usize| format!("192.0.{}.{last}", service % 250);
    for service in 0..SERVICES {
        let addresses: Vec<String> = (1..=ENDPOINTS).map(|last| address(service, last)).collect();
        let spec = json!({"clusterIP": "None", "ports": [{"port": 80}]});
        serve_at(&api, &format!("service-{service}"), spec, 80, &addresses).await?;
    }
    let after: Vec<u64> = members.iter().map(Member::resident).collect::<anyhow::Result<_>>()?;
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let service = change * (SERVICES / CHANGES);
        let name = format!("service-{service}");
        let addresses: Vec<String> = (11..11 + ENDPOINTS).map(|last| address(service, last)).collect();
        let slice = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{name}");
        let mut body = api.json("GET", &slice, &Value::Null).await?;
        body["endpoints"] = endpoints(&addresses);
        let packet = question(&format!("{name}.default.svc.cluster.local"));
        let started = Instant::now();
        api.json("PUT", &slice, &body).await?;
        let seeing = dns.map(|dns| {
            let packet = packet.clone();
            tokio::task::spawn_blocking(move || sees_change(dns, &packet))
        });
        for seen in seeing {
            seen.await??;
        }
        times.push(started.elapsed());
    }
    let measured = Measured::new(0.0, times);
    let what = format!("{SERVICES} services, {} endpoints: a change is on all three members", SERVICES * ENDPOINTS);
    report.time(&format!("{what}, half"), measured.quantile(0.5), Target::None);
    report.time("  99 % within, the write included", measured.quantile(0.99), Target::AtMost(100.0));
    let grown = after.iter().zip(before).map(|(after, before)| after.saturating_sub(before)).max().unwrap_or(0);
    report.figure(
        "  memory of a service with ten endpoints",
        grown as f64 / SERVICES as f64 / 1024.0,
        "KiB",
        Target::None,
    );
    Ok(())
}

/// Waits until a member's DNS names the new endpoints.
fn sees_change(dns: SocketAddr, packet: &[u8]) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(dns)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 512];
    while Instant::now() < deadline {
        socket.send(packet)?;
        let length = socket.recv(&mut buffer).context("a question is not answered")?;
        let found = last_bytes(&buffer[..length], packet.len()).context("an answer is too short")?;
        if found.len() == ENDPOINTS && found.iter().all(|last| *last > 10) {
            return Ok(());
        }
    }
    bail!("the change does not come")
}
