//! `coracle up`: start a cluster, apply manifests, show how it comes up, and keep it running.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use coracle::{AuditOptions, Cluster};
use http::Method;
use serde_json::{Value, json};

use crate::args::{Audit, Docker, HostNetwork, Network, Up};
use crate::connection::{self, Connection, ServerFile};
use crate::descriptions;
use crate::kubeconfig::{self, Entry};
use crate::manifest::{self, Manifests};
use crate::progress;
use crate::terminal::say;

/// How often, and how far apart, a node port is looked at before it counts as closed.
const PORT_TRIES: u32 = 20;
const PORT_INTERVAL: Duration = Duration::from_millis(50);

/// How this machine joins a cluster that others have.
#[derive(Debug)]
pub(super) struct Joining {
    /// Where a member of it is.
    pub(super) address: String,
    pub(super) token: String,
    /// Never vote.
    pub(super) worker: bool,
}

/// Where the API is served when nobody says otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);
/// Where Docker Engine listens unless `DOCKER_HOST` says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// How long a new member may take to get the cluster's state, and how long one that comes back waits for the others.
const JOIN_WAIT: Duration = Duration::from_mins(10);
const OTHERS_WAIT: Duration = Duration::from_hours(24 * 365);
/// When it is said that a start takes its time.
const SLOW: Duration = Duration::from_secs(3);
/// How long the token lives that a start prints, in seconds.
const INVITATION_SECONDS: u64 = 24 * 3600;
/// How often it is looked who the members are.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(10);

pub(crate) async fn run(up: Up) -> Result<()> {
    run_as(up, None).await
}

/// The same for the founder of a cluster and for who joins one.
pub(super) async fn run_as(up: Up, joining: Option<Joining>) -> Result<()> {
    let manifests = manifest::read(&up.manifests)?;
    let data_dir = match (&up.which.data_dir, up.memory) {
        (_, true) => None,
        (Some(directory), _) => Some(directory.clone()),
        (None, _) => Some(connection::default_data_dir()?),
    };
    if let Some(directory) = &data_dir
        && let Some(entry) = connection::entry_of(directory)?
    {
        let connection = Connection::to(&entry)?;
        if connection.is_alive().await {
            return on_running(&entry, &connection, &manifests).await;
        }
    }
    let cluster = start(&up, joining, data_dir.as_deref()).await?;
    let result = serve(&up, data_dir.as_deref(), &cluster, &manifests).await;
    if let Some(directory) = &data_dir {
        let _ = fs::remove_file(directory.join("server.json"));
    }
    let failure = cluster.failure().map(str::to_owned);
    cluster.shutdown().await;
    match failure {
        Some(why) => bail!(why),
        None => result,
    }
}

/// The cluster runs already: what is new is applied, and that is all.
async fn on_running(entry: &Entry, connection: &Connection, manifests: &Manifests) -> Result<()> {
    say(&format!("The cluster runs already, at {}.", entry.server));
    import(connection, manifests).await?;
    apply(connection, manifests).await?;
    progress::until_ready(connection, &manifests.objects, std::future::pending()).await?;
    reach(connection, &entry.server, None).await
}

