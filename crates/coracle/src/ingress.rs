//! Ingresses: requests from outside go to Services by their host and path. The sockets are opened when the first Ingress of a class of
//! ours is there, on every node.
//!
//! The member that leads writes the Ingresses' status, and says in Events what they lack.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use coracle_api::events::{EventRecord, EventType};
use coracle_api::resources::{INGRESS_CLASSES, INGRESSES, NODES, SECRETS, SERVICES};
use coracle_api::{Method, ObjectKey, Request, Revision, UserInfo};
use coracle_store::View;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::DropGuard;

use crate::member::Member;
use crate::process::Process;
use crate::reporter::Reporter;
use crate::services::Opens;
use crate::tls::provider;

mod certificates;
mod listen;
mod proxy;
mod routes;

use certificates::Certificates;
use routes::{Fault, Routes};

/// The name that events come from.
const COMPONENT: &str = "ingress-controller";
/// When a socket that could not be had is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Where Ingresses are served; without an address that protocol is not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IngressOptions {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
}

/// What connections need.
#[derive(Debug)]
struct Shared {
    process: Arc<Process>,
    routes: RwLock<Arc<Routes>>,
}

impl Shared {
    fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().expect("nothing panics while it holds the lock"))
    }
}

/// Serves Ingresses of a member's cluster.
pub(crate) fn start(member: &mut Member, options: IngressOptions, opens: Opens) -> Result<(), crate::Error> {
    let process = Arc::clone(&member.process);
    let certificates = Arc::new(Certificates::new()?);
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| crate::Error::tls(&error))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&certificates) as _);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let reporter = Reporter::new(&process, COMPONENT);
    let shared = Arc::new(Shared { process, routes: RwLock::default() });
    let ingress = Ingresses {
        shared,
        certificates,
        acceptor: TlsAcceptor::from(Arc::new(config)),
        options,
        opens,
        open: BTreeMap::new(),
        told: BTreeSet::new(),
        unreadable: BTreeMap::new(),
        reporter,
    };
    member.spawn(ingress.run());
    Ok(())
}

struct Ingresses {
    shared: Arc<Shared>,
    certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
    options: IngressOptions,
    opens: Opens,
    /// The sockets, by whether they speak TLS; `None` while one cannot be had.
    open: BTreeMap<bool, Option<DropGuard>>,
    /// What was said already.
    told: BTreeSet<Fault>,
    /// The Secrets that hold no certificate, and why.
    unreadable: BTreeMap<ObjectKey, String>,
    reporter: Reporter,
}

impl Ingresses {
    async fn run(mut self) {
        let process = Arc::clone(&self.shared.process);
        let (mut views, mut leads) = (process.views.clone(), process.leads.clone());
        loop {
            let view = views.borrow_and_update().clone();
            let seen = changes(&view);
            let is_leader = *leads.borrow_and_update();
            self.follow(&view, is_leader).await;
            drop(view);
            let retry = Instant::now() + RETRY_AFTER;
            let is_incomplete = self.open.values().any(Option::is_none);
            tokio::select! {
                changed = views.wait_for(|view| changes(view) != seen) => if changed.is_err() { return },
                changed = leads.changed() => if changed.is_err() { return },
                () = sleep_until(retry), if is_incomplete => {}
                () = process.shutdown.cancelled() => return,
            }
        }
    }

    async fn follow(&mut self, view: &View, is_leader: bool) {
        let mut routes = Routes::of(view);
        let named: BTreeSet<&ObjectKey> = routes.secrets.values().collect();
        self.unreadable.retain(|secret, _| named.contains(secret));
        for secret in routes.secrets.values().collect::<BTreeSet<_>>() {
            // It may have been mended.
            if view.object(secret).is_none() {
                self.unreadable.remove(secret);
            }
        }
        let wrong = self.certificates.follow(view, &routes);
        for secret in self.certificates.readable() {
            self.unreadable.remove(&secret);
        }
        self.unreadable.extend(wrong);
        routes.blame(view, &self.unreadable);
        let is_wanted = !routes.ingresses.is_empty() && (is_leader || self.opens == Opens::Always);
        let (faults, ingresses) = (routes.faults.clone(), routes.ingresses.clone());
        *self.shared.routes.write().expect("nothing panics while it holds the lock") = Arc::new(routes);
        if is_wanted {
            self.open(view, &ingresses, is_leader).await;
        } else {
            self.open.clear();
        }
        if is_leader {
            for fault in faults.difference(&self.told) {
                let record = EventRecord::new(
                    &fault.ingress,
                    fault.uid.as_ref(),
                    EventType::Warning,
                    fault.reason,
                    fault.message.clone(),
                );
                self.reporter.report(&record).await;
            }
            self.told = faults;
            for key in &ingresses {
                self.write_status(view, key).await;
            }
        }
    }

