//! What the names of the cluster's domain are about, by their form alone. It looks nothing up.
//!
//! The forms are those of Kubernetes' DNS specification, version 1.1.0, and the dashed addresses that CoreDNS has for endpoints without
//! a hostname.

use std::net::{IpAddr, Ipv4Addr};

use coracle_api::ObjectKey;
use coracle_api::resources::SERVICES;

use crate::dialer::Protocol;

/// The domain of the cluster's names.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// What a name of the cluster's domain is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The domain itself.
    Domain,
    /// The version of the specification.
    Version,
    /// `svc` or `pod`, or a namespace below.
    Branch(Option<String>),
    /// A service.
    Service(ObjectKey),
    /// All ports of a service that have a protocol.
    Ports(ObjectKey, Protocol),
    /// A port of a service, by its name.
    Port(ObjectKey, Protocol, String),
    /// An endpoint of a service, by its hostname or its dashed address.
    Endpoint(ObjectKey, String),
    /// A pod of a namespace, by its dashed address.
    Pod(String, IpAddr),
    /// No form that anything has.
    Nothing,
}

/// What a whole name is about: lower case, without the dot at its end. `None` outside the cluster's domain.
pub(crate) fn subject(name: &str) -> Option<Subject> {
    let rest = name.strip_suffix(CLUSTER_DOMAIN)?;
    if rest.is_empty() {
        return Some(Subject::Domain);
    }
    let labels: Vec<&str> = rest.strip_suffix('.')?.rsplit('.').collect();
    Some(match labels.as_slice() {
        ["dns-version"] => Subject::Version,
        ["svc" | "pod"] => Subject::Branch(None),
        ["svc" | "pod", namespace] => Subject::Branch(Some((*namespace).to_owned())),
        ["pod", namespace, address] => match dashed(address) {
            Some(address) => Subject::Pod((*namespace).to_owned(), address),
            None => Subject::Nothing,
        },
        ["svc", namespace, service, rest @ ..] => {
            let key = ObjectKey::new(SERVICES, namespace, service);
            match rest {
                [] => Subject::Service(key),
                [one] => match protocol(one) {
                    Some(protocol) => Subject::Ports(key, protocol),
                    None => Subject::Endpoint(key, (*one).to_owned()),
                },
                [protocol_label, port] => match (protocol(protocol_label), port.strip_prefix('_')) {
                    (Some(protocol), Some(port)) => Subject::Port(key, protocol, port.to_owned()),
                    _ => Subject::Nothing,
                },
                _ => Subject::Nothing,
            }
        }
        _ => Subject::Nothing,
    })
}

fn protocol(label: &str) -> Option<Protocol> {
    match label {
        "_tcp" => Some(Protocol::Tcp),
        "_udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// An address whose parts dashes stand between: dots of version 4, colons of version 6.
fn dashed(label: &str) -> Option<IpAddr> {
    label
        .replace('-', ".")
        .parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .ok()
        .or_else(|| label.replace('-', ":").parse::<std::net::Ipv6Addr>().map(IpAddr::V6).ok())
}

/// The label of an endpoint without a hostname.
pub(crate) fn dash(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a name of the reverse tree asks about (`7.0.42.10.in-addr.arpa`).
pub(crate) fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<&str> = rest.rsplit('.').collect();
        return (parts.len() == 4).then(|| parts.join(".").parse::<Ipv4Addr>().ok()).flatten().map(IpAddr::V4);
    }
    let nibbles: String = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    let is_whole = nibbles.len() == 32 && name.len() == 32 * 2 + "ip6.arpa".len();
    let number = u128::from_str_radix(&nibbles, 16).ok().filter(|_| is_whole)?;
    Some(IpAddr::V6(number.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_name_says_what_it_is_about() {
        let web = || ObjectKey::new(SERVICES, "shop", "web");
        let cases = [
            ("cluster.local", Subject::Domain),
            ("dns-version.cluster.local", Subject::Version),
            ("svc.cluster.local", Subject::Branch(None)),
            ("shop.svc.cluster.local", Subject::Branch(Some("shop".into()))),
            ("web.shop.svc.cluster.local", Subject::Service(web())),
            ("_tcp.web.shop.svc.cluster.local", Subject::Ports(web(), Protocol::Tcp)),
            ("_http._tcp.web.shop.svc.cluster.local", Subject::Port(web(), Protocol::Tcp, "http".into())),
            ("http._tcp.web.shop.svc.cluster.local", Subject::Nothing),
            ("db-0.web.shop.svc.cluster.local", Subject::Endpoint(web(), "db-0".into())),
            ("10-42-0-7.shop.pod.cluster.local", Subject::Pod("shop".into(), "10.42.0.7".parse().unwrap())),
            ("10-42.shop.pod.cluster.local", Subject::Nothing),
            ("a.b.c.d.svc.cluster.local", Subject::Nothing),
            ("web.shop.cluster.local", Subject::Nothing),
        ];
        for (name, expected) in cases {
            assert_eq!(subject(name), Some(expected), "{name}");
        }
        for name in ["notcluster.local", "example.com", ""] {
            assert_eq!(subject(name), None, "{name}");
        }
    }

    #[test]
    fn reverse_names_are_addresses_backwards() {
        assert_eq!(reversed("7.0.42.10.in-addr.arpa"), "10.42.0.7".parse().ok());
        assert_eq!(reversed("42.10.in-addr.arpa"), None);
        let loopback = format!("1.{}ip6.arpa", "0.".repeat(31));
        assert_eq!(reversed(&loopback), "::1".parse().ok());
        assert_eq!(reversed("1.0.ip6.arpa"), None);
    }
}
