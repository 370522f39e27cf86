//! A connection to a running cluster: in the process, or over HTTPS as the kubeconfig or the data directory says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::config::{AuthInfo, Config};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::Which;
use crate::kubeconfig::{self, Entry};

/// What a running cluster leaves in its data directory, so that other commands find it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServerFile {
    /// `https://127.0.0.1:6443`
    pub(crate) server: String,
    /// Its process.
    pub(crate) pid: u32,
}

/// A client of a cluster: of the member that is named, and of the others where that one does not answer.
#[derive(Clone)]
pub(crate) struct Connection {
    clients: Vec<Client>,
    /// Which of them answered last.
    last: Arc<AtomicUsize>,
}

/// Where the data is kept when nobody says otherwise.
pub(crate) fn default_data_dir() -> Result<PathBuf> {
    let folder = dirs::data_dir().context("this user has no data directory; name one with --data-dir")?;
    Ok(folder.join("coracle"))
}

/// Where the keys to new data directories are kept: not with the data.
pub(crate) fn key_dir() -> Option<PathBuf> {
    Some(dirs::config_dir()?.join("coracle/keys"))
}

/// How to reach the cluster of a data directory, as far as its files say.
pub(crate) fn entry_of(data_dir: &Path) -> Result<Option<Entry>> {
    let read = |name: &str| std::fs::read_to_string(data_dir.join(name));
    let Ok(server) = read("server.json") else { return Ok(None) };
    let server: ServerFile =
        serde_json::from_str(&server).with_context(|| format!("{}/server.json is damaged", data_dir.display()))?;
    let what = || format!("cannot read {}", data_dir.display());
    let ca_certificate = read("ca.crt").with_context(what)?;
    let token = read("admin.token").with_context(what)?.trim().to_owned();
    Ok(Some(Entry { server: server.server, ca_certificate, token, servers: Vec::new() }))
}

/// The entry that a command goes by.
pub(crate) fn entry(which: &Which) -> Result<Entry> {
    if let Some(data_dir) = &which.data_dir {
        let none = || anyhow!("no cluster runs on {}; start it with `coracle up --data-dir`", data_dir.display());
        return entry_of(data_dir)?.with_context(none);
    }
    let path = kubeconfig::path(which.kubeconfig.as_deref())?;
    let none =
        || anyhow!("{} has no context {:?}; start a cluster with `coracle up`", path.display(), kubeconfig::CONTEXT);
    kubeconfig::find(&path)?.with_context(none)
}

impl Connection {
    /// A client in the process.
    pub(crate) fn inside(client: Client) -> Self {
        Self { clients: vec![client], last: Arc::default() }
    }

    /// A client over HTTPS, of whichever member answers. Nothing is sent yet.
    pub(crate) fn to(entry: &Entry) -> Result<Self> {
        let others = entry.servers.iter().filter(|server| **server != entry.server);
        let servers = std::iter::once(&entry.server).chain(others);
        let clients = servers.map(|server| client(server, entry)).collect::<Result<Vec<_>>>()?;
        Ok(Self { clients, last: Arc::default() })
    }

    /// A client of the one member that the entry names.
    pub(crate) fn to_one(entry: &Entry) -> Result<Self> {
        Ok(Self::inside(client(&entry.server, entry)?))
    }

    /// Sends a request to the member that answered last; to another where nobody listens, because then nothing was sent.
    async fn ask(&self, request: impl Fn() -> Result<Request<Body>>) -> Result<http::Response<Body>> {
        let first = self.last.load(Ordering::Relaxed);
        let mut failed = None;
        for offset in 0..self.clients.len() {
            let at = (first + offset) % self.clients.len();
            match self.clients[at].send(request()?).await {
                Ok(response) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => {
                    let unsent = is_unsent(&error);
                    failed.get_or_insert(error);
                    if !unsent {
                        break;
                    }
                }
            }
        }
        Err(failed.map_or_else(|| anyhow!("the cluster has no address"), unreachable))
    }

