//! Requests as any HTTP client would send them, for what kubectl cannot say or hides.

use std::fmt;
use std::path::Path;

use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

/// A client of the cluster that a kubeconfig names.
pub(crate) struct Http {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

/// What the server said.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text.chars().take(4000).collect::<String>())
    }
}

impl Answer {
    /// The body, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("no JSON: {error}: {self:?}"))
    }

    /// A failure's code, reason and message, a line.
    #[track_caller]
    pub(crate) fn status(&self) -> String {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{self:?}");
        assert_eq!(status["code"], self.code, "the Status says what the answer's first line says");
        let text = |field: &str| status[field].as_str().unwrap_or("-").to_owned();
        format!("{} {}: {}", self.code, text("reason"), text("message"))
    }
}

impl Http {
    /// As the kubeconfig says, with its token or, for some tests, with another or none.
    pub(crate) fn new(kubeconfig: &Path, token: Token<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig can be read");
            let options = KubeConfigOptions { context: Some("coracle".into()), ..KubeConfigOptions::default() };
            let mut config = Config::from_custom_kubeconfig(file, &options).await.expect("the kubeconfig is valid");
            match token {
                Token::Admin => {}
                Token::None => config.auth_info.token = None,
                Token::Other(token) => config.auth_info.token = Some(token.to_owned().into()),
            }
            Client::try_from(config).expect("a client is made")
        });
        Self { client, runtime }
    }

    /// A request and its whole answer, or why there was none.
    pub(crate) fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer, String> {
        let request = http::Request::builder().method(method).uri(path);
        let request = if body.is_empty() { request } else { request.header("content-type", kind) };
        let request = request.body(Body::from(body)).expect("a request is made");
        self.runtime.block_on(async {
            let response = self.client.send(request).await.map_err(|error| format!("{error:?}"))?;
            let code = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
            Ok(Answer { code, text: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
        })
    }

    /// A body of JSON.
    #[track_caller]
    pub(crate) fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, "application/json", body.to_string().into_bytes()).expect("the server answers")
    }

    /// What is there.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", Vec::new()).expect("the server answers")
    }
}

/// Whom a request comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token<'a> {
    Admin,
    None,
    Other(&'a str),
}

/// The body of a page that a Service shows on this machine, without TLS.
pub(crate) fn http_get(address: &str, path: &str) -> Result<String, String> {
    use std::io::{Read as _, Write as _};
    let ask = || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    let text = ask().map_err(|error| error.to_string())?;
    if text.starts_with("HTTP/1.1 200") { Ok(text) } else { Err(text) }
}
