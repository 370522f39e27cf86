//! HTTP and HTTPS probes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_node::runtime::{ByteStream, ProbeResult};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use crate::{Connect, authority, open, rooted};

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Get<'a> {
    pub(crate) host: Option<&'a str>,
    pub(crate) port: u16,
    pub(crate) path: &'a str,
    pub(crate) https: bool,
    pub(crate) headers: &'a [(String, String)],
}

enum Failed {
    /// The probe cannot be made as the pod asks for it.
    Request(String),
    /// Nobody answered.
    Transport(String),
}

pub(crate) async fn probe(connect: &impl Connect, address: IpAddr, get: &Get<'_>, timeout: Duration) -> ProbeResult {
    let scheme = if get.https { "https" } else { "http" };
    let at = authority(address, get.host, get.port);
    let url = format!("{scheme}://{at}{}", rooted(get.path));
    match tokio::time::timeout(timeout, ask(connect, address, get, &at)).await {
        Err(_) => ProbeResult::Failure(format!(
            "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Ok(Err(Failed::Transport(error))) => ProbeResult::Failure(format!("Get \"{url}\": {error}")),
        Ok(Err(Failed::Request(error))) => ProbeResult::Error(error),
        Ok(Ok(200..400)) => ProbeResult::Success,
        Ok(Ok(status)) => {
            let scheme = scheme.to_uppercase();
            ProbeResult::Failure(format!("{scheme} probe failed with statuscode: {status}"))
        }
    }
}

async fn ask(connect: &impl Connect, address: IpAddr, get: &Get<'_>, authority: &str) -> Result<u16, Failed> {
    let request = request(authority, get.path, get.headers)?;
    let stream = open(connect, get.host, get.port).await.map_err(Failed::Transport)?;
    if !get.https {
        return send(stream.compat(), request).await;
    }
    let name = match get.host {
        Some(host) => ServerName::try_from(host.to_owned()).map_err(|error| Failed::Request(error.to_string()))?,
        None => ServerName::IpAddress(address.into()),
    };
    send(secure(stream, name).await.map_err(Failed::Transport)?, request).await
}

/// TLS with whoever answers: a probe checks no certificate.
async fn secure(stream: ByteStream, name: ServerName<'static>) -> Result<impl AsyncRead + AsyncWrite + Unpin, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream.compat()).await.map_err(|error| error.to_string())
}

async fn send(stream: impl AsyncRead + AsyncWrite + Unpin, request: Request<Empty<Bytes>>) -> Result<u16, Failed> {
    let transport = |error: hyper::Error| Failed::Transport(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(transport)?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    // The connection is driven until the answer's head is there; the body is nobody's.
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer.map_err(transport)?.status().as_u16()),
        closed = &mut connection => match answer.await {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) => Err(closed.map_or_else(transport, |()| transport(error))),
        }
    }
}

/// The kubelet's request: its user agent, and the pod's headers, of which `Host` replaces the address.
fn request(authority: &str, path: &str, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, Failed> {
    let invalid = |what: &str| Failed::Request(format!("invalid probe: {what}"));
    let mut request = Request::get(rooted(path)).body(Empty::new()).map_err(|error| invalid(&error.to_string()))?;
    let map = request.headers_mut();
    map.insert(http::header::HOST, HeaderValue::from_str(authority).map_err(|error| invalid(&error.to_string()))?);
    map.insert(http::header::USER_AGENT, HeaderValue::from_static("kube-probe/1.36"));
    map.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    map.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid(&format!("header {name:?}")))?;
        let value = HeaderValue::from_str(value).map_err(|_| invalid(&format!("the value of header {name}")))?;
        map.insert(name, value);
    }
    Ok(request)
}

/// Takes every certificate, and still asks for a proof of the key in it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
