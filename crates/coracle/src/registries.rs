//! How registries are reached: a file in the form of k3s' `registries.yaml`, and the logins of the user who runs the program.
//!
//! What cannot be honoured is refused when the file is read, so that nothing is thought to hold that does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_node::runtime::Login;
use coracle_node::{Keyring, canonical_image_name};
use coracle_runtime_wasm as wasm;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;

use crate::{Error, ErrorKind};

/// How long a credential helper may take: it may ask the user something, who is not there.
const HELPER_WAIT: Duration = Duration::from_secs(10);
/// The name that docker's files have for its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Registries(pub(crate) wasm::Registries);

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    mirrors: BTreeMap<String, Option<Mirror>>,
    configs: BTreeMap<String, Option<Config>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mirror {
    endpoint: Vec<String>,
    rewrite: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    auth: Option<Auth>,
    tls: Option<Tls>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Auth {
    username: String,
    password: String,
    #[serde(rename = "auth")]
    both: String,
    identity_token: String,
}

/// It holds a password.
impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    insecure_skip_verify: bool,
}

impl Registries {
    /// Reads a file with the keys of k3s' `registries.yaml`: `mirrors` with `endpoint` and `rewrite`, `configs` with `auth` and `tls`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, has a key that is not known, or asks for what is not there: client certificates, identity tokens, endpoints
    /// with a path.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let invalid =
            |why: String| Error::new(ErrorKind::Invalid, format!("the registries file {}: {why}", path.display()));
        let text = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
        Self::parse(&text).map_err(invalid)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let value = coracle_api::yaml::parse(text).map_err(|error| error.to_string())?;
        let file: Option<File> = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let File { mirrors, configs } = file.unwrap_or_default();
        let mut registries = wasm::Registries::default();
        for (name, mirror) in mirrors {
            registries.mirrors.insert(name, mirror.unwrap_or_default().checked()?);
        }
        for (name, config) in configs {
            let settings = config.unwrap_or_default().checked().map_err(|why| format!("configs.{name:?}: {why}"))?;
            registries.hosts.insert(host_of(&name).to_owned(), settings);
        }
        Ok(Self(registries))
    }
}

impl Mirror {
    fn checked(self) -> Result<wasm::Mirror, String> {
        let endpoints = self.endpoint.iter().map(|text| endpoint(text)).collect::<Result<_, _>>()?;
        let rewrite = self.rewrite.into_iter().map(|(pattern, with)| {
            let pattern = regex::Regex::new(&pattern).map_err(|error| format!("rewrite: {error}"))?;
            Ok((pattern, with))
        });
        Ok(wasm::Mirror { endpoints, rewrite: rewrite.collect::<Result<_, String>>()? })
    }
}

