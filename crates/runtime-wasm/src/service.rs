//! `wasi:http` services: connections to the container's ports are served over HTTP/1.1, each request by an instance of
//! its own (0.2) or by one that answers others, too (0.3, `reuse.rs`).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use coracle_node::runtime::{ByteStream, Exit};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::AbortHandle;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use crate::container::{Container, Ending, asked};
use crate::exchange::{Asked, Exchanges};
use crate::exit;
use crate::guest::{Guest, settle_last_fuel};
use crate::pipe;
use crate::program::Handler;
use crate::reuse::{self, Fresh, Pool, Seen};
use crate::shared::Shared;
use crate::slices::Sliced;

/// The port of a service whose container names none.
const DEFAULT_PORT: u16 = 8080;
/// The most connections of one service at one time; each holds two buffers of 64 KiB at most.
const CONNECTIONS_MAX: u32 = 1_024;

/// How a service treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Each connection ends after the request that it is at.
    Draining,
    /// Everything ends now.
    Closed,
}

/// A running service.
pub(crate) struct Service {
    shared: Arc<Shared>,
    container: Arc<Container>,
    handler: Handler,
    /// The instances of a handler that are reused.
    pool: Pool,
    phase: watch::Sender<Phase>,
    connections: Arc<Semaphore>,
    /// A request ended in a way that ends the container.
    fatal: watch::Sender<Option<Exit>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("container", self.container.id()).finish_non_exhaustive()
    }
}

/// Serves until the container is asked to end.
pub(crate) async fn serve(shared: &Arc<Shared>, container: &Arc<Container>, handler: Handler) -> Exit {
    let service = Arc::new(Service {
        shared: Arc::clone(shared),
        container: Arc::clone(container),
        handler,
        pool: Pool::default(),
        phase: watch::Sender::new(Phase::Serving),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)),
        fatal: watch::Sender::new(None),
    });
    let ports = if container.ports.is_empty() { vec![DEFAULT_PORT] } else { container.ports.clone() };
    let pod = &container.id().pod;
    if let Err(port) = shared.network.serve(pod, &ports, &service) {
        let message = format!("listen tcp :{port}: bind: address already in use");
        container.stderr(shared).line(&message);
        return exit::failed(&message);
    }
    let exit = service.serve_to_the_end(&ports).await;
    shared.network.unserve(pod, &ports);
    service.phase.send_replace(Phase::Closed);
    exit
}

impl Service {
    /// A connection to it; `None`: it has as many as it may.
    pub(crate) fn connect(self: &Arc<Self>) -> Option<ByteStream> {
        let permit = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        let exchanges = Arc::<Exchanges>::default();
        let (theirs, ours) = pipe::pair(&exchanges);
        self.shared.io.spawn(Arc::clone(self).connection(ours, exchanges, permit));
        Some(theirs)
    }

    async fn serve_to_the_end(&self, ports: &[u16]) -> Exit {
        let ending = tokio::select! {
            ending = asked(&self.container, Ending::Stop) => ending,
            exit = self.failed() => return exit,
        };
        if ending == Ending::Kill {
            return exit::killed();
        }
        self.shared.network.unserve(&self.container.id().pod, ports);
        self.phase.send_replace(Phase::Draining);
        tokio::select! {
            _ = self.connections.acquire_many(CONNECTIONS_MAX) => exit::code(0),
            _ = asked(&self.container, Ending::Kill) => exit::killed(),
            exit = self.failed() => exit,
        }
    }

    async fn failed(&self) -> Exit {
        let mut fatal = self.fatal.subscribe();
        let exit = fatal.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        match exit {
            Some(exit) => exit,
            // The sender is in `self`: this is not reached.
            None => std::future::pending().await,
        }
    }