async fn start(up: &Up, joining: Option<Joining>, data_dir: Option<&Path>) -> Result<Cluster> {
    let last = data_dir.map(coracle::last_address).transpose()?.flatten();
    let listen = up.listen.or(last).unwrap_or(LISTEN);
    let mut builder = Cluster::builder().listen(listen).members(up.members).nodes(up.nodes).fake_nodes(up.fake_nodes);
    let node_ports = node_ports_at(listen.ip());
    builder = builder.node_port_address(node_ports).feature_level(up.feature_level);
    if let Some(name) = &up.name {
        builder = builder.name(name);
    }
    if let Some(grace) = up.node_grace {
        builder = builder.node_grace(Duration::from_secs(grace));
    }
    if let Some(toleration) = up.pod_toleration {
        builder = builder.pod_toleration(Duration::from_secs(toleration));
    }
    if up.lan {
        builder = builder.lan();
    }
    if let Some(Joining { address, token, worker }) = joining {
        say(&format!("Joining the cluster at {address}."));
        builder = builder.join(address, token).start_timeout(JOIN_WAIT);
        if worker {
            builder = builder.worker();
        }
    }
    if last.is_some() {
        // After a power failure the others may take their time, and until they are there nothing can be said.
        builder = builder.start_timeout(OTHERS_WAIT);
    }
    if let Some(directory) = data_dir {
        builder = builder.data_dir(directory);
        if let Some(folder) = connection::key_dir() {
            builder = builder.key_dir(folder);
        }
    }
    if let Some(socket) = docker_socket(&up.docker) {
        say_without_docker(&up.docker, &socket);
        builder = builder.docker(socket);
    }
    if up.network.host == HostNetwork::Auto {
        builder = builder.host_network();
    }
    let usual = |port| SocketAddr::new(node_ports, port);
    if let Some(address) = Network::ingress(&up.network.ingress_http, usual(80)).map_err(anyhow::Error::msg)? {
        builder = builder.ingress_http(address);
    }
    if let Some(address) = Network::ingress(&up.network.ingress_https, usual(443)).map_err(anyhow::Error::msg)? {
        builder = builder.ingress_https(address);
    }
    if let Some(address) = up.network.dns {
        builder = builder.dns_address(address);
    }
    for resolver in &up.network.dns_upstream {
        builder = builder.dns_upstream(*resolver);
    }
    if let Some(options) = audit(&up.audit)? {
        builder = builder.audit(options);
    }
    if let Some(file) = &up.registries {
        builder = builder.registries(coracle::Registries::read(file)?);
    }
    for (name, bytes) in crate::BUILTIN_IMAGES {
        builder = builder.image(*name, *bytes);
    }
    let starting = builder.descriptions(descriptions::text).start();
    let mut starting = std::pin::pin!(starting);
    let mut stop = std::pin::pin!(interrupted());
    let slow = tokio::time::sleep(SLOW);
    let mut slow = std::pin::pin!(slow);
    let mut told = last.is_none();
    loop {
        tokio::select! {
            started = starting.as_mut() => return Ok(started?),
            () = stop.as_mut() => bail!("stopped before the cluster was there"),
            () = slow.as_mut(), if !told => {
                told = true;
                say("Waiting for the other members: more than half of those that vote must run.");
            }
        }
    }
}

/// Where the Docker Engine is looked for, if it is.
fn docker_socket(docker: &Docker) -> Option<PathBuf> {
    match docker {
        Docker::Off => None,
        Docker::At(path) => Some(path.clone()),
        Docker::Auto if !cfg!(target_os = "linux") => None,
        Docker::Auto => {
            let named = std::env::var("DOCKER_HOST").ok();
            let path = named.as_deref().and_then(|host| host.strip_prefix("unix://"));
            Some(path.unwrap_or(DOCKER_SOCKET).into())
        }
    }
}

/// Says what does not work where the Engine cannot be used. Who did not ask for one misses none.
#[cfg(unix)]
fn say_without_docker(docker: &Docker, socket: &Path) {
    let Err(error) = std::os::unix::net::UnixStream::connect(socket) else { return };
    if *docker != Docker::Auto || error.kind() != std::io::ErrorKind::NotFound {
        let socket = socket.display();
        say(&format!(
            "Containers wait until Docker Engine can be reached at {socket} ({error}); WebAssembly pods run."
        ));
    }
}

#[cfg(not(unix))]
fn say_without_docker(_docker: &Docker, _socket: &Path) {}

