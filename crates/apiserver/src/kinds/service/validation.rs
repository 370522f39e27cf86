//! What a Service must look like.

use std::net::IpAddr;

use coracle_api::Cause;
use serde_json::{Value, json};

use super::super::endpoints::check_endpoint_ip;
use super::super::value::{items, text};
use super::{is_externally_accessible, is_headless, needs_cluster_ip, needs_health_check, needs_node_port};
use crate::validation::field::{Causes, FieldPath, same};
use crate::validation::label::check_labels;
use crate::validation::name::{dns_label, dns_subdomain, port_number, qualified_name};
use crate::validation::pod_spec::check_ip;
use crate::validation::probe::check_port;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// How long a client can stay with a pod at most, in seconds: a day.
const AFFINITY_MAX: i64 = 86_400;

/// What is wrong with a Service; an update is checked against what it was first.
pub(super) fn check(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let (spec, path) = (&object["spec"], FieldPath::new("spec"));
    let mut causes = Causes::new();
    if let Some(old) = old {
        check_update(spec, &old["spec"], &path, &mut causes);
    }
    if items(spec, "ports").is_empty() && !is_headless(spec) && needs_cluster_ip(spec) {
        causes.required(&path.child("ports"), "");
    }
    check_by_type(spec, &path, &mut causes);
    let ports = items(spec, "ports");
    for (index, port) in ports.iter().enumerate() {
        check_service_port(port, &ports[..index], ports.len() > 1, &path.child("ports").index(index), &mut causes);
    }
    check_labels(&spec["selector"], &path.child("selector"), &mut causes);
    check_affinity(spec, &path, &mut causes);
    if needs_cluster_ip(spec) {
        check_cluster_ips(spec, &path, &mut causes);
    }
    for (index, ip) in items(spec, "externalIPs").iter().enumerate() {
        let at = path.child("externalIPs").index(index);
        let before = causes.len();
        check_ip(ip, &at, &mut causes);
        if causes.len() == before {
            check_endpoint_ip(ip.as_str().unwrap_or_default(), &at, &mut causes);
        }
    }
    causes.one_of(&path.child("type"), text(spec, "type"), &TYPES);
    check_node_ports(spec, &path, &mut causes);
    check_load_balancer(spec, &path, &mut causes);
    check_traffic(spec, &path, &mut causes);
    causes.into_vec()
}

fn check_update(spec: &Value, old: &Value, path: &FieldPath, causes: &mut Causes) {
    if !needs_cluster_ip(spec) || !needs_cluster_ip(old) || (is_headless(spec) && is_headless(old)) {
        return;
    }
    let (new_ips, old_ips) = (items(spec, "clusterIPs"), items(old, "clusterIPs"));
    let at = path.child("clusterIPs").index(0);
    match (new_ips.first(), old_ips.first()) {
        (None, Some(_)) => causes.invalid(&at, json!([]), "primary clusterIP can not be unset"),
        (Some(new), Some(old)) if new != old => {
            causes.invalid(&at, spec["clusterIPs"].clone(), "may not change once set");
        }
        _ => {}
    }
    if is_headless(spec) == is_headless(old) {
        let (new, old) = (items(spec, "ipFamilies").first(), items(old, "ipFamilies").first());
        if old.is_some() && new != old {
            let at = path.child("ipFamilies").index(0);
            causes.invalid(&at, spec["ipFamilies"].clone(), "may not change once set");
        }
    }
    if needs_health_check(spec) && needs_health_check(old) && spec["healthCheckNodePort"] != old["healthCheckNodePort"]
    {
        causes.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
}

fn check_by_type(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    match text(spec, "type") {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let why = format!("may not be set to 'None' for {kind} services");
            causes.invalid(&path.child("clusterIPs").index(0), "None", why);
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !same(&spec[field], &Value::Null) {
                    causes.forbidden(&path.child(field), "may not be set for ExternalName services");
                }
            }
            let (name, at) = (text(spec, "externalName"), path.child("externalName"));
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                causes.required(&at, "");
            } else {
                causes.invalid_each(&at, name, dns_subdomain(name));
            }
        }
        _ => {}
    }
}