    async fn reached(&self, phase: Phase) {
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Serves one connection.
    async fn connection(
        self: Arc<Self>,
        stream: DuplexStream,
        exchanges: Arc<Exchanges>,
        _permit: OwnedSemaphorePermit,
    ) {
        let service = service_fn(|request: Request<Incoming>| {
            let (service, exchange) = (Arc::clone(&self), exchanges.begin(&request));
            let request = request.map(|body| exchanges.request(body));
            async move { Ok::<_, Infallible>(exchange.response(service.respond(request).await)) }
        });
        let mut connection =
            pin!(http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => return,
            // The end of what a client sends may be only half of it; nobody tells hyper of the other half.
            () = exchanges.left() => return,
            () = self.reached(Phase::Draining) => {
                exchanges.drain();
                connection.as_mut().graceful_shutdown();
            }
        }
        tokio::select! {
            _ = connection => {}
            () = exchanges.left() => {}
            () = self.reached(Phase::Closed) => {}
        }
    }

    /// Answers one request.
    async fn respond(self: &Arc<Self>, request: Request<Asked>) -> Response<WasiBody> {
        if request.uri().authority().is_none() && !request.headers().contains_key(http::header::HOST) {
            return plain(StatusCode::BAD_REQUEST, "the request names no host\n");
        }
        match &self.handler {
            Handler::Wasi2(handler) => self.respond_alone(handler.clone(), request).await,
            Handler::Wasi3(handler) => self.respond_among_others(handler, request).await,
        }
    }

    /// Answers one request with an instance that answers others, too.
    async fn respond_among_others(
        self: &Arc<Self>,
        handler: &ServicePre<Guest>,
        mut request: Request<Asked>,
    ) -> Response<WasiBody> {
        if !name_host(&mut request) {
            return plain(StatusCode::BAD_REQUEST, "the request's host is none\n");
        }
        let Some((seat, fresh)) = self.pool.seat(&self.shared.instances).await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the node is shutting down\n");
        };
        if let Some(fresh) = fresh
            && let Err(error) = self.start(handler, fresh)
        {
            return self.broken(&error);
        }
        match seat.answer(request).await {
            Some(Ok(response)) => response,
            Some(Err(code)) => {
                self.container.stderr(&self.shared).line(&format!("the guest answered with an error: {code}"));
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the guest answered with an error\n")
            }
            None => plain(StatusCode::INTERNAL_SERVER_ERROR, "the guest ended without an answer\n"),
        }
    }

    /// Starts an instance that answers many requests.
    fn start(self: &Arc<Self>, handler: &ServicePre<Guest>, fresh: Fresh) -> wasmtime::Result<()> {
        let Fresh { worker, queue, permit } = fresh;
        let store = self.container.store(&self.shared)?;
        let guest = reuse::work(store, handler.clone(), queue, Arc::clone(&worker));
        let guest = Seen::new(guest, Arc::clone(&worker));
        let guest = Sliced::new(guest, Arc::clone(&self.container.account), self.shared.slicing.clone());
        let service = Arc::clone(self);
        self.shared.guests.spawn(async move {
            let _permit = permit;
            tokio::select! {
                biased;
                () = service.reached(Phase::Closed) => {}
                () = worker.abandoned() => {}
                result = guest => if let Err(error) = result { service.broken(&error); },
            }
        });
        Ok(())
    }

    /// Answers one request with an instance of its own.
    async fn respond_alone(self: &Arc<Self>, handler: ProxyPre<Guest>, request: Request<Asked>) -> Response<WasiBody> {
        let Ok(permit) = Arc::clone(&self.shared.instances).acquire_owned().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the node is shutting down\n");
        };
        let (sender, receiver) = oneshot::channel();
        let store = match self.container.store(&self.shared) {
            Ok(store) => store,
            Err(error) => return self.broken(&error),
        };
        let guest = handle(store, handler, request, sender);
        let guest = Sliced::new(guest, Arc::clone(&self.container.account), self.shared.slicing.clone());
        let service = Arc::clone(self);
        let task = self.shared.guests.spawn(async move {
            let _permit = permit;
            tokio::select! {
                biased;
                () = service.reached(Phase::Closed) => {}
                result = guest => if let Err(error) = result { service.broken(&error); },
            }
        });
        // A client that goes away before its answer takes the guest with it.
        let guard = AbortOnDrop(Some(task.abort_handle()));
        let answer = receiver.await;
        match answer {
            Ok(Ok(response)) => {
                guard.keep();
                response
            }
            Ok(Err(code)) => {
                guard.keep();
                self.container.stderr(&self.shared).line(&format!("the guest answered with an error: {code}"));
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the guest answered with an error\n")
            }
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the guest ended without an answer\n"),
        }
    }

    /// Notes how a request failed: in the log, and as the container's end if it was over a limit.
    fn broken(&self, error: &wasmtime::Error) -> Response<WasiBody> {
        self.container.stderr(&self.shared).line(&format!("a request failed: {error:?}"));
        if let Some(exit) = exit::over_a_limit(error) {
            self.fatal.send_replace(Some(exit));
        }
        plain(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed\n")
    }
}

struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

type Answer = oneshot::Sender<Result<Response<WasiBody>, ErrorCode>>;

async fn handle(
    mut store: Store<Guest>,
    handler: ProxyPre<Guest>,
    request: Request<Asked>,
    answer: Answer,
) -> wasmtime::Result<()> {
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let out = store.data_mut().http().new_response_outparam(answer)?;
    let result = match handler.instantiate_async(&mut store).await {
        Ok(proxy) => proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await,
        Err(error) => Err(error),
    };
    settle_last_fuel(&store);
    result
}

/// Puts the host that a request names into its address, where handlers of 0.3 look for it; false where it is none.
fn name_host(request: &mut Request<Asked>) -> bool {
    let mut parts = request.uri().clone().into_parts();
    parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
    if parts.authority.is_none() {
        let host = request.headers().get(http::header::HOST);
        parts.authority = host.and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok());
    }
    match http::Uri::from_parts(parts) {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return false,
    }
    true
}

fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