/// `scheme://host[:port]`, with nothing behind it but the version of the API.
fn endpoint(text: &str) -> Result<wasm::Endpoint, String> {
    let (http, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(format!("the endpoint {text:?} does not begin with http:// or https://")),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(path.trim_end_matches('/'), "" | "v2") || host.is_empty() {
        return Err(format!("the endpoint {text:?} has a path: only hosts are supported"));
    }
    Ok(wasm::Endpoint { http, host: host.to_owned() })
}

fn host_of(name: &str) -> &str {
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    name.trim_end_matches('/')
}

impl Config {
    fn checked(self) -> Result<wasm::HostSettings, String> {
        let mut settings = wasm::HostSettings::default();
        if let Some(auth) = self.auth {
            settings.login = Some(auth.login()?);
        }
        let Some(tls) = self.tls else { return Ok(settings) };
        if tls.cert_file.is_some() || tls.key_file.is_some() {
            return Err("client certificates (cert_file, key_file) are not supported".into());
        }
        settings.skip_verify = tls.insecure_skip_verify;
        if let Some(path) = tls.ca_file {
            let failed = |why: String| format!("ca_file {}: {why}", path.display());
            let text = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
            let authorities = CertificateDer::pem_slice_iter(&text).map(|found| found.map(|found| found.to_vec()));
            settings.authorities = authorities.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
            if settings.authorities.is_empty() {
                return Err(failed("there is no certificate in it".into()));
            }
        }
        Ok(settings)
    }
}

impl Auth {
    fn login(self) -> Result<Login, String> {
        if !self.identity_token.is_empty() {
            return Err("identity tokens are not supported: use a user and a password".into());
        }
        if self.both.is_empty() {
            return Ok(Login { username: self.username, password: self.password });
        }
        let bytes = STANDARD.decode(&self.both).map_err(|error| format!("auth: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|error| format!("auth: {error}"))?;
        let (username, password) = text.split_once(':').ok_or("auth is not user:password in base64")?;
        Ok(Login { username: username.to_owned(), password: password.to_owned() })
    }
}

/// Pushes a WebAssembly module or component, binary or text, to the registry of its name as the artifact that Wasm runtimes pull
/// (`application/vnd.wasm.config.v0+json`), as the user whom docker's configuration names; the digest of its manifest.
///
/// # Errors
///
/// When the name is none, the bytes are no WebAssembly, or the registry does not take them.
pub async fn push_image(name: &str, bytes: &[u8], registries: &Registries) -> Result<String, Error> {
    let created = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let created = coracle_base::Timestamp::EPOCH + Duration::from_secs(created.as_secs());
    let logins = user_logins(name).await;
    let pushed = wasm::push(&registries.0, &logins, name, bytes, created).await;
    pushed.map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))
}

/// As whom the user who runs this program asks for an image: docker's configuration and its credential helpers.
pub(crate) async fn user_logins(image: &str) -> Vec<Login> {
    let image = image.to_owned();
    let asked = tokio::task::spawn_blocking(move || docker_logins(&image));
    match tokio::time::timeout(HELPER_WAIT, asked).await {
        Ok(Ok(logins)) => logins,
        Ok(Err(error)) => {
            tracing::warn!(%error, "docker's configuration was not read");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!("a credential helper of docker does not answer");
            Vec::new()
        }
    }
}

fn docker_logins(image: &str) -> Vec<Login> {
    let mut logins = Vec::new();
    if let Some(text) = docker_config().and_then(|path| std::fs::read(path).ok()) {
        let mut keyring = Keyring::default();
        if let Err(error) = keyring.add_docker_config(&text) {
            tracing::warn!(error, "docker's configuration is not what it should be");
        }
        logins = keyring.logins(image);
    }
    let Ok(canonical) = canonical_image_name(image) else { return logins };
    let registry = canonical.split('/').next().unwrap_or_default();
    let server = if registry == "docker.io" { DOCKER_HUB } else { registry };
    match docker_credential::get_credential(server) {
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            let login = Login { username, password };
            if !logins.contains(&login) {
                logins.push(login);
            }
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            tracing::warn!(registry, "docker has an identity token for the registry, which is not supported");
        }
        Err(CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::ConfigNotFound) => {}
        // What a helper printed may hold a secret.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
            tracing::debug!(helper, registry, "the credential helper has nothing for the registry");
        }
        Err(error) => tracing::warn!(%error, registry, "docker's credentials were not read"),
    }
    logins
}

fn docker_config() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refusal(text: &str) -> String {
        Registries::parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_keys_of_k3s_are_understood() {
        let text = "
mirrors:
  docker.io:
    endpoint: [\"https://mirror.example.com:5000\", \"http://second/v2\"]
    rewrite: {\"^library/(.*)\": \"hub/$1\"}
  plain:5000:
    endpoint: [\"http://plain:5000\"]
configs:
  mirror.example.com:5000:
    auth: {username: me, password: secret}
    tls: {insecure_skip_verify: true}
";
        let Registries(found) = Registries::parse(text.as_bytes()).unwrap();
        let hub = &found.mirrors["docker.io"];
        let first = wasm::Endpoint { http: false, host: "mirror.example.com:5000".into() };
        assert_eq!(hub.endpoints, [first, wasm::Endpoint { http: true, host: "second".into() }]);
        assert_eq!(hub.rewrite[0].1, "hub/$1");
        let settings = &found.hosts["mirror.example.com:5000"];
        assert!(settings.skip_verify);
        assert_eq!(settings.login.as_ref().map(|login| login.username.as_str()), Some("me"));
        assert!(Registries::parse(b"").unwrap().0.mirrors.is_empty());
    }

    #[test]
    fn what_is_not_honoured_is_refused() {
        assert!(refusal("mirror: {}").contains("unknown field `mirror`"));
        assert!(refusal("mirrors: {a: {endpoint: [a]}}").contains("http://"));
        assert!(refusal("mirrors: {a: {endpoint: [\"https://a/b\"]}}").contains("path"));
        assert!(refusal("mirrors: {a: {rewrite: {\"(\": b}}}").contains("rewrite"));
        assert!(refusal("configs: {a: {auth: {identity_token: t}}}").contains("identity tokens"));
        assert!(refusal("configs: {a: {tls: {cert_file: c}}}").contains("client certificates"));
        assert!(refusal("configs: {a: {tls: {ca_file: /nobody/has/this}}}").contains("ca_file"));
    }
}