fn audit(audit: &Audit) -> Result<Option<AuditOptions>> {
    let Some(file) = &audit.file else { return Ok(None) };
    let mut options = AuditOptions::new(file);
    options.file_bytes = audit.maxsize.saturating_mul(1 << 20).max(1);
    options.older_files = audit.maxbackup;
    if let Some(policy) = &audit.policy {
        let text = fs::read_to_string(policy).with_context(|| format!("cannot read {}", policy.display()))?;
        options.policy = Some(text);
    }
    Ok(Some(options))
}

async fn serve(up: &Up, data_dir: Option<&Path>, cluster: &Cluster, manifests: &Manifests) -> Result<()> {
    let address = cluster.address().context("the cluster does not listen")?;
    let host = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    let entry = Entry {
        server: format!("https://{}", SocketAddr::new(host, address.port())),
        ca_certificate: cluster.ca_certificate().to_owned(),
        token: cluster.token().to_owned(),
        servers: Vec::new(),
    };
    if let Some(directory) = data_dir {
        let file = ServerFile { server: entry.server.clone(), pid: std::process::id() };
        let path = directory.join("server.json");
        fs::write(&path, serde_json::to_vec(&file)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = kubeconfig::path(up.which.kubeconfig.as_deref())?;
    let current = kubeconfig::write(&path, &entry)?;
    say(&format!("Coracle {} serves Kubernetes at {}.", env!("CARGO_PKG_VERSION"), entry.server));
    for id in cluster.members().into_iter().skip(1) {
        if let Some(address) = cluster.member(id).address() {
            say(&format!("Member {id} serves it at https://{}.", SocketAddr::new(host, address.port())));
        }
    }
    if let Some(address) = cluster.dns_address() {
        say(&format!("The cluster's DNS is served at {address}."));
    }
    if up.network.host == HostNetwork::Auto
        && up.nodes > 0
        && let Some(why) = cluster.host_network_missing()
    {
        say(&format!("WebAssembly pods have the whole network. Others do not: {why}."));
    }
    let connection = Connection::inside(cluster.client());
    if cluster.can_grow() {
        invite(&connection, cluster.members()[0], address).await?;
    }
    let stop = stop_signal(cluster);
    let mut stop = std::pin::pin!(stop);
    let work = async {
        import(&connection, manifests).await?;
        apply(&connection, manifests).await?;
        progress::until_ready(&connection, &manifests.objects, std::future::pending()).await?;
        reach(&connection, &entry.server, Some((up, &path, current))).await
    };
    tokio::select! {
        result = work => result?,
        () = stop.as_mut() => return stopped(cluster, data_dir),
    }
    say("Press Ctrl-C to stop.");
    tokio::select! {
        () = stop => {}
        () = cluster.take_orders() => {}
        () = follow_members(&connection, &path, &entry) => {}
    }
    stopped(cluster, data_dir)
}

/// Where node ports are opened: everywhere when the API is served everywhere, and else for this machine alone.
fn node_ports_at(listen: IpAddr) -> IpAddr {
    if listen.is_unspecified() || listen.is_loopback() { listen } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }
}

/// Says how other machines join, where they can reach this one.
async fn invite(connection: &Connection, id: u64, address: SocketAddr) -> Result<()> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    let members = super::members::read(connection).await?;
    let own = members.iter().find(|member| member["id"] == id);
    let reached = own.and_then(|member| member["addresses"][0].as_str());
    let Some(reached) = reached else {
        say("Other machines cannot join: this one has no address that they could reach.");
        return Ok(());
    };
    let asked = json!({ "ttlSeconds": INVITATION_SECONDS, "description": "printed by `coracle up`" });
    let token = super::token::create(connection, &asked).await?;
    say("Another machine joins, within a day, with:");
    say(&format!("    coracle join {reached} --token {token}"));
    Ok(())
}

/// Keeps the servers of all members in the kubeconfig, for ever.
async fn follow_members(connection: &Connection, path: &Path, entry: &Entry) {
    let mut known = Vec::new();
    loop {
        if let Ok(members) = super::members::read(connection).await {
            let servers = super::members::servers(&members);
            let ours = kubeconfig::find(path).ok().flatten().filter(|ours| ours.token == entry.token);
            if let Some(ours) = ours.filter(|_| servers != known)
                && kubeconfig::write(path, &Entry { servers: servers.clone(), ..ours }).is_ok()
            {
                known = servers;
            }
        }
        tokio::time::sleep(MEMBERS_INTERVAL).await;
    }
}

