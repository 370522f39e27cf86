//! A running cluster, as an embedding program sees it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use coracle_api::registry::Registry;
use coracle_api::{Method, Request, Resource, Response, Status, UserInfo};
use coracle_base::Timestamp;
use coracle_engine::{MemberRecord, Wants};
use coracle_raft::MemberId;
use coracle_store::View;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::brain::Message;
use crate::member::{Member, Site};
use crate::process::{Order, Process};
use crate::services::Opens;
use crate::{ClusterBuilder, Error, ErrorKind, builder, presence};

/// How long a member that starts again may take to hear of a leader and to catch up.
const CATCH_UP_WAIT: Duration = Duration::from_secs(30);
/// How long a transfer of the lead may take.
const LEAD_WAIT: Duration = Duration::from_secs(10);
/// Why locks are not poisoned.
const UNBROKEN: &str = "nothing panics while it holds the lock";

/// What an operation on a cluster gives.
pub type ClusterResult<T> = Result<T, Error>;

/// A running cluster. Dropping it stops it without waiting; [`Self::shutdown`] waits until everything is written.
pub struct Cluster {
    site: Arc<Site>,
    members: RwLock<BTreeMap<MemberId, Member>>,
    /// Members that were killed and still write what they have.
    ending: Mutex<BTreeMap<MemberId, JoinHandle<()>>>,
    /// Where the DNS is served.
    dns_address: Mutex<Option<SocketAddr>>,
    /// The member that was asked last: it answers, if only that it stops, when none runs.
    last: Mutex<Arc<Process>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster to be set up.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    pub(crate) fn new(site: Arc<Site>, members: BTreeMap<MemberId, Member>) -> Self {
        let first = members.values().next().map(|member| Arc::clone(&member.process));
        let last = Mutex::new(first.expect("a cluster has a member"));
        Self { site, members: RwLock::new(members), ending: Mutex::default(), dns_address: Mutex::default(), last }
    }

    /// The first member that runs.
    pub(crate) fn process(&self) -> Arc<Process> {
        let mut last = self.last.lock().expect(UNBROKEN);
        if let Some(member) = self.members.read().expect(UNBROKEN).values().next() {
            *last = Arc::clone(&member.process);
        }
        Arc::clone(&last)
    }

    /// Puts the members of a new cluster into its list.
    pub(crate) async fn list_members(&self) -> ClusterResult<()> {
        let network = self.site.peers.network();
        if self.site.is_single() && network.is_none() {
            return Ok(());
        }
        for id in self.site.members() {
            let process = self.process();
            let view = process.view();
            let address = self.site.addresses.read().expect(UNBROKEN).get(&id).copied();
            let found = MemberRecord::find(&view, id);
            let record = MemberRecord {
                id,
                name: self.site.name_of(id),
                addresses: match (network, address) {
                    (Some(_), Some(address)) => presence::told_of(address),
                    (_, address) => address.iter().map(ToString::to_string).collect(),
                },
                wants: found.as_ref().map_or(Wants::Voter, |found| found.wants),
                identity: network.map_or_else(String::new, |network| network.credentials.identity()),
            };
            // A restored or recovered cluster knows this member by what another machine had.
            let transaction = match &found {
                None => record.create(&view),
                Some(found) if found.identity != record.identity || found.name != record.name => record.update(&view),
                Some(_) => None,
            };
            if let Some(transaction) = transaction {
                // Who is there already was put there by a start before this one.
                process.propose(transaction).await.map(drop)?;
            }
        }
        Ok(())
    }

    /// Starts what belongs to a member beside its brain: its node, its listener, node ports.
    pub(crate) async fn complete(
        &self,
        id: MemberId,
        listener: Option<(TcpListener, SocketAddr)>,
    ) -> ClusterResult<()> {
        let Some(mut member) = self.members.write().expect(UNBROKEN).remove(&id) else { return Ok(()) };
        let completed = self.start_rest(&mut member, listener).await;
        self.members.write().expect(UNBROKEN).insert(id, member);
        completed
    }

