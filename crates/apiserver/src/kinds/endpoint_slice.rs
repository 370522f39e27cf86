//! EndpointSlices: the addresses behind a Service.

use std::net::IpAddr;

use coracle_api::Cause;
use coracle_base::Now;
use serde_json::Value;

use super::endpoints::check_endpoint_ip;
use super::value::{default, default_zero, items, items_mut, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath, same};
use crate::validation::name::{dns_label, dns_subdomain, qualified_name};
use crate::validation::pod_spec::check_ip;

/// The strategy of EndpointSlices.
#[derive(Debug)]
pub(crate) struct EndpointSliceStrategy;

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("AddressType", "string", descriptions::SLICE_ADDRESS_TYPE),
    table::column("Ports", "string", descriptions::SLICE_PORTS),
    table::column("Endpoints", "string", descriptions::SLICE_ENDPOINTS),
    table::AGE,
];

impl Strategy for EndpointSliceStrategy {
    fn default(&self, object: &mut Value) {
        for port in items_mut(object, "ports") {
            default(port, "name", "");
            default_zero(port, "protocol", "TCP");
        }
        for list in ["endpoints", "ports"] {
            // Kubernetes writes both lists even where there is none.
            if object.get(list).is_none()
                && let Some(map) = object.as_object_mut()
            {
                map.insert(list.into(), Value::Null);
            }
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn generation_changed(&self, new: &Value, old: &Value) -> bool {
        let labels = |object: &Value| object["metadata"]["labels"].clone();
        ["endpoints", "ports", "addressType"].iter().any(|field| !same(&new[*field], &old[*field]))
            || !same(&labels(new), &labels(old))
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        causes.one_of(&FieldPath::new("addressType"), text(object, "addressType"), &ADDRESS_TYPES);
        check_ports(items(object, "ports"), &FieldPath::new("ports"), &mut causes);
        if old.is_none_or(|old| old["endpoints"] != object["endpoints"]) {
            check_endpoints(object, &FieldPath::new("endpoints"), &mut causes);
        }
        if let Some(old) = old {
            causes.immutable(&FieldPath::new("addressType"), &object["addressType"], &old["addressType"]);
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let port = |port: &Value| match port["port"].as_i64() {
            Some(number) => number.to_string(),
            None => port["name"].as_str().unwrap_or("*").to_owned(),
        };
        let ports: Vec<String> = items(object, "ports").iter().map(port).collect();
        let addresses = items(object, "endpoints").iter().flat_map(|endpoint| items(endpoint, "addresses"));
        let addresses: Vec<String> = addresses.filter_map(|a| a.as_str().map(str::to_owned)).collect();
        table::row([
            table::name(object),
            text(object, "addressType").into(),
            table::with_more(&ports, "<unset>").into(),
            table::with_more(&addresses, "<unset>").into(),
            table::age(object, now),
        ])
    }
}

fn check_ports(ports: &[Value], path: &FieldPath, causes: &mut Causes) {
    if ports.len() > PORTS_MAX {
        causes.too_many(path, ports.len(), PORTS_MAX);
        return;
    }
    for (index, port) in ports.iter().enumerate() {
        let (at, name) = (path.index(index), text(port, "name"));
        if !name.is_empty() {
            causes.invalid_each(&at.child("name"), name, dns_label(name));
        }
        if ports[..index].iter().any(|other| text(other, "name") == name) {
            causes.duplicate(&at.child("name"), name);
        }
        causes.one_of(&at.child("protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
        if let Some(protocol) = port["appProtocol"].as_str() {
            causes.invalid_each(&at.child("appProtocol"), protocol, qualified_name(protocol));
        }
    }
}

fn check_endpoints(object: &Value, path: &FieldPath, causes: &mut Causes) {
    let endpoints = items(object, "endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        causes.too_many(path, endpoints.len(), ENDPOINTS_MAX);
        return;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let (path, addresses) = (path.index(index), items(endpoint, "addresses"));
        let at = path.child("addresses");
        if addresses.is_empty() {
            causes.required(&at, "must contain at least 1 address");
        } else if addresses.len() > ADDRESSES_MAX {
            causes.too_many(&at, addresses.len(), ADDRESSES_MAX);
        }
        for (index, address) in addresses.iter().enumerate() {
            check_address(address, text(object, "addressType"), &at, index, causes);
        }
        if let Some(node) = endpoint["nodeName"].as_str() {
            causes.invalid_each(&path.child("nodeName"), node, dns_subdomain(node));
        }
        if let Some(hostname) = endpoint["hostname"].as_str() {
            causes.invalid_each(&path.child("hostname"), hostname, dns_label(hostname));
        }
    }
}

fn check_address(address: &Value, kind: &str, list: &FieldPath, index: usize, causes: &mut Causes) {
    let (text, at) = (address.as_str().unwrap_or_default(), list.index(index));
    if kind == "FQDN" {
        let name = text.strip_suffix('.').unwrap_or(text);
        let wrong = dns_subdomain(name);
        if wrong.is_empty() && !name.contains('.') {
            causes.invalid(&at, text, "should be a domain with at least two segments separated by dots");
        }
        causes.invalid_each(&at, text, wrong);
        return;
    }
    let Ok(ip) = text.parse::<IpAddr>() else {
        check_ip(address, &at, causes);
        return;
    };
    if (kind == "IPv4" && !ip.is_ipv4()) || (kind == "IPv6" && !ip.is_ipv6()) {
        causes.invalid(list, text, format!("must be an {kind} address"));
    }
    check_endpoint_ip(text, &at, causes);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn addresses_and_ports_are_checked() {
        let mut object = json!({"addressType": "IPv4", "endpoints": [{}, {"addresses": ["fd00::1"]}],
            "ports": [{"port": 1}, {"port": 2, "protocol": "X"}]});
        EndpointSliceStrategy.default(&mut object);
        assert_eq!(
            texts(EndpointSliceStrategy.validate(&object, None, "")),
            [
                "ports[1].name: Duplicate value: \"\"",
                "ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "endpoints[0].addresses: Required value: must contain at least 1 address",
                "endpoints[1].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
            ]
        );
        let other = json!({"addressType": "IPv6"});
        assert_eq!(
            texts(EndpointSliceStrategy.validate(&json!({"addressType": "IPv4"}), Some(&other), "")),
            ["addressType: Invalid value: \"IPv4\": field is immutable"]
        );
    }

    #[test]
    fn the_row_shows_ports_and_addresses() {
        let object = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}],
            "endpoints": [{"addresses": ["10.42.0.1"]}, {"addresses": ["10.42.0.2"]}]});
        let row = cells(&EndpointSliceStrategy, &object);
        assert_eq!(row, json!(["s", "IPv4", "80,x", "10.42.0.1,10.42.0.2", "<unknown>"]));
        let empty = json!({"metadata": {"name": "s"}, "addressType": "IPv4"});
        assert_eq!(cells(&EndpointSliceStrategy, &empty)[2], "<unset>");
    }
}