fn check_service_port(port: &Value, before: &[Value], several: bool, path: &FieldPath, causes: &mut Causes) {
    let (name, at) = (text(port, "name"), path.child("name"));
    if name.is_empty() {
        if several {
            causes.required(&at, "");
        }
    } else {
        causes.invalid_each(&at, name, dns_label(name));
        if before.iter().any(|other| text(other, "name") == name) {
            causes.duplicate(&at, name);
        }
    }
    let number = port["port"].as_i64().unwrap_or(0);
    causes.invalid_each(&path.child("port"), number, port_number(number));
    causes.one_of(&path.child("protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    check_port(&port["targetPort"], &path.child("targetPort"), causes);
    if let Some(protocol) = port["appProtocol"].as_str() {
        causes.invalid_each(&path.child("appProtocol"), protocol, qualified_name(protocol));
    }
}

fn check_affinity(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    let affinity = text(spec, "sessionAffinity");
    causes.one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let at = path.child("sessionAffinityConfig");
    if affinity == "ClientIP" {
        let seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_i64().unwrap_or(0);
        if !(1..=AFFINITY_MAX).contains(&seconds) {
            let why = format!("must be greater than 0 and less than {AFFINITY_MAX}");
            causes.invalid(&at.children(&["clientIP", "timeoutSeconds"]), seconds, why);
        }
    } else if affinity == "None" && !spec["sessionAffinityConfig"].is_null() {
        causes.forbidden(&at, "must not be set when session affinity is None");
    }
}

fn check_cluster_ips(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    let (one, list, at) = (text(spec, "clusterIP"), items(spec, "clusterIPs"), path.child("clusterIPs"));
    let whole = || spec["clusterIPs"].clone();
    match (one, list.first()) {
        ("", None) => {}
        ("", Some(_)) => causes.invalid(&at, whole(), "must be empty when `clusterIP` is not specified"),
        (_, None) => causes.required(&at, ""),
        (one, Some(first)) if first != one => causes.invalid(&at, whole(), "first value must match `clusterIP`"),
        _ => {}
    }
    check_families(spec, path, causes);
    for (index, ip) in list.iter().enumerate() {
        if index == 0 && ip == "None" {
            if list.len() > 1 {
                causes.invalid(&at, whole(), "'None' must be the first and only value");
            }
        } else {
            check_ip(ip, &at.index(index), causes);
        }
    }
    if list.len() > 2 {
        causes.invalid(&at, whole(), "may only hold up to 2 values");
    }
    let first = list.first().and_then(Value::as_str).and_then(|ip| ip.parse::<IpAddr>().ok());
    if first.is_some_and(|ip| ip.is_ipv6()) && spec["ipFamilies"][0] == "IPv4" {
        causes.invalid(&at.index(0), list[0].clone(), "expected an IPv4 value as indicated by `ipFamilies[0]`");
    }
}

fn check_families(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    let (families, at) = (items(spec, "ipFamilies"), path.child("ipFamilies"));
    for (index, family) in families.iter().enumerate() {
        let name = family.as_str().unwrap_or_default();
        if !matches!(name, "IPv4" | "IPv6") {
            causes.not_supported(&at.index(index), name, &["IPv4", "IPv6"]);
        } else if families[..index].contains(family) {
            causes.duplicate(&at.index(index), name);
        } else if name == "IPv6" && !is_headless(spec) {
            causes.invalid(&at.index(index), name, "not configured on this cluster");
        }
    }
    let (policy, at) = (text(spec, "ipFamilyPolicy"), path.child("ipFamilyPolicy"));
    match policy {
        "" | "SingleStack" | "PreferDualStack" => {}
        "RequireDualStack" if is_headless(spec) && same(&spec["selector"], &Value::Null) => {}
        "RequireDualStack" => causes.invalid(&at, policy, "this cluster is not configured for dual-stack services"),
        _ => causes.not_supported(&at, policy, &["PreferDualStack", "RequireDualStack", "SingleStack"]),
    }
}

fn check_node_ports(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    let ports = items(spec, "ports");
    let node_port = |port: &Value| port["nodePort"].as_i64().unwrap_or(0);
    let at = |index: usize| path.child("ports").index(index);
    if text(spec, "type") == "ClusterIP" {
        for (index, _) in ports.iter().enumerate().filter(|(_, port)| node_port(port) != 0) {
            causes.forbidden(&at(index).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let again = |index: usize, field: &str| {
        let same = |other: &Value| other[field] == ports[index][field] && other["protocol"] == ports[index]["protocol"];
        ports[..index].iter().any(same)
    };
    for (index, port) in ports.iter().enumerate() {
        if node_port(port) != 0 && again(index, "nodePort") {
            causes.duplicate(&at(index).child("nodePort"), node_port(port));
        }
    }
    for (index, port) in ports.iter().enumerate().filter(|(index, _)| again(*index, "port")) {
        let internal = json!({"Name": "", "Protocol": port["protocol"], "AppProtocol": null, "Port": port["port"],
            "TargetPort": 0, "NodePort": 0});
        causes.duplicate(&at(index), internal);
    }
}

fn check_load_balancer(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    if text(spec, "type") == "LoadBalancer" {
        return;
    }
    if !items(spec, "loadBalancerSourceRanges").is_empty() {
        causes.forbidden(&path.child("LoadBalancerSourceRanges"), ONLY);
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !spec[field].is_null() {
            causes.forbidden(&path.child(field), ONLY);
        }
    }
}

fn check_traffic(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    let (policy, at) = (text(spec, "externalTrafficPolicy"), path.child("externalTrafficPolicy"));
    if is_externally_accessible(spec) {
        causes.one_of(&at, policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        causes.invalid(&at, policy, "may only be set for externally-accessible services");
    }
    if let Some(port) = spec["healthCheckNodePort"].as_i64().filter(|port| *port != 0)
        && !needs_health_check(spec)
    {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        causes.invalid(&path.child("healthCheckNodePort"), port, why);
    }
    let (policy, at) = (spec["internalTrafficPolicy"].as_str(), path.child("internalTrafficPolicy"));
    match policy {
        Some(policy) if !matches!(policy, "Cluster" | "Local") => {
            causes.not_supported(&at, policy, &["Cluster", "Local"]);
        }
        None if needs_node_port(spec) || text(spec, "type") == "ClusterIP" => causes.required(&at, ""),
        _ => {}
    }
    if let Some(value) = spec["trafficDistribution"].as_str() {
        let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        if !supported.contains(&value) {
            causes.not_supported(&path.child("trafficDistribution"), value, &supported);
        }
    }
}