    async fn start_rest(&self, member: &mut Member, listener: Option<(TcpListener, SocketAddr)>) -> ClusterResult<()> {
        let settings = &self.site.settings;
        settings.start_node(&self.site, member).await?;
        if let Some((listener, address)) = listener {
            member.serve(&self.site, listener, address)?;
        }
        let opens = if self.site.is_single() { Opens::Always } else { Opens::WhileLeading };
        crate::services::start(member, settings.node_ports(), opens);
        let ingress = settings.ingress_options();
        if ingress.http.is_some() || ingress.https.is_some() {
            crate::ingress::start(member, ingress, opens)?;
        }
        #[cfg(target_os = "linux")]
        if settings.wants_host_network() {
            crate::host_network::start(member);
        } else {
            #[cfg(feature = "docker")]
            if settings.wants_docker() {
                crate::host_network::start_without(member);
            }
        }
        if let Some(address) = settings.dns_options().address
            && Some(member.id) == self.site.members().next()
        {
            let own = crate::dns::start(member, address).await.map_err(|source| {
                Error::new(ErrorKind::Listen, format!("cannot serve the DNS at {address}")).because(source)
            })?;
            *self.dns_address.lock().expect(UNBROKEN) = Some(own);
        }
        Ok(())
    }

    /// Whether this process's member was removed from the cluster, which it is no part of any more.
    pub fn was_removed(&self) -> bool {
        self.process().removed.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether other machines can join: the cluster keeps its state, listens, and has one member in this process.
    pub fn can_grow(&self) -> bool {
        self.site.peers.network().is_some()
    }

    /// The ids of the members that this process has, running or not.
    pub fn members(&self) -> Vec<u64> {
        self.site.members().map(|id| id.0).collect()
    }

    /// One member of the cluster, by its id; 1 is the first.
    ///
    /// # Panics
    ///
    /// When there is no such member.
    #[track_caller]
    pub fn member(&self, id: u64) -> ClusterMember<'_> {
        let id = MemberId(id);
        assert!(self.site.members().any(|member| member == id), "the cluster has no member {}", id.0);
        ClusterMember { cluster: self, id }
    }

    /// The member that leads, as far as those that run know.
    pub fn leader(&self) -> Option<u64> {
        self.members.read().expect(UNBROKEN).values().find(|member| *member.leads.borrow()).map(|member| member.id.0)
    }

    pub(crate) async fn until_bootstrapped(&self, timeout: Duration) -> ClusterResult<()> {
        self.until(timeout, "the API server does not come up", builder::is_bootstrapped).await
    }

