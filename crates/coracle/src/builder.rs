//! How a cluster is set up and started.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use coracle_api::ObjectKey;
use coracle_api::resources::{NAMESPACES, SERVICES};
use coracle_base::{Rng, Timestamp};
use coracle_node::fake::Script;
use coracle_node::{Capacity, NodeAgent, NodeConfig};
use coracle_raft::MemberId;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::audit::{AuditLog, AuditOptions};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::data_directory::DataDirectory;
use crate::dns::DnsOptions;
use crate::identity::Identity;
use crate::ingress::IngressOptions;
use crate::join::{self, JoinOptions};
use crate::limits::Limits;
use crate::member::{Member, Site};
use crate::node::{Carrier, FAKE_ANNOTATION, FAKE_CAPACITY, Joining, News, NodeLoop};
use crate::process::Process;
use crate::seat::Seat;
use crate::tls::random_token;
use crate::wal::{self, Life};
use crate::{Error, ErrorKind, http, settings};

mod machine;
#[cfg(feature = "docker")]
mod range;
mod registration;
mod version;

use machine::hostname;
#[cfg(feature = "docker")]
use machine::machine_resolver;
#[cfg(feature = "wasm")]
use machine::{describe_machine, machine_capacity};

/// How long a start may take before it is given up.
const START_WAIT: Duration = Duration::from_secs(30);
/// How many orders about members wait.
const ORDERS_MAX: usize = 16;
/// The most members that make sense: each write waits for more than half of them.
const MEMBERS_MAX: u64 = 7;
/// The wall time at which virtual time begins, the same in every run: 2026-01-01T00:00:00Z.
const VIRTUAL_START: Timestamp = Timestamp::from_secs(1_767_225_600);
/// The most processes and threads of a container, so that one that forks without end is alone with it.
#[cfg(feature = "docker")]
const PROCESSES_MAX: u32 = 4_096;
/// What a node has under virtual time.
#[cfg(feature = "wasm")]
const VIRTUAL_CAPACITY: Capacity = Capacity { cpu_millis: 4_000, memory: 8 << 30, pods: 110 };

/// Which clock a cluster goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterClock {
    /// The machine's.
    #[default]
    System,
    /// tokio's: everything runs inline on the caller's current_thread runtime, and with a paused clock
    /// (`#[tokio::test(start_paused = true)]`) an hour passes as soon as nothing is left to do in it.
    ///
    /// Such a cluster is in memory and has no socket, because a disk and a network know no virtual time. Its wall clock begins
    /// at 2026-01-01T00:00:00Z.
    ///
    /// With `nodes(1)` it runs WebAssembly pods, too: guests share the caller's runtime, sleep on its clock, and draw from the seed.
    /// Their instructions take time, ten million a second, so that one that spins can be probed, limited and ended: an hour of
    /// spinning is simulated in minutes, an hour of anything else in milliseconds.
    Virtual,
}

/// A WebAssembly image that a cluster's nodes have from the start.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name, as pods name it.
    pub name: String,
    /// The module or component, binary or text.
    pub bytes: Arc<[u8]>,
}

/// Settings of a cluster. The default is a cluster in memory with one node and no socket.
#[derive(Clone, Debug, Default)]
pub struct ClusterBuilder {
    members: Option<u64>,
    nodes: Option<usize>,
    fake_nodes: usize,
    scripts: BTreeMap<String, Script>,
    data_dir: Option<PathBuf>,
    key_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    clock: ClusterClock,
    seed: Option<u64>,
    images: Vec<Image>,
    capacity: Option<Capacity>,
    node_port_address: Option<IpAddr>,
    dns: DnsOptions,
    host_network: bool,
    ingress: IngressOptions,
    descriptions: Option<fn() -> String>,
    limits: Limits,
    join: Option<JoinOptions>,
    name: Option<String>,
    lan: bool,
    feature_level: Option<u32>,
    settings: serde_json::Map<String, serde_json::Value>,
    start_timeout: Option<Duration>,
    audit: Option<AuditOptions>,
    #[cfg(feature = "docker")]
    docker: Option<PathBuf>,
    #[cfg(feature = "wasm")]
    registries: crate::Registries,
}

