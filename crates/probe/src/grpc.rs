//! gRPC probes: one call of `grpc.health.v1.Health/Check`.
//!
//! The call is two messages of one field each, so they are written and read here: <https://grpc.io/docs/guides/health-checking/>.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use coracle_node::runtime::ProbeResult;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use crate::{Connect, authority, open};

/// The most of an answer that is read: it is a few bytes.
const ANSWER_MAX: usize = 4 << 10;
/// gRPC's own number for a method that is not there.
const UNIMPLEMENTED: &str = "12";
/// What a service answers, by number.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

pub(crate) async fn probe(
    connect: &impl Connect,
    address: IpAddr,
    port: u16,
    service: &str,
    timeout: Duration,
) -> ProbeResult {
    let at = authority(address, None, port);
    match tokio::time::timeout(timeout, check(connect, &at, port, service)).await {
        Err(_) => ProbeResult::Failure(format!(
            "timeout: failed to connect service {at:?} within {}s: context deadline exceeded",
            timeout.as_secs_f64()
        )),
        Ok(Err(error)) => ProbeResult::Failure(error),
        Ok(Ok(1)) => ProbeResult::Success,
        Ok(Ok(status)) => {
            let name = STATUSES.get(usize::from(status)).map_or_else(|| status.to_string(), |name| (*name).to_owned());
            ProbeResult::Failure(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

async fn check(connect: &impl Connect, at: &str, port: u16, service: &str) -> Result<u8, String> {
    let failed = |error: &dyn std::fmt::Display| format!("error: health rpc failed: {error}");
    let stream = open(connect, None, port).await.map_err(|why| format!("error: failed to connect to {at}: {why}"))?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream.compat())).await.map_err(|error| failed(&error))?;
    let request = Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(question(service)))
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if answer.status() != 200 {
            return Err(failed(&format!("HTTP status {}", answer.status())));
        }
        refused(answer.headers())?;
        let collected = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|error| failed(&error))?;
        if let Some(trailers) = collected.trailers() {
            refused(trailers)?;
        }
        status(&collected.to_bytes()).ok_or_else(|| failed(&"the answer is no HealthCheckResponse"))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// Whether gRPC says that the call failed.
fn refused(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => Ok(()),
        UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            text("grpc-message")
        )),
        code => Err(format!("error: health rpc failed: rpc error: code = {code} desc = {}", text("grpc-message"))),
    }
}

/// A `HealthCheckRequest` in its frame: field 1 is the service's name.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// The status of a `HealthCheckResponse` in its frame: field 1, where it is not zero.
fn status(frame: &[u8]) -> Option<u8> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    match message {
        _ if head[0] != 0 || message.len() != length as usize => None,
        [] => Some(0),
        [0x08, status, ..] if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_service_in_a_frame() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("web")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b']);
        assert_eq!(question(&"x".repeat(200))[5..8], [0x0a, 0xc8, 1]);
    }

    #[test]
    fn an_answer_has_a_status_or_is_none() {
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        for broken in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 9, 8, 1], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 7]] {
            assert_eq!(status(broken), None);
        }
    }
}
