//! What a cluster's API server is told at start; the same on every member.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::OpenApi;
use crate::rbac::Authorizer;

/// Settings of the API server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// `gitVersion` of `/version`: semver, as in `v1.36.0+coracle.0.1.0`.
    pub git_version: String,
    /// The first address of the service range.
    pub service_network: Ipv4Addr,
    /// Its prefix length.
    pub service_prefix: u8,
    /// The first address of the pod range; nodes get a /24 each, unless they ask for more.
    pub pod_network: Ipv4Addr,
    /// Its prefix length.
    pub pod_prefix: u8,
    /// The lowest and highest node port.
    pub node_ports: (u16, u16),
    /// The largest request body in bytes.
    pub max_body: usize,
    /// The cluster CA's certificate, PEM: what `kube-root-ca.crt` holds.
    pub ca_certificate: String,
    /// The public keys of the cluster's ServiceAccount tokens: a JSON Web Key Set (RFC 7517).
    pub token_keys: String,
    /// The address that clients reach the server by, as `host:port`, for discovery.
    pub advertise: String,
    /// Who decides what users may do.
    pub authorizer: Arc<Authorizer>,
    /// The OpenAPI documents, and where their descriptions come from.
    pub openapi: Arc<OpenApi>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            git_version: concat!("v1.36.0+coracle.", env!("CARGO_PKG_VERSION")).into(),
            service_network: Ipv4Addr::new(10, 43, 0, 0),
            service_prefix: 16,
            pod_network: Ipv4Addr::new(10, 42, 0, 0),
            pod_prefix: 16,
            node_ports: (30_000, 32_767),
            max_body: 3 << 20,
            ca_certificate: String::new(),
            token_keys: r#"{"keys":[]}"#.into(),
            advertise: "127.0.0.1:6443".into(),
            authorizer: Arc::default(),
            openapi: Arc::default(),
        }
    }
}
