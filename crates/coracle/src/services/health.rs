//! The health check node port of a service whose external traffic stays on the node: load balancers ask it whether to send any here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::ObjectKey;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::dialer;
use crate::process::Process;

/// How many ask at a time; more wait in the operating system's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long somebody may take to ask.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// Answers until it is closed.
pub(super) async fn serve(process: Arc<Process>, listener: TcpListener, service: ObjectKey, closed: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (process, service, closed) = (Arc::clone(&process), service.clone(), closed.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |_: Request<Incoming>| {
                let answered = answer(&process, &service);
                async move { Ok::<_, std::convert::Infallible>(answered) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WAIT)
                .serve_connection(TokioIo::new(stream), answer);
            let _ = closed.run_until_cancelled(connection).await;
            drop(permit);
        });
    }
}

/// 200 where the service has a ready endpoint on this node, 503 where it has none, with the fields that kube-proxy gives.
fn answer(process: &Process, service: &ObjectKey) -> Response<Full<Bytes>> {
    let count = dialer::ready_on(&process.view(), service, &process.node);
    let body = json!({
        "service": {"namespace": &*service.namespace, "name": &*service.name},
        "localEndpoints": count,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = if count > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response.headers_mut().insert("x-load-balancing-endpoint-weight", header::HeaderValue::from(count));
    response
}
