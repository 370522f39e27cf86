//! A running cluster, as an embedding program sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coracle_api::registry::Registry;
use coracle_api::{Method, Request, Resource, Response, Status, UserInfo};
use coracle_base::Timestamp;
use coracle_store::View;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::process::Process;
use crate::{ClusterBuilder, Error, ErrorKind, builder};

/// How long a shutdown waits for a task before it is dropped.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// What an operation on a cluster gives.
pub type ClusterResult<T> = Result<T, Error>;

/// How clients get in.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) authority: String,
    pub(crate) token: String,
    pub(crate) address: Option<SocketAddr>,
}

/// A running cluster. Dropping it stops it without waiting; [`Self::shutdown`] waits until everything is written.
pub struct Cluster {
    process: Arc<Process>,
    credentials: Credentials,
    brain: Option<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("address", &self.credentials.address).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster to be set up.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    pub(crate) fn new(process: Arc<Process>, credentials: Credentials, brain: JoinHandle<()>) -> Self {
        Self { process, credentials, brain: Some(brain), tasks: Vec::new() }
    }

    pub(crate) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    pub(crate) async fn until_bootstrapped(&self, timeout: Duration) -> ClusterResult<()> {
        self.until(timeout, "the API server does not come up", builder::is_bootstrapped).await
    }

    async fn until(&self, timeout: Duration, what: &str, reached: impl FnMut(&View) -> bool) -> ClusterResult<()> {
        let mut views = self.process.views.clone();
        match tokio::time::timeout(timeout, views.wait_for(reached)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::new(ErrorKind::Stopped, "the cluster has stopped")),
            Err(_) => Err(Error::new(ErrorKind::Timeout, format!("{what} within {} s", timeout.as_secs_f32()))),
        }
    }

    /// The address that HTTPS is served at, when the cluster listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.credentials.address
    }

    /// The bearer token of the user `admin`.
    pub fn token(&self) -> &str {
        &self.credentials.token
    }

    /// The certificate of the cluster's authority, PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.credentials.authority
    }

    /// The cluster's wall clock, by which its objects are stamped; under [`crate::ClusterClock::Virtual`] not the machine's.
    pub fn now(&self) -> SystemTime {
        let since = self.process.now().wall.saturating_since(Timestamp::EPOCH);
        SystemTime::UNIX_EPOCH + since
    }

    /// Makes a request as the user `admin` and waits for its whole answer. Watches and logs have answers without end: use a
    /// client for these.
    pub async fn request(&self, mut request: Request) -> Response {
        if request.user == UserInfo::default() {
            request.user = UserInfo::admin("admin");
        }
        self.process.respond(request).await
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
            let response = self.process.respond(request).await;
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
        self.process.images.import(name, bytes).map(|_| ()).map_err(|status| Error::api(&status))
    }

    /// A `kube::Client` that talks to the cluster without a socket, as the user `admin`.
    #[cfg(feature = "client")]
    pub fn client(&self) -> kube::Client {
        use tower::ServiceExt as _;
        let trusted = crate::http::Trusted(UserInfo::admin("admin"));
        let router = crate::http::router(Arc::clone(&self.process));
        let service = router.map_request(move |request: ::http::Request<kube::client::Body>| {
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(trusted.clone());
            request
        });
        kube::Client::new(service, "default")
    }

    /// Waits until the cluster is told to stop.
    pub async fn stopped(&self) {
        self.process.shutdown.cancelled().await;
    }

    /// Stops the nodes and the API server and waits until everything is written. State that is kept in a directory is all
    /// there at the next start.
    pub async fn shutdown(mut self) {
        self.process.shutdown.cancel();
        for task in self.tasks.drain(..) {
            let _ = tokio::time::timeout(SHUTDOWN_WAIT, task).await;
        }
        if let Some(brain) = self.brain.take() {
            let _ = tokio::time::timeout(SHUTDOWN_WAIT, brain).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.process.shutdown.cancel();
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
