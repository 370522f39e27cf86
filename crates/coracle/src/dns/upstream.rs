//! Names that are none of the cluster's: the machine's own resolvers are asked, and what they say is kept for a while.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use tokio::sync::Semaphore;

use super::message::Reply;
use crate::dialer;

/// How many answers are kept.
const CACHE_MAX: u64 = 10_000;
/// For how long at most, whatever an answer says.
const KEPT_MAX: Duration = Duration::from_secs(30);
/// How many questions are asked at a time; beyond, a question fails at once, lest a flood here is one there.
const QUESTIONS_MAX: usize = 512;
/// How long a resolver has, and how often one is asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// The resolvers outside.
pub(crate) struct Upstream {
    /// Those that were given; empty: the machine's.
    given: Vec<SocketAddr>,
    /// The cluster's service addresses: a machine whose resolver is the cluster's DNS must not be asked by it.
    own: (Ipv4Addr, u8),
    resolver: OnceLock<Option<TokioResolver>>,
    permits: Semaphore,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("given", &self.given).finish_non_exhaustive()
    }
}

impl Upstream {
    /// These resolvers, or when there are none those of the machine (`/etc/resolv.conf`) that are not in the service range.
    pub(crate) fn new(given: Vec<SocketAddr>, own: (Ipv4Addr, u8)) -> Self {
        Self { given, own, resolver: OnceLock::new(), permits: Semaphore::new(QUESTIONS_MAX) }
    }

    fn resolver(&self) -> Option<&TokioResolver> {
        let made = self.resolver.get_or_init(|| {
            let is_own = |address| dialer::has_address(self.own, address);
            let given = || self.given.iter().copied().map(server).collect();
            resolver(if self.given.is_empty() { of_machine(is_own) } else { given() })
        });
        made.as_ref()
    }

    /// Asks; whatever fails is a failure of the server, as clients know it.
    pub(crate) async fn ask(&self, name: &Name, kind: RecordType) -> Reply {
        let failed = |code| Reply { code, ..Reply::default() };
        let Some(resolver) = self.resolver() else { return failed(ResponseCode::ServFail) };
        let Ok(_permit) = self.permits.try_acquire() else { return failed(ResponseCode::ServFail) };
        match resolver.lookup(name.clone(), kind).await {
            Ok(found) => Reply { answers: found.answers().to_vec(), ..Reply::default() },
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let soa = none.soa.map(|soa| (*soa).into_record_of_rdata());
                Reply { code: none.response_code, authorities: soa.into_iter().collect(), ..Reply::default() }
            }
            Err(error) => {
                tracing::debug!(%name, %error, "no resolver outside answers");
                failed(ResponseCode::ServFail)
            }
        }
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn of_machine(is_own: impl Fn(IpAddr) -> bool) -> Vec<NameServerConfig> {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, _)) => config.name_servers().iter().filter(|server| !is_own(server.ip)).cloned().collect(),
        Err(error) => {
            tracing::info!(%error, "the machine has no resolvers: names outside the cluster are not found by its DNS");
            Vec::new()
        }
    }
}

fn resolver(servers: Vec<NameServerConfig>) -> Option<TokioResolver> {
    if servers.is_empty() {
        return None;
    }
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.cache_size = CACHE_MAX;
    options.positive_max_ttl = Some(KEPT_MAX);
    options.negative_max_ttl = Some(KEPT_MAX);
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.edns0 = true;
    let config = ResolverConfig::from_name_servers(servers);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
    match builder.build() {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::warn!(%error, "names outside the cluster are not found by its DNS");
            None
        }
    }
}