    async fn until(&self, timeout: Duration, what: &str, reached: impl FnMut(&View) -> bool) -> ClusterResult<()> {
        let mut views = self.process().views.clone();
        match tokio::time::timeout(timeout, views.wait_for(reached)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Stopped, "the cluster has stopped")),
            Err(_) => Err(Error::new(ErrorKind::Timeout, format!("{what} within {} s", timeout.as_secs_f32()))),
        }
    }

    /// The address that HTTPS is served at, when the cluster listens.
    pub fn address(&self) -> Option<SocketAddr> {
        let addresses = self.site.addresses.read().expect(UNBROKEN);
        let running = self.members.read().expect(UNBROKEN);
        running.keys().find_map(|id| addresses.get(id)).or_else(|| addresses.values().next()).copied()
    }

    /// The address that the cluster's DNS is served at, when [`ClusterBuilder::dns_address`] asked for one.
    pub fn dns_address(&self) -> Option<SocketAddr> {
        *self.dns_address.lock().expect(UNBROKEN)
    }

    /// What of the host's network this process cannot have ([`ClusterBuilder::host_network`]), as a sentence.
    pub fn host_network_missing(&self) -> Option<String> {
        #[cfg(target_os = "linux")]
        return crate::host_network::missing();
        #[cfg(not(target_os = "linux"))]
        return Some(
            "only on Linux are containers and this machine led to Services and pods by their addresses".into(),
        );
    }

    /// The bearer token of the user `admin`.
    pub fn token(&self) -> &str {
        &self.site.identity.token
    }

    /// The certificate of the cluster's authority, PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.site.identity.authority.certificate
    }

    /// The cluster's wall clock, by which its objects are stamped; under [`crate::ClusterClock::Virtual`] not the machine's.
    pub fn now(&self) -> SystemTime {
        let since = self.site.clock.now().wall.saturating_since(Timestamp::EPOCH);
        SystemTime::UNIX_EPOCH + since
    }

    /// Makes a request as the user `admin` and waits for its whole answer. Watches and logs have answers without end: use a
    /// client for these.
    pub async fn request(&self, mut request: Request) -> Response {
        if request.user == UserInfo::default() {
            request.user = UserInfo::admin("admin");
        }
        self.process().respond(request).await
    }

    /// Applies every object of a YAML or JSON text, in order, as `kubectl apply --server-side` does, with the field manager
    /// `coracle`. Objects without a namespace go to `default`.
    ///
    /// # Errors
    ///
    /// For a text that is no YAML, a kind that is not served, and the first refusal of the API server; what was applied
    /// before stays.
    pub async fn apply(&self, manifest: &str) -> ClusterResult<Vec<Value>> {
        let documents = coracle_api::yaml::parse_documents(manifest.as_bytes())
            .map_err(|source| Error::new(ErrorKind::Invalid, source.to_string()))?;
        let mut applied = Vec::new();
        for document in documents {
            let path = object_path(&document)?;
            let request = Request::new(Method::Patch, path, UserInfo::admin("admin"))
                .query("fieldManager", "coracle")
                .query("force", "true")
                .query("fieldValidation", "Strict")
                .content_type("application/apply-patch+yaml")
                .json(document);
            let response = self.process().respond(request).await;
            match response.failure() {
                Some(status) => return Err(Error::api(&status)),
                None => applied.push(response.value()),
            }
        }
        Ok(applied)
    }

    /// Waits until an object (`deployment/web`, or `deployment/web` in another namespace as `shop/deployment/web`) has a
    /// condition that is True (`Available`), or a status field of a value (`phase=Running`, `readyReplicas=3`).
    ///
    /// # Errors
    ///
    /// When it has not within `timeout`, or when the kind is not served.
    pub async fn wait_for(&self, object: &str, condition: &str, timeout: Duration) -> ClusterResult<()> {
        let parts: Vec<&str> = object.split('/').collect();
        let (namespace, kind, name) = match parts.as_slice() {
            [kind, name] => ("default", *kind, *name),
            [namespace, kind, name] => (*namespace, *kind, *name),
            _ => return Err(Error::new(ErrorKind::Invalid, format!("{object:?} is not KIND/NAME"))),
        };
        let resource = find_resource(kind)?;
        let namespace = if resource.namespaced { namespace } else { "" };
        let key = coracle_api::ObjectKey::new(resource.group_resource.clone(), namespace, name);
        let met = |view: &View| view.object(&key).is_some_and(|object| is_met(&object.value(None), condition));
        self.until(timeout, &format!("{object} is not {condition}"), met).await
    }

    /// Gives the cluster's nodes an image: a WebAssembly module or component, binary or text.
    ///
    /// # Errors
    ///
    /// When the bytes are no WebAssembly, the name is no image name, or the cluster has no node that runs WebAssembly.
    pub fn add_image(&self, name: &str, bytes: &[u8]) -> ClusterResult<()> {
        self.site.images.import(name, bytes).map(|_| ()).map_err(|status| Error::api(&status))
    }

    /// Saves a backup of everything that was acknowledged before now into a new file that only this user may read:
    /// [`crate::restore_backup`] makes a data directory of it, here or on another machine. It holds the cluster's keys, and is sealed
    /// with a passphrase or, without one, with the keys to the data directory.
    ///
    /// # Errors
    ///
    /// When the file is there already or cannot be written, when a cluster in memory gets no passphrase, and when there is no leader.
    pub async fn save_backup(&self, file: &Path, passphrase: Option<&str>) -> ClusterResult<()> {
        let pieces = self.process().save(passphrase.map(str::to_owned)).await.map_err(|status| Error::api(&status))?;
        let path = file.to_owned();
        let written = tokio::task::spawn_blocking(move || crate::backup::write(&path, pieces));
        written.await.map_err(|source| Error::new(ErrorKind::Stopped, "the backup was not written").because(source))?
    }

    /// A `kube::Client` that talks to the cluster without a socket, as the user `admin`.
    #[cfg(feature = "client")]
    pub fn client(&self) -> kube::Client {
        client_of(self.process())
    }

    /// Why a member of this process could not go on, if one could not: its disk failed, or what it has cannot be read. It has stopped, and
    /// the cluster with it when that was its only one.
    pub fn failure(&self) -> Option<&str> {
        self.site.failure.get().map(String::as_str)
    }

    /// Waits until the cluster is told to stop, or cannot go on ([`Self::failure`]).
    pub async fn stopped(&self) {
        self.site.shutdown.cancelled().await;
    }

    /// Stops and starts members as clients ask (`coracle members stop`), for ever. Without somebody who does, such requests are refused.
    pub async fn take_orders(&self) {
        let mut orders = self.site.orders.1.lock().await;
        while let Some(order) = orders.recv().await {
            let (id, done) = match order {
                Order::Stop(id) => {
                    self.member(id.0).stop().await;
                    (id, Ok(()))
                }
                Order::Start(id) => (id, self.member(id.0).start().await),
            };
            if let Err(error) = done {
                tracing::error!(member = id.0, %error, "a member does not start");
            }
        }
    }

    /// Stops the nodes and the API server and waits until everything is written. State that is kept in a directory is all
    /// there at the next start.
    pub async fn shutdown(self) {
        let single = self.members.read().expect(UNBROKEN).values().next().map(|member| Arc::clone(&member.process));
        if let Some(process) = single.filter(|_| self.site.is_single()) {
            process.hand_over().await;
        }
        self.site.shutdown.cancel();
        let members = std::mem::take(&mut *self.members.write().expect(UNBROKEN));
        let stopping = members.into_values().map(|member| member.stop(&self.site));
        futures_util::future::join_all(stopping).await;
        let ending = std::mem::take(&mut *self.ending.lock().expect(UNBROKEN));
        futures_util::future::join_all(ending.into_values()).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.site.shutdown.cancel();
    }
}

