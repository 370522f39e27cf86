//! One member of a cluster in this process: its brain and log, its API server, its node.
//!
//! Several members may live in one process. Each has a state, a log, a node and an address of its own; what they share, because one
//! process has it once, is in [`Site`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use coracle_api::UserInfo;
use coracle_apiserver::{Heartbeats, OpenApi, ServerOptions};
use coracle_base::Rng;
use coracle_engine::{AutopilotOptions, ControlPlane, ControlPlaneOptions, Restored};
use coracle_raft::{Config, MemberId};
use coracle_store::{Store, StoreOptions};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::audit::AuditLog;
use crate::auth::Authenticator;
use crate::backup::BackupSource;
use crate::brain::{self, Brain, Disk, Waits};
use crate::builder::ClusterBuilder;
use crate::clock::Clock;
use crate::data_directory::DataDirectory;
use crate::dialer::Turns;
use crate::dns::Upstream;
use crate::http::fair::FairQueue;
use crate::http::listen::Doors;
use crate::identity::Identity;
use crate::images::Images;
use crate::join::Gate;
use crate::key_values::KeyValues;
use crate::logs::LogStore;
use crate::memory_disk::MemoryDisk;
use crate::metrics::Metrics;
use crate::node::Nodes;
use crate::peers::credentials::{Credentials, member_key};
use crate::peers::snapshot::Incoming;
use crate::peers::{Network, Peers};
use crate::presence::Presence;
use crate::process::{Order, Process};
use crate::seat::Seat;
use crate::wal::{self, Wal};
use crate::{ClusterClock, Error, ErrorKind, http};

/// How long a shutdown waits for a task before it is dropped.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// What the members of a process share.
pub(crate) struct Site {
    pub(crate) settings: ClusterBuilder,
    pub(crate) identity: Arc<Identity>,
    pub(crate) directory: Option<DataDirectory>,
    pub(crate) clock: Clock,
    pub(crate) rng: Mutex<Rng>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) images: Arc<Images>,
    pub(crate) logs: Arc<LogStore>,
    /// What members of an in-memory cluster keep while they are stopped.
    pub(crate) disks: Mutex<BTreeMap<MemberId, Arc<MemoryDisk>>>,
    /// The address of each member of this process, once it had one: it comes back to it.
    pub(crate) addresses: RwLock<BTreeMap<MemberId, SocketAddr>>,
    /// Which member of a cluster of several machines this is, where it can be one.
    pub(crate) seat: Option<Seat>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) audit: Option<Arc<AuditLog>>,
    /// Why a member could not go on, the first of them.
    pub(crate) failure: Arc<OnceLock<String>>,
    /// What this process is asked to do with its members, for who takes orders.
    pub(crate) orders: (mpsc::Sender<Order>, tokio::sync::Mutex<mpsc::Receiver<Order>>),
}