fn stopped(cluster: &Cluster, data_dir: Option<&Path>) -> Result<()> {
    if cluster.was_removed() {
        bail!("this member was removed from the cluster; to join anew, delete its data: `coracle down --delete-data`");
    }
    match data_dir {
        Some(directory) => say(&format!("Stopping. The cluster's state stays in {}.", directory.display())),
        None => say("Stopping. Nothing is kept."),
    }
    Ok(())
}

/// Ctrl-C, SIGTERM, or `coracle down`.
async fn stop_signal(cluster: &Cluster) {
    tokio::select! {
        () = interrupted() => {}
        () = cluster.stopped() => {}
    }
}

/// Ctrl-C or SIGTERM.
async fn interrupted() {
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

async fn import(connection: &Connection, manifests: &Manifests) -> Result<()> {
    for (name, file) in &manifests.images {
        super::image::import(connection, name, file).await?;
    }
    Ok(())
}

/// Applies the objects in order, and says of each what became of it, as kubectl does.
async fn apply(connection: &Connection, manifests: &Manifests) -> Result<()> {
    for object in &manifests.objects {
        let path = coracle::object_path(object)?;
        let before = connection.get(&path).await.ok();
        let query = "fieldManager=coracle&force=true&fieldValidation=Strict";
        let content_type = "application/apply-patch+yaml";
        let (code, after) = connection.json(Method::PATCH, &format!("{path}?{query}"), content_type, object).await?;
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let what = match before {
            _ if code == 201 => "created",
            Some(before) if version(&before) == version(&after) => "unchanged",
            _ => "configured",
        };
        say(&format!("{} {what}", title(object)));
    }
    Ok(())
}

/// `deployment.apps/web`, as kubectl names objects.
fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]).to_lowercase();
    let name = text(&object["metadata"]["name"]);
    match text(&object["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

/// Whether somebody listens at a node port; they are opened a moment after their Services are there.
async fn is_open(address: SocketAddr) -> bool {
    for _ in 0..PORT_TRIES {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return true;
        }
        tokio::time::sleep(PORT_INTERVAL).await;
    }
    false
}

/// Says how to reach what runs beside this server.
async fn reach(connection: &Connection, server: &str, kubectl: Option<(&Up, &Path, Option<String>)>) -> Result<()> {
    let own = server.strip_prefix("https://").and_then(|address| address.parse::<SocketAddr>().ok());
    let host = own.map(|own| own.ip()).filter(IpAddr::is_loopback).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let services = connection.get("/api/v1/services").await?;
    for service in services["items"].as_array().into_iter().flatten() {
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            if let Some(node_port) = port["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok()) {
                let address = SocketAddr::new(host, node_port);
                let name = service["metadata"]["name"].as_str().unwrap_or_default();
                if is_open(address).await {
                    say(&format!("Service {name}: http://{address}"));
                } else {
                    say(&format!(
                        "Service {name}: node port {node_port} is not open here; `kubectl describe service {name}` says why."
                    ));
                }
            }
        }
    }
    let Some((up, path, current)) = kubectl else { return Ok(()) };
    let named = up.which.kubeconfig.as_ref().map_or_else(String::new, |_| format!(" --kubeconfig {}", path.display()));
    match current {
        None => say(&format!("Use it: kubectl{named} get pods")),
        Some(current) => {
            say(&format!("Use it: kubectl{named} --context {} get pods", kubeconfig::CONTEXT));
            say(&format!(
                "The current context is still {current:?}; switch with: kubectl{named} config use-context {}",
                kubeconfig::CONTEXT
            ));
        }
    }
    Ok(())
}