#[cfg(feature = "client")]
fn client_of(process: Arc<Process>) -> kube::Client {
    use tower::ServiceExt as _;
    let trusted = crate::http::Trusted(UserInfo::admin("admin"));
    let router = crate::http::router(process);
    let service = router.map_request(move |request: ::http::Request<kube::client::Body>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(trusted.clone());
        request
    });
    kube::Client::new(service, "default")
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// The index up to which it knows the log to be decided.
    pub commit: u64,
    /// The index up to which its state is.
    pub applied: u64,
}

/// One member of a cluster.
#[derive(Clone, Copy)]
pub struct ClusterMember<'a> {
    cluster: &'a Cluster,
    id: MemberId,
}

impl std::fmt::Debug for ClusterMember<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterMember").field("id", &self.id.0).finish_non_exhaustive()
    }
}

impl ClusterMember<'_> {
    fn process(&self) -> ClusterResult<Arc<Process>> {
        let members = self.cluster.members.read().expect(UNBROKEN);
        let stopped = || Error::new(ErrorKind::Stopped, format!("member {} does not run", self.id.0));
        members.get(&self.id).map(|member| Arc::clone(&member.process)).ok_or_else(stopped)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process().is_ok()
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.process().is_ok_and(|process| *process.leads.borrow())
    }

    /// The address that it serves HTTPS at, where the cluster listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.cluster.site.addresses.read().expect(UNBROKEN).get(&self.id).copied()
    }

    /// A `kube::Client` of this member, without a socket, as the user `admin`.
    ///
    /// # Errors
    ///
    /// When it does not run.
    #[cfg(feature = "client")]
    pub fn client(&self) -> ClusterResult<kube::Client> {
        Ok(client_of(self.process()?))
    }

    /// Makes a request to this member as the user `admin` and waits for its whole answer.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn request(&self, mut request: Request) -> ClusterResult<Response> {
        if request.user == UserInfo::default() {
            request.user = UserInfo::admin("admin");
        }
        Ok(self.process()?.respond(request).await)
    }

    /// How it stands.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn status(&self) -> ClusterResult<MemberStatus> {
        let (reply, status) = oneshot::channel();
        let stopped = |_| Error::new(ErrorKind::Stopped, format!("member {} does not run", self.id.0));
        let process = self.process()?;
        let _ = process.brain.send(Message::Status(reply)).await;
        let status = status.await.map_err(stopped)?;
        Ok(MemberStatus {
            role: format!("{:?}", status.role).to_lowercase(),
            term: status.term,
            commit: status.commit,
            applied: status.applied,
        })
    }

    /// Asks that it leads, and waits until it does.
    ///
    /// # Errors
    ///
    /// When it does not run, or does not come to lead within ten seconds: it may be too far behind, or have no vote.
    pub async fn lead(&self) -> ClusterResult<()> {
        let process = self.process()?;
        let _ = process.brain.send(Message::TransferLead(self.id)).await;
        let mut leads = process.leads.clone();
        let led = tokio::time::timeout(LEAD_WAIT, leads.wait_for(|leads| *leads)).await;
        match led {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(ErrorKind::Timeout, format!("member {} did not come to lead", self.id.0))),
        }
    }

    /// Kills it: nobody hears of it any more, requests under way have no answer, its node's pods are gone. It keeps what was durable,
    /// in memory too. Nothing happens when it does not run.
    pub fn kill(&self) {
        let member = self.cluster.members.write().expect(UNBROKEN).remove(&self.id);
        if let Some(member) = member {
            member.cut(&self.cluster.site);
            let site = Arc::clone(&self.cluster.site);
            let ending = tokio::spawn(async move { member.stop(&site).await });
            self.cluster.ending.lock().expect(UNBROKEN).insert(self.id, ending);
        }
    }

    /// Stops it and waits until everything is written; before that another member leads, if this one does and another can. Nothing
    /// happens when it does not run.
    pub async fn stop(&self) {
        if let Ok(process) = self.process() {
            process.hand_over().await;
        }
        let member = self.cluster.members.write().expect(UNBROKEN).remove(&self.id);
        if let Some(member) = member {
            member.stop(&self.cluster.site).await;
        }
    }

    /// Starts it again, from what it kept; returns when it has caught up and its node is there. What was imported into its image store
    /// while the cluster is in memory has to be imported again.
    ///
    /// # Errors
    ///
    /// When it runs, its address is taken, its data cannot be used, or it does not hear of a leader in time.
    pub async fn start(&self) -> ClusterResult<()> {
        let (cluster, id) = (self.cluster, self.id);
        if self.is_running() {
            return Err(Error::new(ErrorKind::Invalid, format!("member {} runs already", id.0)));
        }
        let ending = cluster.ending.lock().expect(UNBROKEN).remove(&id);
        if let Some(ending) = ending {
            let _ = ending.await;
        }
        let listener = match self.address() {
            Some(address) => Some((crate::http::listen::bind(address).await?, address)),
            None => None,
        };
        let member = Member::begin(&cluster.site, id, self.address())?;
        let mut views = member.process.views.clone();
        cluster.members.write().expect(UNBROKEN).insert(id, member);
        let current = views.wait_for(builder::is_bootstrapped);
        let started = match tokio::time::timeout(CATCH_UP_WAIT, current).await {
            Ok(Ok(_)) => cluster.complete(id, listener).await,
            Ok(Err(_)) => Err(Error::new(ErrorKind::Stopped, format!("member {} was stopped", id.0))),
            Err(_) => {
                let what = format!("member {} hears of no leader within {} s", id.0, CATCH_UP_WAIT.as_secs());
                Err(Error::new(ErrorKind::Timeout, what))
            }
        };
        if started.is_err() {
            // Half a member would be in the way of the next try.
            self.stop().await;
        }
        started
    }
}