/// A running member.
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) process: Arc<Process>,
    /// Whether it leads.
    pub(crate) leads: watch::Receiver<bool>,
    brain: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Site {
    /// The ids of the members that this process has.
    pub(crate) fn members(&self) -> impl Iterator<Item = MemberId> + use<> {
        let first = self.seat.as_ref().map_or(1, |seat| seat.id.0);
        (first..first + self.settings.members_or_one()).map(MemberId)
    }

    /// Opens the way to other machines, where this process can have peers there.
    pub(crate) fn connect(&self, address: Option<SocketAddr>) -> Result<(), Error> {
        let (Some(seat), Some(directory), Some(address)) = (&self.seat, &self.directory, address) else {
            return Ok(());
        };
        let key = member_key(directory)?;
        let credentials = Credentials::new(seat.id, self.identity.peer_authority.clone(), key)?;
        let incoming = Incoming::new(directory.clone());
        let network = Network::new(seat.id, credentials, address.port(), incoming, self.shutdown.clone());
        network.roster.update(seat.members.clone());
        self.peers.connect(network);
        Ok(())
    }

    /// The address of a member's node, where others reach it.
    #[cfg(feature = "wasm")]
    pub(crate) fn node_address(&self, id: MemberId) -> Option<IpAddr> {
        let listening = *self.addresses.read().expect("nothing panics while it holds the lock").get(&id)?;
        self.peers.network()?;
        let told = crate::presence::told_of(listening).into_iter().next()?;
        told.parse().ok().map(|address: SocketAddr| address.ip())
    }

    /// The name of a member, which its node has, too.
    pub(crate) fn name_of(&self, id: MemberId) -> String {
        self.seat.as_ref().map_or_else(|| self.settings.name_of(id), |seat| seat.name.clone())
    }

    /// Whether this process has one member, the others on other machines if there are any.
    pub(crate) fn is_single(&self) -> bool {
        self.settings.members_or_one() == 1
    }

    /// The data directory of a member: the cluster's, or a folder in it where there are several.
    pub(crate) fn directory_of(&self, id: MemberId) -> Option<DataDirectory> {
        Some(self.directory.as_ref()?.of_member(id, self.settings.members_or_one()))
    }

    fn raft(&self, id: MemberId) -> Config {
        let joined = self.seat.as_ref().is_some_and(|seat| seat.joined);
        let config = if joined { Config::joining(id) } else { Config::single(id) };
        let voters = if joined { Vec::new() } else { self.members().collect() };
        let config = Config { voters, ..config };
        if self.settings.is_lan() { config.lan() } else { config }
    }

    /// What lets other machines in: only a member that keeps its state and is reached over a network can have peers.
    fn gate(&self) -> Option<Gate> {
        self.peers.network().map(|_| Gate::new(Arc::clone(&self.identity)))
    }

    fn disk_of(&self, id: MemberId) -> Option<Arc<MemoryDisk>> {
        if self.is_single() {
            return None;
        }
        let mut disks = self.disks.lock().expect("nothing panics while it holds the lock");
        Some(Arc::clone(disks.entry(id).or_default()))
    }

    fn rng(&self) -> Rng {
        self.rng.lock().expect("nothing panics while it draws").fork()
    }

    fn server_options(&self, address: Option<SocketAddr>) -> ServerOptions {
        ServerOptions {
            ca_certificate: self.identity.authority.certificate.clone(),
            token_keys: self.identity.token_key.public_set().to_string(),
            advertise: address.map_or_else(String::new, |address| advertised(address).to_string()),
            openapi: Arc::new(self.settings.descriptions_source().map_or_else(OpenApi::default, OpenApi::described_by)),
            ..ServerOptions::default()
        }
    }
}