impl ClusterBuilder {
    /// How many members the cluster has, all of them in this process: 1, or an odd number up to 7, which survives the loss of less than
    /// half of them ([`Cluster::member`] stops and starts them). Each has a log, an API server and a node of its own; where the cluster
    /// listens, the others do so at the ports behind the first one's. For trying things out and for tests: it survives no loss of
    /// the machine.
    #[must_use]
    pub fn members(mut self, members: u64) -> Self {
        self.members = Some(members);
        self
    }

    /// Joins the cluster that a member at this address (`HOST:PORT`) belongs to, with a token that any of its members gives: this
    /// process becomes one more member of it, on this machine. It needs a directory of its own and an address at which the others reach
    /// it ([`Self::data_dir`], [`Self::listen`]).
    ///
    /// A directory that is a member's already is that member again; token and address are not looked at then.
    #[must_use]
    pub fn join(mut self, address: impl Into<String>, token: impl Into<String>) -> Self {
        let worker = self.join.take().is_some_and(|join| join.worker);
        self.join = Some(JoinOptions { address: address.into(), token: token.into(), worker });
        self
    }

    /// Joins without ever asking for a vote: the member runs pods and answers requests.
    #[must_use]
    pub fn worker(mut self) -> Self {
        let join =
            self.join.get_or_insert_with(|| JoinOptions { address: String::new(), token: String::new(), worker: true });
        join.worker = true;
        self
    }

    /// The member's name, which its node has, too; by default the machine's. It is kept in the directory: later starts do not change it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long a node may be silent before it counts as gone, 2 seconds to an hour; 50 seconds by default, as in Kubernetes. It is a
    /// setting of the whole cluster, and stays.
    #[must_use]
    pub fn node_grace(mut self, grace: Duration) -> Self {
        self.settings.insert("nodeGraceSeconds".into(), grace.as_secs().into());
        self
    }

    /// How long pods that say nothing of it stay bound to a node that is gone, up to a day; 300 seconds by default, as in Kubernetes. It
    /// is a setting of the whole cluster, and stays; it goes into new pods.
    #[must_use]
    pub fn pod_toleration(mut self, toleration: Duration) -> Self {
        self.settings.insert("podTolerationSeconds".into(), toleration.as_secs().into());
        self
    }

    /// Goes by the timings of a wired network: members notice within 200 to 350 ms that nobody leads, instead of 600 to 1,200 ms, and
    /// hear of the leader every 50 ms. All members of a cluster should go by the same.
    #[must_use]
    pub fn lan(mut self) -> Self {
        self.lan = true;
        self
    }