/// A resource by any of its names: plural, singular, short name or kind.
fn find_resource(name: &str) -> ClusterResult<Resource> {
    let lower = name.to_lowercase();
    let registry = Registry::builtin();
    let named = |resource: &&Resource| {
        resource.group_resource.resource == lower || resource.singular == lower || resource.short_names.contains(&lower)
    };
    registry
        .resources()
        .iter()
        .find(named)
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("the server doesn't have a resource type {name:?}")))
}

/// The path that an object of a manifest is applied at; objects without a namespace go to `default`.
///
/// # Errors
///
/// When it has no apiVersion, kind or name, or its kind is not served.
pub fn object_path(object: &Value) -> ClusterResult<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let name = text(&object["metadata"]["name"]);
    if api_version.is_empty() || kind.is_empty() || name.is_empty() {
        let message = "an object of the manifest has no apiVersion, no kind or no metadata.name";
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let version = coracle_api::GroupVersion::parse(&api_version);
    let registry = Registry::builtin();
    let resource = version.as_ref().and_then(|v| registry.by_gvk(&v.group, &v.version, &kind));
    let Some(resource) = resource else {
        let message = format!("no matches for kind {kind:?} in version {api_version:?}");
        return Err(Error::new(ErrorKind::Api, message));
    };
    let root = if resource.group_resource.group.is_empty() {
        format!("/api/{api_version}")
    } else {
        format!("/apis/{api_version}")
    };
    let plural = &resource.group_resource.resource;
    if !resource.namespaced {
        return Ok(format!("{root}/{plural}/{name}"));
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    Ok(format!("{root}/namespaces/{namespace}/{plural}/{name}"))
}

/// Whether an object has a condition (`Available`, `Available=False`) or a status field of a value (`phase=Running`).
fn is_met(object: &Value, condition: &str) -> bool {
    let (name, wanted) = condition.split_once('=').unwrap_or((condition, "True"));
    let status = &object["status"];
    // A condition counts only when it is about the spec as it is now.
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    let observed = status["observedGeneration"].as_i64().unwrap_or(generation);
    if observed < generation {
        return false;
    }
    let has = |condition: &Value| condition["type"] == name && condition["status"] == wanted;
    let is_field = match &status[name] {
        Value::String(text) => text == wanted,
        Value::Null => false,
        other => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *other),
    };
    is_field || status["conditions"].as_array().is_some_and(|conditions| conditions.iter().any(has))
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::api(&status)
    }
}