impl Member {
    /// Starts a member's brain, from what it had. It is not waited until anybody leads.
    pub(crate) fn begin(site: &Site, id: MemberId, address: Option<SocketAddr>) -> Result<Self, Error> {
        let mut rng = site.rng();
        let options = Arc::new(site.server_options(address));
        let plane_options = ControlPlaneOptions {
            raft: site.raft(id),
            autopilot: AutopilotOptions::default(),
            server: Arc::clone(&options),
            store: StoreOptions::default(),
            controllers: coracle_engine::default_controllers,
            seed: rng.next_u64(),
            snapshot_after: coracle_engine::SNAPSHOT_AFTER_BYTES,
            feature_level: site.settings.level(),
        };
        let store = plane_options.store.clone();
        let (brain, inputs) = mpsc::channel(brain::INPUTS_MAX);
        let (disk, restored) = match (site.directory_of(id), site.disk_of(id)) {
            (Some(directory), _) => {
                let found = wal::open(&directory, Some(id), &store)?;
                let restored = found.raft.map(|raft| Restored { store: found.store, raft });
                (Disk::File(Wal::start(directory, found.log, brain.clone())?), restored)
            }
            (None, Some(disk)) => {
                let restored = disk.restore(&store);
                (Disk::Memory(disk), restored)
            }
            (None, None) => (Disk::None, None),
        };
        let plane = ControlPlane::new(site.clock.now(), plane_options, restored);
        // What the plane has before it heard of a leader is not everything that was acknowledged.
        let (views, view) = watch::channel(Store::new(StoreOptions::default()).view());
        let (leads, leading) = watch::channel(false);
        let mut authenticator = Authenticator::new(Arc::clone(&site.identity.token_key));
        authenticator.allow(&site.identity.token, UserInfo::admin("admin"));
        let process = Arc::new(Process {
            clock: site.clock,
            options: Arc::clone(&options),
            authenticator,
            authority: site.identity.authority.clone(),
            backup: BackupSource {
                identity: site.identity.files(),
                sealer: site.directory.as_ref().map(|directory| directory.sealer().clone()),
            },
            brain: brain.clone(),
            views: view,
            node: site.name_of(id),
            leads: leading.clone(),
            node_address: watch::channel(None).0,
            removed: AtomicBool::new(false),
            // Until the log has said who is in the group.
            alone: AtomicBool::new(false),
            heartbeats: Heartbeats::default(),
            peers: Arc::clone(&site.peers),
            orders: site.orders.0.clone(),
            gate: site.gate(),
            nodes: Arc::clone(&site.nodes),
            turns: Turns::default(),
            upstream: Upstream::new(
                site.settings.dns_options().upstreams.clone(),
                (options.service_network, options.service_prefix),
            ),
            audit: site.audit.clone(),
            requests: FairQueue::new(site.settings.client_limits().clone()),
            images: Arc::clone(&site.images),
            logs: Arc::clone(&site.logs),
            metrics: Metrics::default(),
            failure: Arc::clone(&site.failure),
            only: site.is_single(),
            shutdown: site.shutdown.child_token(),
            cluster_shutdown: site.shutdown.clone(),
            rng: Mutex::new(rng),
            key_values: KeyValues::default(),
            served: AtomicU64::new(0),
        });
        site.peers.join(id, brain);
        let brain = Brain {
            id,
            plane,
            clock: site.clock,
            inputs,
            views,
            leads,
            disk,
            peers: Arc::clone(&site.peers),
            store,
            process: Arc::clone(&process),
            requests: Handle::current(),
            last_step: site.clock.now(),
            waits: Waits::default(),
        };
        let brain = place(brain, site.settings.clock_kind())?;
        Ok(Self { id, process, leads: leading, brain, tasks: Vec::new() })
    }

    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Serves HTTPS, and other members where there is a network.
    pub(crate) fn serve(&mut self, site: &Site, listener: TcpListener, address: SocketAddr) -> Result<(), Error> {
        let process = Arc::clone(&self.process);
        let presence = Presence::new(site, self.id, address, process.options.service_network)?;
        let doors = Doors { api: presence.certificate.config()?, network: site.peers.network().cloned() };
        if let Some(network) = &doors.network {
            network.serve(&process);
        }
        let router = http::router(Arc::clone(&process));
        self.spawn(http::listen::serve(Arc::clone(&process), listener, doors, router));
        self.spawn(presence.keep(process));
        Ok(())
    }

    /// Cuts it off at once: it is heard by nobody any more.
    pub(crate) fn cut(&self, site: &Site) {
        site.peers.leave(self.id);
        self.process.shutdown.cancel();
    }

    /// Stops it and waits until everything is written.
    pub(crate) async fn stop(self, site: &Site) {
        self.cut(site);
        for task in self.tasks {
            let _ = tokio::time::timeout(SHUTDOWN_WAIT, task).await;
        }
        let _ = tokio::time::timeout(SHUTDOWN_WAIT, self.brain).await;
    }
}

/// Puts the brain on a thread of its own, or beside the caller under virtual time.
fn place(brain: Brain, clock: ClusterClock) -> Result<JoinHandle<()>, Error> {
    if clock == ClusterClock::Virtual {
        return Ok(tokio::spawn(brain.run()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::new(ErrorKind::Runtime, "cannot make the brain's runtime").because(source))?;
    if let Some(network) = brain.peers.network() {
        network.control_on(runtime.handle());
    }
    let process = Arc::clone(&brain.process);
    let (finished, done) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("coracle-brain".into())
        .spawn(move || {
            runtime.block_on(brain.run());
            let _ = finished.send(());
        })
        .map_err(|source| Error::new(ErrorKind::Runtime, "cannot start the brain's thread").because(source))?;
    Ok(tokio::spawn(async move {
        if done.await.is_err() {
            // Whatever it was, the member must not go on without it: others, and the log, still have everything.
            process.fail("a defect stopped the member; the first lines of its output say where".into());
        }
    }))
}

/// The address that clients on this machine reach a listening socket by.
pub(crate) fn advertised(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}
