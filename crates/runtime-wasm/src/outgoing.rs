//! HTTP requests of guests: through the host's dialer, never through the operating system.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::Uid;
use coracle_node::runtime::{Destination, OpenError, RuntimeHost};
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::pipe::Inside;

/// How long each part of a request may take where the guest sets no limit: wasmtime's own default.
const TIMEOUT: Duration = Duration::from_mins(10);

/// What carries out a guest's requests.
#[derive(Clone)]
pub(crate) struct Outgoing {
    host: Arc<dyn RuntimeHost>,
    pod: Uid,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("pod", &self.pod).finish_non_exhaustive()
    }
}

impl Outgoing {
    pub(crate) fn new(host: Arc<dyn RuntimeHost>, pod: Uid) -> Self {
        Self { host, pod }
    }
}

type Worker = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Worker), Error>;

impl WasiHttpHooks for Outgoing {
    /// Inside a cluster plain HTTP is what a name without a scheme means.
    fn default_scheme(&mut self) -> Option<Scheme> {
        Some(Scheme::HTTP)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_failed: Worker,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(self.clone().send(request, options.unwrap_or_default()))
    }
}

impl Outgoing {
    async fn send(self, mut request: Request<WasiBody>, options: RequestOptions) -> Sent {
        if request.uri().scheme() == Some(&Scheme::HTTPS) {
            let reason = "https is not supported for requests of Wasm pods yet: use http";
            return Err(Error::InternalError(Some(reason.to_owned())));
        }
        let authority = request.uri().authority().ok_or(Error::HttpRequestUriInvalid)?;
        // An IPv6 address stands in brackets in an authority, and without them in a destination.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let to = Destination { host, port: authority.port_u16().unwrap_or(80) };
        let connecting = self.host.connect(&self.pod, to);
        let stream = tokio::time::timeout(options.connect_timeout.unwrap_or(TIMEOUT), connecting)
            .await
            .map_err(|_| Error::ConnectionTimeout)?
            .map_err(connect_error)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(Inside(stream))).await?;
        let connection = wasmtime_wasi::runtime::spawn(async move { connection.await.map_err(Error::from) });
        *request.uri_mut() = origin_form(request.uri());
        let response =
            tokio::time::timeout(options.first_byte_timeout.unwrap_or(TIMEOUT), sender.send_request(request))
                .await
                .map_err(|_| Error::ConnectionReadTimeout)??;
        let response = response.map(|body| body.map_err(Error::from).boxed_unsync());
        Ok((response, Box::new(connection)))
    }
}

/// The path and query alone: the rest of the address is in the `host` header and in whom the connection goes to.
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")).into()
}

fn connect_error(error: OpenError) -> Error {
    if error.0.contains("no such host") {
        return Error::DnsError { rcode: Some(error.0), info_code: None };
    }
    Error::Connect(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, error.0))
}
