//! Registries: where each is reached, how, and as whom.
//!
//! The settings are those of k3s' `registries.yaml`; whoever reads such a file makes [`Registries`] of it.

mod artifact;
mod error;
mod fetch;
mod layer;
mod push;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Once;
use std::time::Duration;

use coracle_node::runtime::Login;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use regex::Regex;

pub(crate) use artifact::ImageConfig;
pub(crate) use fetch::{Contents, Fetched, Fetcher};
pub(crate) use layer::digest_of;
pub use push::{PushError, push};

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long nothing may come before a transfer counts as broken (the kubelet's deadline for the progress of a pull).
const PROGRESS_DEADLINE: Duration = Duration::from_mins(1);
/// What registries are told who asks.
const USER_AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));
/// The settings of every registry that has none of its own.
const ANY: &str = "*";

/// The registries that are reached otherwise than by HTTPS under their own name. `localhost` and loopback addresses are spoken to by HTTP, as
/// Docker does, unless something is said of them here.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Where to ask instead, in this order, before the registry itself; by registry, `*` for the others.
    pub mirrors: BTreeMap<String, Mirror>,
    /// How to speak to a host, by its name and port as an endpoint has it.
    pub hosts: BTreeMap<String, HostSettings>,
}

/// Where a registry's images are.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// `http://` or `https://`, host and port.
    pub endpoints: Vec<Endpoint>,
    /// What to replace in the repository's name, which must match as a whole or in part: the first pattern that does.
    pub rewrite: Vec<(Regex, String)>,
}

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether by plain HTTP.
    pub http: bool,
    /// Host and port.
    pub host: String,
}

/// How to speak to a host.
#[derive(Clone, Default)]
pub struct HostSettings {
    /// As whom, where a pod has nobody.
    pub login: Option<Login>,
    /// Authorities to trust beside the machine's, DER.
    pub authorities: Vec<Vec<u8>>,
    /// Whether any certificate will do.
    pub skip_verify: bool,
}

impl fmt::Debug for HostSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSettings")
            .field("login", &self.login)
            .field("authorities", &self.authorities.len())
            .field("skip_verify", &self.skip_verify)
            .finish()
    }
}

/// A place to ask for one image.
#[derive(Debug)]
struct Source {
    endpoint: Endpoint,
    reference: Reference,
}

impl Registries {
    /// The places to ask for an image, in order.
    fn sources(&self, image: &Reference) -> Vec<Source> {
        let registry = image.registry();
        let mirror = self.mirrors.get(registry).or_else(|| self.mirrors.get(ANY));
        let mut sources: Vec<Source> = Vec::new();
        for endpoint in mirror.iter().flat_map(|mirror| &mirror.endpoints) {
            let repository = mirror.map_or_else(|| image.repository().to_owned(), |m| m.rewritten(image.repository()));
            sources.push(Source { endpoint: endpoint.clone(), reference: at(endpoint, &repository, image) });
        }
        let own = Endpoint { http: is_loopback(registry), host: registry.to_owned() };
        if sources.iter().all(|source| source.endpoint.host != own.host) {
            sources.push(Source { endpoint: own, reference: image.clone() });
        }
        sources
    }

    /// A client for one place, as one user.
    fn client(&self, endpoint: &Endpoint) -> Result<Client, String> {
        let settings = self.hosts.get(&endpoint.host).cloned().unwrap_or_default();
        let certificate = |data| Certificate { encoding: CertificateEncoding::Der, data };
        provide_tls();
        Client::try_from(ClientConfig {
            protocol: if endpoint.http { ClientProtocol::Http } else { ClientProtocol::Https },
            accept_invalid_certificates: settings.skip_verify,
            extra_root_certificates: settings.authorities.into_iter().map(certificate).collect(),
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(PROGRESS_DEADLINE),
            user_agent: USER_AGENT,
            platform_resolver: None,
            ..ClientConfig::default()
        })
        .map_err(|error| error::chain(&error))
    }

    /// As whom to ask a host: those given, its own settings', and nobody.
    fn users(&self, endpoint: &Endpoint, logins: &[Login]) -> Vec<RegistryAuth> {
        let own = self.hosts.get(&endpoint.host).and_then(|settings| settings.login.as_ref());
        let basic = |login: &Login| RegistryAuth::Basic(login.username.clone(), login.password.clone());
        logins.iter().chain(own).map(basic).chain([RegistryAuth::Anonymous]).collect()
    }
}

