//! The rules of the one nftables table, as text for `nft -f`: what leads into the cluster is redirected to this process. It runs nothing.
//!
//! Nothing outside the table is named, so nothing of others is touched. What comes from other machines is left alone: only the host itself
//! and its containers are led into the cluster.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::fences::{self, Fence};

/// The table that is ours.
pub(crate) const TABLE: &str = "coracle";
/// Before Docker's own chains, which stand at these priorities.
const NAT_PREROUTING: i32 = -105;
const NAT_OUTPUT: i32 = -105;
const MANGLE_PREROUTING: i32 = -155;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) network: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl Range {
    /// Reads CIDR notation.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (network, prefix) = text.split_once('/')?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Self { network: network.parse().ok()?, prefix })
    }

    /// The lower half of a node's range: what its containers have.
    pub(crate) fn lower_half(self) -> Self {
        Self { prefix: (self.prefix + 1).min(32), ..self }
    }

    /// The first address: the host's own among its containers.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1)
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        crate::dialer::has_address((self.network, self.prefix), address)
    }
}

/// What is redirected where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The ranges of services and pods.
    pub(crate) cluster: Vec<Range>,
    /// External addresses of services, each with its ports.
    pub(crate) external: Vec<(Ipv4Addr, u16)>,
    /// The ranges of containers on this host, whose addresses lead to them without us.
    pub(crate) bridges: Vec<Range>,
    /// The ranges of containers of other clusters on this host: none of ours, and led nowhere.
    pub(crate) neighbours: Vec<Range>,
    /// What containers may do among themselves and with the outside.
    pub(crate) fences: Vec<Fence>,
    /// The port of this process that takes connections.
    pub(crate) tcp: u16,
    /// The port of this process that takes datagrams for any address.
    pub(crate) udp: u16,
    /// The addresses and ports whose datagrams have a port of this process of their own.
    pub(crate) datagrams: Vec<((Ipv4Addr, u16), u16)>,
}

/// The table, replaced as a whole.
pub(crate) fn ruleset(plan: &Plan) -> String {
    let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    let cluster = join(&plan.cluster);
    set(&mut text, "cluster", "ipv4_addr", "interval", &cluster);
    set(&mut text, "bridges", "ipv4_addr", "interval", &join(&plan.bridges));
    set(&mut text, "neighbours", "ipv4_addr", "interval", &join(&plan.neighbours));
    let gateways: Vec<Ipv4Addr> = plan.bridges.iter().map(|bridge| bridge.gateway()).collect();
    set(&mut text, "gateways", "ipv4_addr", "", &join(&gateways));
    let external: Vec<String> = plan.external.iter().map(|(address, port)| format!("{address} . {port}")).collect();
    set(&mut text, "external", "ipv4_addr . inet_service", "", &external.join(", "));

    let own: Vec<String> = plan.datagrams.iter().map(|((address, port), _)| format!("{address} . {port}")).collect();
    set(&mut text, "known", "ipv4_addr . inet_service", "", &own.join(", "));
    let led: Vec<String> = own.iter().zip(&plan.datagrams).map(|(from, (_, to))| format!("{from} : {to}")).collect();
    let elements = if led.is_empty() { String::new() } else { format!(" elements = {{ {} }};", led.join(", ")) };
    let _ = writeln!(text, "  map ports {{ type ipv4_addr . inet_service : inet_service;{elements} }}");

    // A source address that does not lead back the way it came is somebody else's.
    let from_container = "ip saddr @bridges fib saddr . iif oif exists";
    let to_own = "meta l4proto udp redirect to :ip daddr . udp dport map @ports";
    chain(&mut text, "containers", &format!("type nat hook prerouting priority {NAT_PREROUTING}"), |text| {
        let _ = writeln!(text, "    {from_container} {to_own}");
        // Containers of one bridge reach each other without us; only their DNS is ours.
        let _ = writeln!(text, "    ip saddr @bridges ip daddr @gateways tcp dport 53 redirect to :{}", plan.tcp);
        for bridge in &plan.bridges {
            let _ = writeln!(text, "    ip saddr {bridge} ip daddr {bridge} return");
        }
        let _ = writeln!(text, "    ip daddr @neighbours return");
        let _ = writeln!(text, "    {from_container} ip daddr @cluster meta l4proto tcp redirect to :{}", plan.tcp);
        let _ = writeln!(text, "    {from_container} ip daddr . tcp dport @external redirect to :{}", plan.tcp);
    });
    chain(&mut text, "host", &format!("type nat hook output priority {NAT_OUTPUT}"), |text| {
        let _ = writeln!(text, "    {to_own}");
        let _ = writeln!(text, "    ip daddr @bridges return");
        let _ = writeln!(text, "    ip daddr @neighbours return");
        let _ = writeln!(text, "    ip daddr @cluster meta l4proto tcp redirect to :{}", plan.tcp);
        let _ = writeln!(text, "    ip daddr . tcp dport @external redirect to :{}", plan.tcp);
    });
    chain(&mut text, "datagrams", &format!("type filter hook prerouting priority {MANGLE_PREROUTING}"), |text| {
        let take = format!("tproxy ip to 127.0.0.1:{} accept", plan.udp);
        let _ = writeln!(text, "    ip daddr . udp dport @known return");
        for bridge in &plan.bridges {
            let _ = writeln!(text, "    ip saddr {bridge} ip daddr {bridge} return");
        }
        let _ = writeln!(text, "    ip daddr @neighbours return");
        let _ = writeln!(text, "    {from_container} ip daddr @cluster meta l4proto udp {take}");
        let _ = writeln!(text, "    iifname \"lo\" ip daddr @bridges return");
        let _ = writeln!(text, "    iifname \"lo\" ip saddr != @cluster ip daddr @cluster meta l4proto udp {take}");
    });
    fences::write(&mut text, &plan.fences);
    text.push_str("}\n");
    text
}