    /// Opens the sockets that are not open yet.
    async fn open(&mut self, view: &View, ingresses: &[ObjectKey], is_leader: bool) {
        for (is_tls, address) in [(false, self.options.http), (true, self.options.https)] {
            let Some(address) = address else { continue };
            let slot = self.open.get(&is_tls);
            if slot.is_some_and(Option::is_some) {
                continue;
            }
            let is_new = slot.is_none();
            let guard = match TcpListener::bind(address).await {
                Ok(listener) => {
                    let closed = self.shared.process.shutdown.child_token();
                    let acceptor = is_tls.then(|| self.acceptor.clone());
                    tokio::spawn(listen::serve(Arc::clone(&self.shared), listener, acceptor, closed.clone()));
                    Some(closed.drop_guard())
                }
                Err(error) => {
                    if is_new {
                        tracing::warn!(%address, %error, "Ingresses are not served here");
                        if is_leader {
                            self.failed(view, ingresses, address, &error).await;
                        }
                    }
                    None
                }
            };
            self.open.insert(is_tls, guard);
        }
    }

    async fn failed(&mut self, view: &View, ingresses: &[ObjectKey], address: SocketAddr, error: &std::io::Error) {
        let node = self.shared.process.node.clone();
        for key in ingresses {
            let uid = view.object(key).and_then(|object| object.metadata().uid.clone());
            let message = format!("node {node} cannot listen on {address}: {error}; it is tried again");
            let record = EventRecord::new(key, uid.as_ref(), EventType::Warning, "FailedToListen", message);
            self.reporter.report(&record).await;
        }
    }

    /// Says in an Ingress's status where it is served: at every node that is Ready.
    async fn write_status(&self, view: &View, key: &ObjectKey) {
        let Some(object) = view.object(key) else { return };
        let is_served = self.open.values().any(Option::is_some);
        let ingress: Vec<Value> = if is_served { addresses(view) } else { Vec::new() };
        let value = object.value(None);
        let before = value["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        if before == ingress {
            return;
        }
        let wanted = if ingress.is_empty() { Value::Null } else { ingress.into() };
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{}/ingresses/{}/status", key.namespace, key.name);
        let request = Request::new(Method::Patch, path, UserInfo::controller(COMPONENT))
            .content_type("application/merge-patch+json")
            .json(json!({"status": {"loadBalancer": {"ingress": wanted}}}));
        if let Some(status) = self.shared.process.respond(request).await.failure() {
            tracing::debug!(%status, ingress = %key, "the status is not written");
        }
    }
}

/// The addresses of the nodes that are Ready, those outside where any has one.
fn addresses(view: &View) -> Vec<Value> {
    let nodes: Vec<Value> = view.list(&NODES, None).map(|node| node.value(None)).collect();
    let is_ready = |node: &&Value| {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let fake = &node["metadata"]["annotations"][crate::node::FAKE_ANNOTATION];
        fake.is_null() && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let of_type = |wanted: &str| -> BTreeSet<String> {
        let all = nodes.iter().filter(is_ready).flat_map(|n| n["status"]["addresses"].as_array().into_iter().flatten());
        all.filter(|address| address["type"] == wanted)
            .filter_map(|address| address["address"].as_str().map(str::to_owned))
            .collect()
    };
    let outside = of_type("ExternalIP");
    let all = if outside.is_empty() { of_type("InternalIP") } else { outside };
    all.into_iter().map(|address| json!({ "ip": address })).collect()
}

/// What the rules and statuses depend on.
fn changes(view: &View) -> [Revision; 5] {
    [INGRESSES, INGRESS_CLASSES, SERVICES, SECRETS, NODES].map(|resource| view.last_change(&resource))
}
