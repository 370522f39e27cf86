//! Asking to be let in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::token::{JoinToken, ca_hash};
use super::{Admission, Application, CA_PATH, JOIN_PATH};
use crate::data_directory::DataDirectory;
use crate::identity::{Identity, certificate_in};
use crate::peers::credentials::{self, member_key};
use crate::seat::Seat;
use crate::tls::{Authority, provider};
use crate::wal::{self, Life};
use crate::{Error, ErrorKind, presence};

/// How long the member that is asked may take.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_mins(1);
/// The longest answer: a list of a thousand members.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// A name that every API server has, whatever its addresses are.
const NAME: &str = "coracle";

/// What a machine asks to join with.
#[derive(Clone, Debug)]
pub(crate) struct JoinOptions {
    /// `HOST:PORT` of any member.
    pub(crate) address: String,
    pub(crate) token: String,
    pub(crate) worker: bool,
}

/// Joins: when it returns, the directory is that of a member.
pub(crate) async fn join(
    options: &JoinOptions,
    directory: &DataDirectory,
    name: String,
    listening: SocketAddr,
) -> Result<Seat, Error> {
    let not_a_token = || {
        let what = "the join token is not one: it begins with C1 and has \"::\" and a dot in it; copy it as a whole";
        Error::new(ErrorKind::Join, what)
    };
    let token = JoinToken::parse(&options.token).ok_or_else(not_a_token)?;
    let address = options.address.trim_start_matches("https://").trim_end_matches('/');
    let authority = authority(address, &token).await?;
    let application = Application {
        credential: token.credential,
        name,
        addresses: presence::told_of(listening),
        identity: credentials::identity(&member_key(directory)?),
        worker: options.worker,
    };
    let body = serde_json::to_vec(&application).unwrap_or_default();
    let trusted = tls(rustls::ClientConfig::builder_with_provider(provider()), |builder| {
        Ok(builder.with_root_certificates(authority.roots()?).with_no_client_auth())
    })?;
    let answer = ask(address, trusted, Method::POST, JOIN_PATH, body).await?;
    let damaged = |source| Error::new(ErrorKind::Join, format!("{address} gave no sensible answer")).because(source);
    let Admission { id, name, members, identity } = serde_json::from_slice(&answer).map_err(damaged)?;
    if certificate_in(&identity) != Some(authority.certificate.as_str()) {
        return Err(Error::new(
            ErrorKind::Join,
            format!("{address} answers for another cluster than the token is for"),
        ));
    }
    let seat = Seat::joined(id, name, members);
    seat.write(directory)?;
    wal::prepare(directory, id, Life::New)?;
    // With it the directory is a member's.
    Identity::restore(directory, &identity)?;
    Ok(seat)
}

/// The authority of the cluster, if it is the one that the token names. Nothing secret is sent to learn that.
async fn authority(address: &str, token: &JoinToken) -> Result<Authority, Error> {
    let anybody = tls(rustls::ClientConfig::builder_with_provider(provider()), |builder| {
        let any = Arc::new(Anybody);
        Ok(builder.dangerous().with_custom_certificate_verifier(any).with_no_client_auth())
    })?;
    let certificate = ask(address, anybody, Method::GET, CA_PATH, Vec::new()).await?;
    let certificate = String::from_utf8_lossy(&certificate).into_owned();
    if ca_hash(&certificate).as_deref() == Some(token.ca.as_str()) {
        return Ok(Authority { certificate, key: String::new() });
    }
    let message =
        format!("{address} is not the cluster that the token is for: its authority is another; the token was not sent");
    Err(Error::new(ErrorKind::Join, message))
}

type Builder = rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVersions>;
type Versioned = rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>;

fn tls(
    builder: Builder,
    verify: impl FnOnce(Versioned) -> Result<rustls::ClientConfig, Error>,
) -> Result<TlsConnector, Error> {
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| Error::tls(&e))?;
    Ok(TlsConnector::from(Arc::new(verify(builder)?)))
}

/// A request to a member, and its answer.
async fn ask(address: &str, tls: TlsConnector, method: Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>, Error> {
    let unreachable = |source: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Join, format!("cannot reach the cluster at {address}: {source}"))
    };
    let connecting = timeout(CONNECT_WAIT, TcpStream::connect(address)).await;
    let stream = connecting.map_err(|_| unreachable(&"no answer in time"))?.map_err(|error| unreachable(&error))?;
    let name = ServerName::try_from(NAME).map_err(|e| Error::tls(&e))?;
    let stream = timeout(CONNECT_WAIT, tls.connect(name, stream)).await;
    let stream = stream.map_err(|_| unreachable(&"no answer in time"))?.map_err(|error| unreachable(&error))?;
    let asking = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static(NAME));
        sender.send_request(request).await
    };
    let response = timeout(ANSWER_WAIT, asking).await.map_err(|_| unreachable(&"no answer in time"))?;
    let response = response.map_err(|error| unreachable(&error))?;
    let code = response.status();
    let body = timeout(ANSWER_WAIT, Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect()).await;
    let body = body.map_err(|_| unreachable(&"no answer in time"))?.map_err(|error| unreachable(&error))?.to_bytes();
    if code.is_success() {
        return Ok(body.to_vec());
    }
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let why = status["message"].as_str().map_or_else(|| format!("{address} answers {code}"), str::to_owned);
    Err(Error::new(ErrorKind::Join, why))
}

/// Believes whoever answers: what is then said is compared with the token's hash before anything is sent.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