fn join(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn set(text: &mut String, name: &str, kind: &str, flags: &str, elements: &str) {
    let _ = write!(text, "  set {name} {{ type {kind};");
    if !flags.is_empty() {
        let _ = write!(text, " flags {flags};");
    }
    if !elements.is_empty() {
        let _ = write!(text, " elements = {{ {elements} }};");
    }
    text.push_str(" }\n");
}

fn chain(text: &mut String, name: &str, hook: &str, rules: impl FnOnce(&mut String)) {
    let _ = writeln!(text, "  chain {name} {{\n    {hook}; policy accept;");
    rules(text);
    text.push_str("  }\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let range = |text: &str| Range::parse(text).unwrap();
        Plan {
            cluster: vec![range("10.42.0.0/16"), range("10.43.0.0/16")],
            external: vec![(Ipv4Addr::new(192, 0, 2, 7), 80)],
            bridges: vec![range("10.42.1.0/24").lower_half()],
            neighbours: vec![range("10.42.7.0/25")],
            fences: Vec::new(),
            tcp: 4001,
            udp: 4002,
            datagrams: vec![((Ipv4Addr::new(10, 43, 0, 10), 53), 4003)],
        }
    }

    #[test]
    fn the_table_is_replaced_as_a_whole_and_names_nothing_else() {
        let text = ruleset(&plan());
        assert!(text.starts_with("table inet coracle\ndelete table inet coracle\ntable inet coracle {\n"), "{text}");
        assert_eq!(text.matches("table ").count(), 3);
        assert!(
            text.contains("set bridges { type ipv4_addr; flags interval; elements = { 10.42.1.0/25 }; }"),
            "{text}"
        );
        assert!(
            text.contains("set neighbours { type ipv4_addr; flags interval; elements = { 10.42.7.0/25 }; }"),
            "{text}"
        );
        assert_eq!(text.matches("ip daddr @neighbours return").count(), 3, "{text}");
        assert!(text.contains("set gateways { type ipv4_addr; elements = { 10.42.1.1 }; }"), "{text}");
        assert!(text.contains("ip saddr 10.42.1.0/25 ip daddr 10.42.1.0/25 return"), "{text}");
        assert!(text.contains("elements = { 10.43.0.10 . 53 : 4003 };"), "{text}");
    }

    #[test]
    fn without_containers_only_the_host_is_led_in() {
        let text = ruleset(&Plan { bridges: Vec::new(), external: Vec::new(), ..plan() });
        assert!(text.contains("set bridges { type ipv4_addr; flags interval; }"), "{text}");
        assert!(text.contains("ip daddr @cluster meta l4proto tcp redirect to :4001"), "{text}");
    }

    #[test]
    fn ranges_are_read_and_halved() {
        assert_eq!(Range::parse("10.42.3.0/24").unwrap().lower_half().to_string(), "10.42.3.0/25");
        assert_eq!(Range::parse("10.42.3.0/24").unwrap().gateway().to_string(), "10.42.3.1");
        assert_eq!(Range::parse("10.42.3.0/33"), None);
        assert!(Range::parse("10.42.3.0/24").unwrap().contains("10.42.3.200".parse().unwrap()));
    }
}
