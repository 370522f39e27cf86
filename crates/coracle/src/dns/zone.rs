//! The cluster's zone: what a question about a name of its is answered with, out of a view. A pure function, and all that Kubernetes'
//! DNS specification asks for.

use std::net::IpAddr;

use coracle_api::ObjectKey;
use coracle_api::resources::{ENDPOINT_SLICES, NAMESPACES, SERVICES};
use coracle_store::View;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::names::{self, CLUSTER_DOMAIN, Subject};
use crate::dialer::{self, Protocol, Published};

/// For how long an answer holds, in seconds: CoreDNS' default for Kubernetes. Negative answers hold as long.
pub(crate) const TTL_SECONDS: u32 = 5;
/// How many external names may lead to one another.
const ALIASES_MAX: usize = 8;
/// The version of the specification.
const VERSION: &str = "1.1.0";
/// The label of slices whose service has no address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) answers: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
    /// What the zone leaves to the world, after the aliases among the answers.
    pub(crate) elsewhere: Option<Name>,
    /// Whether nobody has the name at all.
    pub(crate) no_name: bool,
}

impl Answer {
    fn of(answers: Vec<Record>) -> Self {
        Self { answers, ..Self::default() }
    }

    fn no_name() -> Self {
        Self { no_name: true, ..Self::default() }
    }

    fn elsewhere(name: Name) -> Self {
        Self { elsewhere: Some(name), ..Self::default() }
    }
}

/// Answers a question; `is_ours` says whether an address is of the cluster's ranges, so that nobody outside is asked about it.
pub(crate) fn answer(view: &View, question: &Name, kind: RecordType, is_ours: impl Fn(IpAddr) -> bool) -> Answer {
    let text = text_of(question);
    if let Some(address) = names::reversed(&text) {
        return reverse(view, question, kind, address, is_ours(address));
    }
    follow(view, question, kind, 0)
}

fn text_of(name: &Name) -> String {
    let mut text = name.to_ascii().to_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn follow(view: &View, owner: &Name, kind: RecordType, aliases: usize) -> Answer {
    let Some(subject) = names::subject(&text_of(owner)) else { return Answer::elsewhere(owner.clone()) };
    match subject {
        Subject::Domain => Answer::of(domain(owner, kind)),
        Subject::Version => Answer::of(version(owner, kind)),
        Subject::Branch(None) => Answer::default(),
        Subject::Branch(Some(namespace)) if has_namespace(view, &namespace) => Answer::default(),
        Subject::Pod(namespace, address) if has_namespace(view, &namespace) => Answer::of(host(owner, kind, [address])),
        Subject::Service(key) => match dialer::external_name(view, &key) {
            Some(other) => alias(view, owner, kind, &other, aliases),
            None => service(view, owner, kind, &key),
        },
        Subject::Endpoint(key, label) => endpoint(view, owner, kind, &key, &label),
        Subject::Ports(key, protocol) => {
            let found = ports(view, owner, &key, |_, p| p == protocol);
            if found.answers.is_empty() { Answer::no_name() } else { Answer::default() }
        }
        Subject::Port(key, protocol, name) => {
            let found = ports(view, owner, &key, |port, p| p == protocol && port == name);
            match (found.answers.is_empty(), kind) {
                (true, _) => Answer::no_name(),
                (false, RecordType::SRV | RecordType::ANY) => found,
                (false, _) => Answer::default(),
            }
        }
        Subject::Branch(_) | Subject::Pod(..) | Subject::Nothing => Answer::no_name(),
    }
}

fn has_namespace(view: &View, name: &str) -> bool {
    view.object(&ObjectKey::new(NAMESPACES, "", name)).is_some()
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TTL_SECONDS, data)
}

