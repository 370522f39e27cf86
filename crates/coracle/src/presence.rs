//! Where a member can be reached, and the certificates that say so: looked at again and again, because laptops move.
//!
//! An address that changes gets a new certificate of the API server, and is written into the list of members.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use coracle_engine::MemberRecord;
use coracle_raft::MemberId;

use crate::Error;
use crate::member::{Site, advertised};
use crate::peers::Network;
use crate::process::Process;
use crate::tls::ServerCertificate;

/// How often the machine's addresses are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often certificates are signed anew: they are valid for a year.
const RENEW_EVERY: Duration = Duration::from_hours(24 * 30);
/// How many addresses a member tells of.
const ADDRESSES_MAX: usize = 8;
/// An address that nobody has (RFC 5737): what a packet to it would come from is the machine's own.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// What a member shows at its socket.
pub(crate) struct Presence {
    id: MemberId,
    listening: SocketAddr,
    /// The address of the API server's own Service.
    service: IpAddr,
    addresses: Vec<IpAddr>,
    pub(crate) certificate: Arc<ServerCertificate>,
    network: Option<Arc<Network>>,
}

impl Presence {
    /// A member that listens at an address.
    pub(crate) fn new(
        site: &Site,
        id: MemberId,
        listening: SocketAddr,
        service_network: Ipv4Addr,
    ) -> Result<Self, Error> {
        let service = IpAddr::V4(Ipv4Addr::from(u32::from(service_network) + 1));
        let addresses = addresses(listening.ip());
        let authority = site.identity.authority.clone();
        let certificate = ServerCertificate::new(authority, &names(&addresses, listening, service))?;
        let network = site.peers.network().cloned();
        Ok(Self { id, listening, service, addresses, certificate, network })
    }

    /// Keeps certificates and the list of members as the machine is, until the member stops.
    pub(crate) async fn keep(mut self, process: Arc<Process>) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = process.shutdown.cancelled() => return,
            }
            let addresses = addresses(self.listening.ip());
            let moved = addresses != self.addresses;
            if moved || renewed.elapsed() > RENEW_EVERY {
                self.addresses = addresses;
                renewed = tokio::time::Instant::now();
                self.renew();
                if moved && self.network.is_some() {
                    process.node_address.send_replace(self.addresses.first().copied());
                }
            }
            if self.network.is_some() {
                self.tell(&process).await;
            }
        }
    }

    fn renew(&self) {
        let names = names(&self.addresses, self.listening, self.service);
        let own = self.network.as_ref().map_or(Ok(()), |network| network.credentials.renew());
        match self.certificate.renew(&names).and(own) {
            Ok(()) => tracing::info!(addresses = ?self.addresses, "the certificates were signed anew"),
            Err(error) => tracing::error!(%error, "the certificates cannot be signed anew"),
        }
    }

    /// Writes the addresses into the list, where they are others than there.
    async fn tell(&self, process: &Process) {
        let view = process.view();
        let Some(mut record) = MemberRecord::find(&view, self.id) else { return };
        let addresses = told(&self.addresses, self.listening);
        if addresses.is_empty() || record.addresses == addresses {
            return;
        }
        tracing::info!(?addresses, "this member is reached at other addresses now");
        record.addresses = addresses;
        if let Some(transaction) = record.update(&view)
            && let Err(status) = process.propose(transaction).await
        {
            tracing::debug!(error = status.message, "the list of members is not changed yet");
        }
    }
}

/// What others are told: `ADDRESS:PORT`.
pub(crate) fn told_of(listening: SocketAddr) -> Vec<String> {
    told(&addresses(listening.ip()), listening)
}

fn told(addresses: &[IpAddr], listening: SocketAddr) -> Vec<String> {
    addresses.iter().map(|address| SocketAddr::new(*address, listening.port()).to_string()).collect()
}

/// What the API server's certificate is about.
fn names(addresses: &[IpAddr], listening: SocketAddr, service: IpAddr) -> Vec<IpAddr> {
    let mut names = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), advertised(listening).ip(), service];
    names.extend(addresses);
    names.sort_unstable();
    names.dedup();
    names
}

/// The addresses that others reach a listening socket by, the likeliest first.
fn addresses(listening: IpAddr) -> Vec<IpAddr> {
    if !listening.is_unspecified() {
        return vec![listening];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).filter(is_reachable).collect();
    addresses.retain(|address| address.is_ipv4() || listening.is_ipv6());
    addresses.sort_unstable();
    addresses.dedup();
    let first = outgoing();
    // The one that packets leave from comes first, IPv4 before IPv6.
    addresses.sort_by_key(|address| (Some(*address) != first, address.is_ipv6()));
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

fn is_reachable(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !link_local
}

/// The address that packets to elsewhere come from. Nothing is sent.
fn outgoing() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(NOBODY).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_listens_at_one_address_tells_of_that_one() {
        let listening = SocketAddr::from(([127, 0, 0, 1], 7443));
        assert_eq!(told_of(listening), ["127.0.0.1:7443"]);
    }

    #[test]
    fn one_that_listens_everywhere_tells_of_no_loopback() {
        let listening = SocketAddr::from(([0, 0, 0, 0], 6443));
        assert!(told_of(listening).iter().all(|address| !address.starts_with("127.") && address.ends_with(":6443")));
    }
}