impl Mirror {
    fn rewritten(&self, repository: &str) -> String {
        let rule = self.rewrite.iter().find(|(pattern, _)| pattern.is_match(repository));
        rule.map_or_else(|| repository.to_owned(), |(pattern, with)| pattern.replace(repository, with).into_owned())
    }
}

/// The same image at another host.
fn at(endpoint: &Endpoint, repository: &str, image: &Reference) -> Reference {
    let (host, repository) = (endpoint.host.clone(), repository.to_owned());
    match (image.digest(), image.tag()) {
        (Some(digest), _) => Reference::with_digest(host, repository, digest.to_owned()),
        (None, tag) => Reference::with_tag(host, repository, tag.unwrap_or("latest").to_owned()),
    }
}

/// Whether a registry is on this machine: nobody listens in between.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The client takes the process' default provider of TLS, and panics where there is none.
fn provide_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An embedder's own choice stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str) -> Reference {
        coracle_node::canonical_image_name(name).unwrap().parse().unwrap()
    }

    fn places(registries: &Registries, name: &str) -> Vec<String> {
        let place = |source: Source| {
            let scheme = if source.endpoint.http { "http" } else { "https" };
            format!("{scheme}://{} {}", source.endpoint.host, source.reference.repository())
        };
        registries.sources(&reference(name)).into_iter().map(place).collect()
    }

    fn endpoint(http: bool, host: &str) -> Endpoint {
        Endpoint { http, host: host.to_owned() }
    }

    #[test]
    fn a_registry_is_asked_by_https_and_one_on_this_machine_by_http() {
        let registries = Registries::default();
        assert_eq!(places(&registries, "web"), ["https://docker.io library/web"]);
        assert_eq!(places(&registries, "r.example.com:5000/a/b"), ["https://r.example.com:5000 a/b"]);
        for host in ["localhost", "localhost:5000", "127.0.0.1:80"] {
            assert_eq!(places(&registries, &format!("{host}/web")), [format!("http://{host} web")]);
        }
    }

    #[test]
    fn mirrors_come_first_with_their_rewritten_names_and_the_registry_itself_last() {
        let mut registries = Registries::default();
        let rewrite = vec![(Regex::new("^library/(.*)").unwrap(), "hub/$1".to_owned())];
        let endpoints = vec![endpoint(true, "m:1"), endpoint(false, "n")];
        registries.mirrors.insert("docker.io".into(), Mirror { endpoints, rewrite });
        assert_eq!(
            places(&registries, "web"),
            ["http://m:1 hub/web", "https://n hub/web", "https://docker.io library/web"]
        );
        assert_eq!(places(&registries, "r.example.com/web"), ["https://r.example.com web"]);
        let any = Mirror { endpoints: vec![endpoint(false, "all")], rewrite: Vec::new() };
        registries.mirrors.insert("*".into(), any);
        assert_eq!(places(&registries, "r.example.com/web"), ["https://all web", "https://r.example.com web"]);
    }

    #[test]
    fn an_endpoint_of_the_same_name_says_how_the_registry_itself_is_reached() {
        let mut registries = Registries::default();
        let mirror = Mirror { endpoints: vec![endpoint(true, "r:5000")], rewrite: Vec::new() };
        registries.mirrors.insert("r:5000".into(), mirror);
        assert_eq!(places(&registries, "r:5000/web"), ["http://r:5000 web"]);
    }

    #[test]
    fn a_pods_users_come_before_the_hosts_own_and_nobody_last() {
        let login = |name: &str| Login { username: name.into(), password: "p".into() };
        let mut registries = Registries::default();
        let settings = HostSettings { login: Some(login("own")), ..HostSettings::default() };
        registries.hosts.insert("r".into(), settings);
        let basic = |name: &str| RegistryAuth::Basic(name.into(), "p".into());
        let users = registries.users(&endpoint(false, "r"), &[login("pod")]);
        assert_eq!(users, [basic("pod"), basic("own"), RegistryAuth::Anonymous]);
    }
}