    /// How long a start may take before it is given up; 30 seconds by default. A member of several machines waits for more than half
    /// of them.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = Some(timeout);
        self
    }

    /// How many nodes that run pods this process has: 1, or 0 for an API server, controllers and perhaps fake nodes alone.
    /// The default is 1, and 0 under virtual time, whose tests mostly want fake nodes; there a node has four cores and 8 GiB unless
    /// [`Self::node_capacity`] says otherwise, whatever the machine has.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// How many fake nodes there are beside: they are kept Ready and run their pods at once, as data.
    #[must_use]
    pub fn fake_nodes(mut self, nodes: usize) -> Self {
        self.fake_nodes = nodes;
        self
    }

    /// How containers of an image behave on fake nodes, by the name that pods call it: that they end after a while, cannot be
    /// pulled, or take their time to be ready. Without a script they start at once and run until they are stopped.
    #[must_use]
    pub fn script(mut self, image: impl Into<String>, script: Script) -> Self {
        self.scripts.insert(image.into(), script);
        self
    }

    /// Keeps the state in this directory, which is made when it is not there; without it the cluster is in memory.
    #[must_use]
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// Puts the key to a new data directory's contents into this directory instead of beside the data.
    ///
    /// The log, snapshots, nodes' checkpoints and private keys are sealed with it (AES-256-GCM): a copy of the data directory alone tells
    /// nothing, and without the key the data cannot be read. Container logs and images are not sealed.
    #[must_use]
    pub fn key_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.key_dir = Some(directory.into());
        self
    }

    /// Serves HTTPS at this address; port 0 takes any free one. Without it there is no socket.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Which clock the cluster goes by.
    #[must_use]
    pub fn clock(mut self, clock: ClusterClock) -> Self {
        self.clock = clock;
        self
    }

    /// Where everything that is drawn begins, uids and generated names included; by default another one each time.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Gives every node an image, built in: it is always there and need not be imported.
    #[must_use]
    pub fn image(mut self, name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.images.push(Image { name: name.into(), bytes: bytes.into() });
        self
    }

    /// What a node has to give: thousandths of a core, bytes of memory, pods. The default is what the machine has, and 110 pods.
    ///
    /// A new node that runs more than 127 pods as WebAssembly has addresses for all of them as long as the cluster's range has room; a node
    /// that has containers, too, has 127 for WebAssembly. Ten thousand pods is the most that runs.
    #[must_use]
    pub fn node_capacity(mut self, cpu_millis: u64, memory: u64, pods: u32) -> Self {
        self.capacity = Some(Capacity { cpu_millis, memory, pods });
        self
    }

    /// Opens the node ports of Services on this address; without it, and without a listening address, they stay closed.
    #[must_use]
    pub fn node_port_address(mut self, address: IpAddr) -> Self {
        self.node_port_address = Some(address);
        self
    }

    /// Serves the cluster's DNS at this address, over UDP and TCP; port 0 takes any free one ([`Cluster::dns_address`]). Pods have it without:
    /// WebAssembly pods in the process, containers at the address of the Service `kube-dns`.
    #[must_use]
    pub fn dns_address(mut self, address: SocketAddr) -> Self {
        self.dns.address = Some(address);
        self
    }

    /// Asks this resolver for names outside the cluster, and others that are named so, instead of the machine's own.
    #[must_use]
    pub fn dns_upstream(mut self, resolver: SocketAddr) -> Self {
        self.dns.upstreams.push(resolver);
        self
    }

    /// Leads this machine and its containers to Services and pods by their addresses, where the process may change the network (Linux, root):
    /// by one nftables table and two routes of its own, which go with the cluster. One process of a machine can. Nodes have a condition
    /// `coracle.dev/HostNetwork` that says how it is.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// Serves Ingresses over HTTP at this address, on every node, as soon as there is one.
    #[must_use]
    pub fn ingress_http(mut self, address: SocketAddr) -> Self {
        self.ingress.http = Some(address);
        self
    }

    /// Serves Ingresses over HTTPS at this address, on every node, as soon as there is one.
    #[must_use]
    pub fn ingress_https(mut self, address: SocketAddr) -> Self {
        self.ingress.https = Some(address);
        self
    }

    /// Gives the OpenAPI documents, and with them `kubectl explain`, descriptions of types and fields: a text in the form of
    /// [`coracle_api::openapi::DescriptionTable`], asked for when a client first reads such a document. Without it they have
    /// none, because the texts of all kinds are a megabyte that few programs need.
    #[must_use]
    pub fn descriptions(mut self, text: fn() -> String) -> Self {
        self.descriptions = Some(text);
        self
    }

    /// Bounds on what clients take of each member, so that none is in the way of the others.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Writes down who did what over HTTP. What the controllers, the scheduler and the nodes of this process do is not recorded.
    #[must_use]
    pub fn audit(mut self, options: AuditOptions) -> Self {
        self.audit = Some(options);
        self
    }

    /// Runs containers beside WebAssembly, on the Docker Engine that listens at this socket (mostly `/var/run/docker.sock`). It need not be
    /// there yet: the node looks for it, and says in a condition what is missing. Containers are removed when the cluster stops, and run on
    /// when the process is killed: the next one takes them over.
    ///
    /// A pod is a container when its RuntimeClass says so (handlers `docker` and `runc`), or when its first image is no WebAssembly: the
    /// node's own store is looked into first, then Docker's, and then the registry is asked what it is. This is for Linux, as root.
    #[cfg(feature = "docker")]
    #[must_use]
    pub fn docker(mut self, socket: impl Into<PathBuf>) -> Self {
        self.docker = Some(socket.into());
        self
    }

    /// How nodes reach registries: mirrors, plain HTTP, authorities. Without it by HTTPS under their own names, and those on this machine by
    /// HTTP. Under virtual time no registry is reached.
    #[cfg(feature = "wasm")]
    #[must_use]
    pub fn registries(mut self, registries: crate::Registries) -> Self {
        self.registries = registries;
        self
    }

    /// Starts the cluster; when it returns the API server answers.
    ///
    /// # Errors
    ///
    /// When the address is taken, the directory cannot be used or is in use, what it holds is damaged or newer, or the
    /// runtime cannot be started.
    pub async fn start(self) -> Result<Cluster, Error> {
        self.check()?;
        let audit = self.audit.as_ref().map(AuditLog::start).transpose()?.map(Arc::new);
        let mut listeners = BTreeMap::new();
        for id in (1..=self.members_or_one()).map(MemberId) {
            if let Some(address) = self.address_of(id) {
                let listener = http::listen::bind(address).await?;
                let address = listener.local_addr().map_err(|source| {
                    Error::new(ErrorKind::Listen, "the listening socket has no address").because(source)
                })?;
                listeners.insert(id, (listener, address));
            }
        }
        let directory = self.directory()?;
        let life = directory.as_ref().map_or(Life::New, DataDirectory::life);
        let address = listeners.get(&MemberId(1)).map(|(_, address)| *address);
        let seat = self.take_seat(directory.as_ref(), life, address).await?;
        if let Some(directory) = &directory {
            let first = seat.as_ref().map_or(MemberId(1), |seat| seat.id);
            // Who joined just now has its log already.
            let life = if seat.as_ref().is_some_and(|seat| seat.joined) { Life::Known } else { life };
            for id in (first.0..first.0 + self.members_or_one()).map(MemberId) {
                wal::prepare(&directory.of_member(id, self.members_or_one()), id, life)?;
            }
        }
        if let Some(seat) = &seat
            && let Some(listener) = listeners.remove(&MemberId(1))
        {
            listeners.insert(seat.id, listener);
        }
        let identity = directory.as_ref().map_or_else(Identity::generate, Identity::kept_in)?;
        let clock = match self.clock {
            ClusterClock::System => Clock::system(),
            ClusterClock::Virtual => Clock::virtual_from(VIRTUAL_START),
        };
        let rng = Rng::seeded(self.seed.map_or_else(random_seed, Ok)?);
        let addresses = listeners.iter().map(|(id, (_, address))| (*id, *address)).collect();
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let site = Arc::new(Site {
            settings: self,
            identity: Arc::new(identity),
            directory,
            clock,
            rng: Mutex::new(rng),
            peers: Arc::default(),
            nodes: Arc::default(),
            images: Arc::default(),
            logs: Arc::default(),
            disks: Mutex::default(),
            addresses: RwLock::new(addresses),
            seat,
            shutdown: CancellationToken::new(),
            audit,
            failure: Arc::default(),
            orders: (orders, tokio::sync::Mutex::new(taken)),
        });
        if let Some(directory) = &site.settings.data_dir {
            site.logs.keep_in(&directory.join("logs"))?;
        }
        site.connect(address)?;
        let timeout = site.settings.start_timeout.unwrap_or(START_WAIT);
        let mut members = BTreeMap::new();
        for id in site.members() {
            let mut member = Member::begin(&site, id, listeners.get(&id).map(|(_, address)| *address))?;
            // Members on other machines have to be heard before this one can be asked anything.
            if site.peers.network().is_some()
                && let Some((listener, address)) = listeners.remove(&id)
            {
                member.serve(&site, listener, address)?;
            }
            members.insert(id, member);
        }
        let cluster = Cluster::new(Arc::clone(&site), members);
        cluster.until_bootstrapped(timeout).await?;
        cluster.list_members().await?;
        if !site.settings.settings.is_empty() {
            let settings = serde_json::to_vec(&site.settings.settings).unwrap_or_default();
            settings::change(&cluster.process(), &settings).await.map_err(|status| Error::api(&status))?;
        }
        for id in site.members() {
            cluster.complete(id, listeners.remove(&id)).await?;
        }
        site.settings.make_fake_nodes(&cluster.process()).await?;
        Ok(cluster)
    }

    /// The seat of a directory whose member can have others on other machines: the one that it has, the founder's, or one that is asked
    /// for now.
    async fn take_seat(
        &self,
        directory: Option<&DataDirectory>,
        life: Life,
        address: Option<SocketAddr>,
    ) -> Result<Option<Seat>, Error> {
        let (Some(directory), Some(address), 1) = (directory, address, self.members_or_one()) else { return Ok(None) };
        // A seat without keys is one that was asked for, and the answer did not get to the disk.
        let found = Seat::read(directory.path())?.filter(|_| life == Life::Known);
        let mut seat = match (found, &self.join) {
            (Some(seat), Some(_)) if !seat.joined => {
                return Err(Error::new(ErrorKind::Invalid, own_cluster(directory)));
            }
            (Some(seat), _) => seat,
            (None, Some(join)) => {
                if life == Life::Known {
                    return Err(Error::new(ErrorKind::Invalid, own_cluster(directory)));
                }
                join::join(join, directory, self.name_of(MemberId(1)), address).await?
            }
            (None, None) => Seat::founder(self.name_of(MemberId(1))),
        };
        if seat.listen.replace(address) != Some(address) {
            seat.write(directory)?;
        }
        Ok(Some(seat))
    }

    pub(crate) fn is_lan(&self) -> bool {
        self.lan
    }

    /// How many members the process has.
    pub(crate) fn members_or_one(&self) -> u64 {
        self.members.unwrap_or(1)
    }

    pub(crate) fn client_limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn clock_kind(&self) -> ClusterClock {
        self.clock
    }

    pub(crate) fn descriptions_source(&self) -> Option<fn() -> String> {
        self.descriptions
    }

    pub(crate) fn wants_host_network(&self) -> bool {
        self.host_network
    }

    #[cfg(all(feature = "docker", target_os = "linux"))]
    pub(crate) fn wants_docker(&self) -> bool {
        self.docker.is_some()
    }

    pub(crate) fn ingress_options(&self) -> IngressOptions {
        self.ingress
    }

    pub(crate) fn dns_options(&self) -> &DnsOptions {
        &self.dns
    }

    pub(crate) fn node_ports(&self) -> Option<IpAddr> {
        self.node_port_address.or_else(|| self.listen.map(|address| address.ip()))
    }

    /// Where a member listens: the first at the address that was asked for, the others at the ports behind it.
    fn address_of(&self, id: MemberId) -> Option<SocketAddr> {
        let mut address = self.listen?;
        if address.port() != 0 {
            address.set_port(address.port().saturating_add(u16::try_from(id.0 - 1).unwrap_or(u16::MAX)));
        }
        Some(address)
    }

    /// The name of a member, which its node has, too.
    pub(crate) fn name_of(&self, id: MemberId) -> String {
        let name = match &self.name {
            Some(name) => name.clone(),
            None if self.data_dir.is_some() => hostname(),
            None => "coracle".into(),
        };
        if self.members_or_one() == 1 { name } else { format!("{name}-{}", id.0) }
    }

    fn check(&self) -> Result<(), Error> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::Invalid, message));
        let Ok(runtime) = Handle::try_current() else {
            return invalid("a cluster is started within a tokio runtime");
        };
        if self.nodes.is_some_and(|nodes| nodes > 1) {
            return invalid("a member has one node at most; more of them can be fake nodes");
        }
        self.limits.check().map_err(|why| Error::new(ErrorKind::Invalid, why))?;
        if let Some(name) = self.name.as_deref().filter(|name| !coracle_api::selector::is_dns_subdomain(name)) {
            return invalid(&format!("{name:?} cannot be the name of a node: lower case letters, digits, '-' and '.'"));
        }
        if self.join.is_some() && (self.data_dir.is_none() || self.listen.is_none() || self.members_or_one() != 1) {
            return invalid("who joins a cluster is one member, with a directory and an address of its own");
        }
        let members = self.members_or_one();
        if !(1..=MEMBERS_MAX).contains(&members) || members.is_multiple_of(2) {
            return invalid(
                "a cluster has 1, 3, 5 or 7 members: an even number survives no more than the odd one below it",
            );
        }
        if let Some(directory) = &self.data_dir {
            // A member more would begin with a log of its own, and the others would not know it.
            let has_log = |folder: &Path| folder.join(wal::LOG).exists();
            let folders = (1..=MEMBERS_MAX).map(|id| directory.join(format!("member-{id}")));
            let several = folders.filter(|folder| has_log(folder)).count() as u64;
            let is_single = has_log(directory);
            if (is_single && members > 1) || (several > 0 && (members == 1 || several != members)) {
                let message = format!("{} holds a cluster of another number of members", directory.display());
                return Err(Error::new(ErrorKind::DataDirectory, message));
            }
        }
        if self.clock == ClusterClock::Virtual && runtime.runtime_flavor() != RuntimeFlavor::CurrentThread {
            return invalid(
                "a cluster under virtual time needs a current_thread runtime: tokio's clock knows no other",
            );
        }
        if self.clock == ClusterClock::Virtual && self.data_dir.is_some() {
            return invalid("a cluster under virtual time is in memory: a disk knows no virtual time");
        }
        if self.clock == ClusterClock::Virtual && self.listen.is_some() {
            return invalid("a cluster under virtual time has no socket: who connects would not share its time");
        }
        Ok(())
    }

    /// The data directory with its keys, where there is one.
    fn directory(&self) -> Result<Option<DataDirectory>, Error> {
        self.data_dir.as_deref().map(|path| DataDirectory::open(path, self.key_dir.as_deref())).transpose()
    }

    /// Starts the node of a member.
    pub(crate) async fn start_node(&self, site: &Site, member: &mut Member) -> Result<(), Error> {
        let process = Arc::clone(&member.process);
        let (sender, news) = mpsc::unbounded_channel();
        member.spawn(NodeLoop::new(Arc::clone(&process), sender.clone(), news, self.scripts.clone()).run());
        let nodes = self.nodes.unwrap_or(usize::from(self.clock == ClusterClock::System));
        if nodes > 0 {
            let joining = self.real_node(&process, &sender, site, member.id).await?;
            let _ = sender.send(News::Join(Box::new(joining)));
        }
        Ok(())
    }

    /// Makes the fake nodes; the loop of the member that leads finds them by their annotation, as it does Nodes that a user makes.
    async fn make_fake_nodes(&self, process: &Process) -> Result<(), Error> {
        for index in 0..self.fake_nodes {
            let mut config = NodeConfig::new(format!("fake-{index}"));
            config.capacity = self.capacity.unwrap_or(FAKE_CAPACITY);
            config.annotations.insert(FAKE_ANNOTATION.into(), "fake".into());
            registration::register(process, &mut config, None).await?;
        }
        Ok(())
    }

    #[cfg(feature = "wasm")]
    async fn real_node(
        &self,
        process: &Arc<Process>,
        news: &mpsc::UnboundedSender<News>,
        site: &Site,
        id: MemberId,
    ) -> Result<Joining, Error> {
        use coracle_runtime_wasm::Placement;

        use crate::node::{Host, Keeper};

        let (directory, address) = (site.directory_of(id), site.node_address(id));
        let mut config = NodeConfig::new(site.name_of(id));
        config.service_account_tokens = true;
        #[cfg(target_os = "linux")]
        if self.host_network && crate::host_network::missing().is_none() {
            // Where the host's network leads there, containers ask the cluster's DNS.
            config.cluster_dns = crate::dns::address(&process.view()).into_iter().collect();
        }
        config.container_runtime_version = format!("wasmtime://{}", coracle_runtime_wasm::WASMTIME_VERSION);
        let placement = match self.clock {
            ClusterClock::System => {
                if let Some(address) = address {
                    config.address = address;
                }
                config.capacity = self.capacity.unwrap_or_else(machine_capacity);
                describe_machine(&mut config, self.data_dir.as_deref());
                Placement::Threads
            }
            // Nothing of the machine's shows: runs are alike on any.
            ClusterClock::Virtual => {
                config.capacity = self.capacity.unwrap_or(VIRTUAL_CAPACITY);
                Placement::Inline { wall: process.now().wall, seed: process.fork_rng().next_u64() }
            }
        };
        let range = self.free_range(process, site, &config).await;
        registration::register(process, &mut config, range).await?;
        let host = Arc::new(Host {
            node: config.name.clone(),
            news: news.clone(),
            logs: Arc::clone(&process.logs),
            process: Arc::downgrade(process),
        });
        let folder = directory.as_ref().map(DataDirectory::path);
        let runtime = self.runtimes(process, site, folder, placement, host, &mut config)?;
        let (keeper, checkpoint) = match directory {
            Some(directory) => {
                let (keeper, checkpoint) = Keeper::open(directory, &config.name);
                (Some(keeper), checkpoint)
            }
            None => (None, None),
        };
        let agent = NodeAgent::new(config.clone(), checkpoint, process.fork_rng());
        Ok(Joining { name: config.name, agent, runtime: Carrier::Real(runtime), keeper })
    }

    /// Starts the runtimes of a node, and says in its configuration what they are.
    #[cfg(feature = "wasm")]
    fn runtimes(
        &self,
        process: &Process,
        site: &Site,
        folder: Option<&Path>,
        placement: coracle_runtime_wasm::Placement,
        host: Arc<dyn coracle_node::runtime::RuntimeHost>,
        config: &mut NodeConfig,
    ) -> Result<Arc<dyn coracle_node::runtime::Runtime>, Error> {
        #[cfg(feature = "docker")]
        if let (Some(socket), ClusterClock::System) = (&self.docker, self.clock) {
            return self.with_docker(process, site, folder, placement, host, config, socket);
        }
        let _ = (site, config.name.as_str());
        let (pods, images) = (config.capacity.pods, self.images.clone());
        let wasm = crate::images::start_wasm(folder, pods, placement, images, self.registries.0.clone(), host)?;
        process.images.set(&config.name, Arc::clone(&wasm), &self.images);
        Ok(wasm)
    }

    /// A range for the pods of a node that is new, where it matters which.
    #[cfg(feature = "wasm")]
    async fn free_range(&self, process: &Process, site: &Site, config: &NodeConfig) -> Option<(Ipv4Addr, u8)> {
        #[cfg(feature = "docker")]
        if let (Some(socket), ClusterClock::System) = (&self.docker, self.clock) {
            let view = process.view();
            let is_new = view.object(&ObjectKey::new(coracle_api::resources::NODES, "", &config.name)).is_none();
            let mut options = docker_options(site, config, socket);
            options.state_dir.clone_from(&self.data_dir);
            return if is_new { range::reserve(&view, &process.options, options).await } else { None };
        }
        let _ = (process, site, config);
        None
    }

    #[cfg(feature = "docker")]
    #[expect(clippy::too_many_arguments, reason = "what a node is made of, handed on")]
    fn with_docker(
        &self,
        process: &Process,
        site: &Site,
        folder: Option<&Path>,
        placement: coracle_runtime_wasm::Placement,
        host: Arc<dyn coracle_node::runtime::RuntimeHost>,
        config: &mut NodeConfig,
        socket: &Path,
    ) -> Result<Arc<dyn coracle_node::runtime::Runtime>, Error> {
        use coracle_node::RuntimeInfo;
        use coracle_node::runtime::RuntimeKind;
        use coracle_runtime_docker::DockerRuntime;

        use crate::node::{Known, Part, Runtimes};

        let known = Arc::new(Known::default());
        let part = |runtime| Arc::new(Part { runtime, host: Arc::clone(&host), known: Arc::clone(&known) });
        let registries = self.registries.0.clone();
        let (pods, images) = (config.capacity.pods, self.images.clone());
        let wasm = crate::images::start_wasm(folder, pods, placement, images, registries, part(RuntimeKind::Wasm))?;
        process.images.set(&config.name, Arc::clone(&wasm), &self.images);
        let mut options = docker_options(site, config, socket);
        options.state_dir = folder.map(|folder| folder.join("docker"));
        let docker = DockerRuntime::new(options, part(RuntimeKind::Container)).map_err(|source| {
            Error::new(ErrorKind::Runtime, "the container runtime cannot be started").because(source)
        })?;
        known.set_docker(&docker);
        process.images.set_docker(&config.name, Arc::clone(&docker));
        config.runtimes.insert(RuntimeKind::Container, RuntimeInfo::docker());
        config.resolver = machine_resolver();
        config.processes_max = Some(PROCESSES_MAX);
        Ok(Arc::new(Runtimes { wasm, docker, known }))
    }

    #[cfg(not(feature = "wasm"))]
    async fn real_node(
        &self,
        _process: &Arc<Process>,
        _news: &mpsc::UnboundedSender<News>,
        _site: &Site,
        _id: MemberId,
    ) -> Result<Joining, Error> {
        Err(Error::new(
            ErrorKind::Invalid,
            "this build has no container runtime: enable the feature `wasm`, or use fake nodes",
        ))
    }
}

/// What the bootstrap makes last: once it is there the cluster can be used.
pub(crate) fn is_bootstrapped(view: &coracle_store::View) -> bool {
    view.object(&ObjectKey::new(SERVICES, "default", "kubernetes")).is_some()
        && view.object(&ObjectKey::new(NAMESPACES, "", "default")).is_some()
}

#[cfg(feature = "docker")]
fn docker_options(site: &Site, config: &NodeConfig, socket: &Path) -> coracle_runtime_docker::DockerOptions {
    let cluster = site.identity.short_name();
    let mut options = coracle_runtime_docker::DockerOptions::new(cluster, &config.name, config.pod_range);
    socket.clone_into(&mut options.socket);
    options
}

fn own_cluster(directory: &DataDirectory) -> String {
    format!("{} holds a cluster of its own: join with an empty directory", directory.path().display())
}

fn random_seed() -> Result<u64, Error> {
    let token = random_token()?;
    u64::from_str_radix(&token[..16], 16).map_err(|_| Error::randomness())
}
