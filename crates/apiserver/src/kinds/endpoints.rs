//! Endpoints: the addresses behind a Service, in the old form.

use std::net::IpAddr;

use coracle_api::Cause;
use coracle_base::Now;
use serde_json::Value;

use super::value::{default_zero, items, items_mut, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::name::{dns_label, dns_subdomain, port_number, qualified_name};
use crate::validation::pod_spec::check_ip;

/// The strategy of Endpoints.
#[derive(Debug)]
pub(crate) struct EndpointsStrategy;

const COLUMNS: &[Column] = &[table::NAME, table::column("Endpoints", "string", descriptions::ENDPOINTS), table::AGE];

impl Strategy for EndpointsStrategy {
    fn default(&self, object: &mut Value) {
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                default_zero(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        // What was accepted once is not judged again.
        if old.is_none_or(|old| old["subsets"] != object["subsets"]) {
            for (index, subset) in items(object, "subsets").iter().enumerate() {
                check_subset(subset, &FieldPath::new("subsets").index(index), &mut causes);
            }
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let endpoints = table::with_more(&addresses(object), "");
        let none = items(object, "subsets").is_empty();
        let cell = if none { "<none>".to_owned() } else { endpoints };
        table::row([table::name(object), cell.into(), table::age(object, now)])
    }
}

/// Every ready address with every port of its subset.
fn addresses(object: &Value) -> Vec<String> {
    let mut list = Vec::new();
    for subset in items(object, "subsets") {
        let ips = items(subset, "addresses").iter().map(|address| text(address, "ip"));
        let ports = items(subset, "ports");
        if ports.is_empty() {
            list.extend(ips.map(str::to_owned));
            continue;
        }
        for port in ports {
            let port = port["port"].as_i64().unwrap_or(0);
            list.extend(
                ips.clone().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    list
}

fn check_subset(subset: &Value, path: &FieldPath, causes: &mut Causes) {
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|list| items(subset, list).is_empty()) {
        causes.required(path, "must specify `addresses` or `notReadyAddresses`");
    }
    for list in lists {
        for (index, address) in items(subset, list).iter().enumerate() {
            check_address(address, &path.child(list).index(index), causes);
        }
    }
    let ports = items(subset, "ports");
    for (index, port) in ports.iter().enumerate() {
        let (path, name) = (path.child("ports").index(index), text(port, "name"));
        if ports.len() > 1 && name.is_empty() {
            causes.required(&path.child("name"), "");
        } else if !name.is_empty() {
            causes.invalid_each(&path.child("name"), name, dns_label(name));
        }
        let number = port["port"].as_i64().unwrap_or(0);
        causes.invalid_each(&path.child("port"), number, port_number(number));
        causes.one_of(&path.child("protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
        if let Some(protocol) = port["appProtocol"].as_str() {
            causes.invalid_each(&path.child("appProtocol"), protocol, qualified_name(protocol));
        }
    }
}

fn check_address(address: &Value, path: &FieldPath, causes: &mut Causes) {
    check_ip(&address["ip"], &path.child("ip"), causes);
    let hostname = text(address, "hostname");
    if !hostname.is_empty() {
        causes.invalid_each(&path.child("hostname"), hostname, dns_label(hostname));
    }
    if let Some(node) = address["nodeName"].as_str() {
        causes.invalid_each(&path.child("nodeName"), node, dns_subdomain(node));
    }
    check_endpoint_ip(text(address, "ip"), &path.child("ip"), causes);
}

/// An address that others can reach: neither unspecified, loopback nor link-local.
pub(super) fn check_endpoint_ip(address: &str, path: &FieldPath, causes: &mut Causes) {
    let Ok(ip) = address.parse::<IpAddr>() else {
        causes.invalid(path, address, "must be a valid IP address");
        return;
    };
    if ip.is_unspecified() {
        causes.invalid(path, address, format!("may not be unspecified ({address})"));
    }
    if ip.is_loopback() {
        causes.invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        causes.invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        causes.invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn subsets_are_checked_unless_they_are_as_they_were() {
        let mut object = json!({"subsets": [{}, {"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}],
            "ports": [{"port": 0}, {"name": "b", "port": 1}]}]});
        EndpointsStrategy.default(&mut object);
        assert_eq!(
            texts(EndpointsStrategy.validate(&object, None, "")),
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
                 ::1/128)",
                "subsets[1].addresses[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)",
                "subsets[1].addresses[1].ip: Invalid value: \"x\": must be a valid IP address",
                "subsets[1].ports[0].name: Required value",
                "subsets[1].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
        assert!(EndpointsStrategy.validate(&object, Some(&object), "").is_empty());
    }

    #[test]
    fn the_row_shows_three_addresses() {
        let object = json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "10.42.0.1"}, {"ip": "10.42.0.2"}],
            "ports": [{"port": 80}, {"port": 443}]}]});
        let shown = "10.42.0.1:80,10.42.0.2:80,10.42.0.1:443 + 1 more...";
        assert_eq!(cells(&EndpointsStrategy, &object), json!(["e", shown, "<unknown>"]));
        assert_eq!(cells(&EndpointsStrategy, &json!({"metadata": {"name": "e"}}))[1], "<none>");
    }
}