/// The address records of a name.
fn host(owner: &Name, kind: RecordType, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Record> {
    let wanted = |address: &IpAddr| match kind {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        kind => kind == RecordType::ANY,
    };
    let data = |address| match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    addresses.into_iter().filter(wanted).map(|address| record(owner, data(address))).collect()
}

fn domain(owner: &Name, kind: RecordType) -> Vec<Record> {
    match kind {
        RecordType::SOA => authority().into_iter().collect(),
        RecordType::NS => server().map(|server| record(owner, RData::NS(NS(server)))).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn version(owner: &Name, kind: RecordType) -> Vec<Record> {
    if matches!(kind, RecordType::TXT | RecordType::ANY) {
        return vec![record(owner, RData::TXT(TXT::new(vec![VERSION.into()])))];
    }
    Vec::new()
}

fn server() -> Option<Name> {
    Name::from_ascii(format!("ns.dns.{CLUSTER_DOMAIN}.")).ok()
}

/// The record that negative answers carry, which says how long they hold.
pub(crate) fn authority() -> Option<Record> {
    let zone = Name::from_ascii(format!("{CLUSTER_DOMAIN}.")).ok()?;
    let person = Name::from_ascii(format!("hostmaster.{CLUSTER_DOMAIN}.")).ok()?;
    let soa = SOA::new(server()?, person, 1, 7_200, 1_800, 86_400, TTL_SECONDS);
    Some(Record::from_rdata(zone, TTL_SECONDS, RData::SOA(soa)))
}

fn alias(view: &View, owner: &Name, kind: RecordType, other: &str, aliases: usize) -> Answer {
    let Ok(mut target) = Name::from_ascii(other) else { return Answer::default() };
    target.set_fqdn(true);
    let alias = record(owner, RData::CNAME(CNAME(target.clone())));
    if kind == RecordType::CNAME || aliases >= ALIASES_MAX {
        return Answer::of(vec![alias]);
    }
    let mut rest = follow(view, &target, kind, aliases + 1);
    rest.answers.insert(0, alias);
    // The name that was asked for is there, whatever it stands for.
    rest.no_name = false;
    rest
}

fn service(view: &View, owner: &Name, kind: RecordType, key: &ObjectKey) -> Answer {
    let Some(service) = dialer::service(view, key) else { return Answer::no_name() };
    if matches!(kind, RecordType::SRV) {
        return ports(view, owner, key, |_, _| true);
    }
    if let Some(address) = service.address() {
        return Answer::of(host(owner, kind, [address]));
    }
    let ready = dialer::published(view, key);
    if ready.is_empty() {
        return Answer::no_name();
    }
    Answer::of(host(owner, kind, ready.iter().map(|endpoint| endpoint.address)))
}

fn endpoint(view: &View, owner: &Name, kind: RecordType, key: &ObjectKey, label: &str) -> Answer {
    let is_headless = dialer::service(view, key).is_some_and(|service| service.address().is_none());
    let ready = if is_headless { dialer::published(view, key) } else { Vec::new() };
    let addresses: Vec<IpAddr> =
        ready.iter().filter(|endpoint| label_of(endpoint) == label).map(|endpoint| endpoint.address).collect();
    if addresses.is_empty() { Answer::no_name() } else { Answer::of(host(owner, kind, addresses)) }
}

/// The label of an endpoint: its hostname, or its address.
fn label_of(endpoint: &Published) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| names::dash(endpoint.address))
}

/// The SRV records of the ports that `fits` accepts, with the addresses of their targets.
fn ports(view: &View, owner: &Name, key: &ObjectKey, fits: impl Fn(&str, Protocol) -> bool) -> Answer {
    let Some(service) = dialer::service(view, key) else { return Answer::no_name() };
    let Ok(base) = Name::from_ascii(format!("{}.{}.svc.{CLUSTER_DOMAIN}.", key.name, key.namespace)) else {
        return Answer::no_name();
    };
    let mut answer = Answer::default();
    let mut add = |port: u16, target: &Name, address: IpAddr| {
        answer.answers.push(record(owner, RData::SRV(SRV::new(0, 100, port, target.clone()))));
        let kind = if address.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        for additional in host(target, kind, [address]) {
            if !answer.additionals.contains(&additional) {
                answer.additionals.push(additional);
            }
        }
    };
    if let Some(address) = service.address() {
        for port in service.spec.ports.iter().flatten() {
            if let (Some(number), Some(protocol)) = (port.port, port.protocol())
                && fits(port.name(), protocol)
            {
                add(number, &base, address);
            }
        }
    } else {
        for endpoint in dialer::published(view, key) {
            let Ok(target) = base.prepend_label(label_of(&endpoint).as_str()) else { continue };
            for (name, number, protocol) in &endpoint.ports {
                if fits(name, *protocol) {
                    add(*number, &target, endpoint.address);
                }
            }
        }
    }
    answer
}

/// Who has an address: a service, or endpoints of headless ones.
fn reverse(view: &View, owner: &Name, kind: RecordType, address: IpAddr, is_ours: bool) -> Answer {
    let mut owners = Vec::new();
    if let Some(key) = dialer::service_at(view, address) {
        owners.push(format!("{}.{}.svc.{CLUSTER_DOMAIN}.", key.name, key.namespace));
    } else if is_ours {
        for slice in view.list(&ENDPOINT_SLICES, None) {
            let labels = &slice.metadata().labels;
            let Some(service) = labels.get(SERVICE_NAME).filter(|_| labels.contains_key(HEADLESS)) else { continue };
            let key = ObjectKey::new(SERVICES, &slice.key().namespace, service);
            let of_slice = dialer::published_in(view, slice).into_iter().filter(|e| e.address == address);
            for endpoint in of_slice {
                owners.push(format!("{}.{}.{}.svc.{CLUSTER_DOMAIN}.", label_of(&endpoint), key.name, key.namespace));
            }
        }
    }
    owners.sort();
    owners.dedup();
    match (owners.is_empty(), is_ours) {
        (true, true) => Answer::no_name(),
        (true, false) => Answer::elsewhere(owner.clone()),
        (false, _) if !matches!(kind, RecordType::PTR | RecordType::ANY) => Answer::default(),
        (false, _) => {
            let names = owners.iter().filter_map(|name| Name::from_ascii(name).ok());
            Answer::of(names.map(|name| record(owner, RData::PTR(PTR(name)))).collect())
        }
    }
}

#[cfg(test)]
mod tests;