    /// Whether the process answers, ready or not.
    pub(crate) async fn is_alive(&self) -> bool {
        let asked = self.send(Method::GET, "/livez", None, Vec::new());
        matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok((200, _))))
    }

    /// Whether the cluster answers, with the name that its certificate must have.
    pub(crate) async fn is_ready(&self) -> bool {
        let asked = self.send(Method::GET, "/readyz", None, Vec::new());
        matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok((200, _))))
    }

    /// A request and its whole answer: the code and the body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Result<(u16, Vec<u8>)> {
        let request = || {
            let mut request = Request::builder().method(method.clone()).uri(path);
            if let Some(content_type) = content_type {
                request = request.header(http::header::CONTENT_TYPE, content_type);
            }
            request.body(Body::from(body.clone())).context("cannot make a request")
        };
        let response = self.ask(request).await?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.context("the answer broke off")?;
        Ok((code, body.to_bytes().to_vec()))
    }

    /// The same for JSON; a failure is the message of its Status.
    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<(u16, Value)> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let (code, body) = self.send(method, path, Some(content_type), body).await?;
        Ok((code, answer(code, &body)?))
    }

    /// An object or a list.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.json(Method::GET, path, "application/json", &Value::Null).await?.1)
    }

    /// An answer that is streamed, piece by piece, until `take` says that it is enough.
    pub(crate) async fn stream(&self, path: &str, mut take: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let request = || Request::builder().uri(path).body(Body::empty()).context("cannot make a request");
        let mut take_all = |data: &[u8]| Ok(take(data));
        self.receive(request, &mut take_all).await
    }

    /// What a request with a body of JSON is answered with, piece by piece to the end.
    pub(crate) async fn download(
        &self,
        path: &str,
        body: &Value,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let request = || {
            let request = Request::builder().method(Method::POST).uri(path);
            request.body(Body::from(body.to_string().into_bytes())).context("cannot make a request")
        };
        let mut take_all = |data: &[u8]| take(data).map(|()| true);
        self.receive(request, &mut take_all).await
    }

    async fn receive(
        &self,
        request: impl Fn() -> Result<Request<Body>>,
        take: &mut impl FnMut(&[u8]) -> Result<bool>,
    ) -> Result<()> {
        let response = self.ask(request).await?;
        let code = response.status().as_u16();
        let mut body = response.into_body();
        if code != 200 {
            let bytes = body.collect().await.context("the answer broke off")?.to_bytes();
            answer(code, &bytes)?;
            return Ok(());
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the answer broke off")?;
            if let Some(data) = frame.data_ref()
                && !take(data)?
            {
                break;
            }
        }
        Ok(())
    }
}

/// A client of one member.
fn client(server: &str, entry: &Entry) -> Result<Client> {
    let uri = server.parse().with_context(|| format!("{server:?} is no address of a server"))?;
    let mut config = Config::new(uri);
    config.root_cert = Some(certificates(&entry.ca_certificate)?);
    config.auth_info = AuthInfo { token: Some(entry.token.clone().into()), ..AuthInfo::default() };
    config.connect_timeout = Some(Duration::from_secs(5));
    Client::try_from(config).context("cannot make a client")
}

/// Whether a request failed before anything of it was sent.
fn is_unsent(error: &kube::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        cause = error.source();
    }
    false
}

fn unreachable(error: kube::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    anyhow!("the cluster cannot be reached: {cause}")
}

/// The value of a successful answer, or the message of a failure.
fn answer(code: u16, body: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    if (200..300).contains(&code) {
        return Ok(value);
    }
    match value["message"].as_str() {
        Some(message) => bail!("{message}"),
        None => bail!("the server answered {code}"),
    }
}

/// The DER bytes of PEM certificates.
fn certificates(pem: &str) -> Result<Vec<Vec<u8>>> {
    use base64::Engine as _;
    let mut found = Vec::new();
    for block in pem.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let text: String = block.split("-----END").next().unwrap_or_default().split_whitespace().collect();
        let der =
            base64::engine::general_purpose::STANDARD.decode(text).context("the cluster's certificate is damaged")?;
        found.push(der);
    }
    Ok(found)
}
