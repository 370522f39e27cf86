//! Services.

mod allocation;
mod validation;

use coracle_api::{Attributes, Cause, Status};
use coracle_base::Now;
use coracle_store::Settlement;
use serde_json::{Value, json};

use super::value::{default, default_zero, items, items_mut, object_mut, restore, set, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::same;
use crate::validation::name::NameRule;

/// The strategy of Services.
#[derive(Debug)]
pub(crate) struct ServiceStrategy;

/// How long a client stays with a pod by default, in seconds: three hours.
const AFFINITY_SECONDS: i64 = 10_800;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Type", "string", descriptions::SERVICE_TYPE),
    table::column("Cluster-IP", "string", descriptions::CLUSTER_IP),
    table::column("External-IP", "string", descriptions::EXTERNAL_IP),
    table::column("Port(s)", "string", descriptions::SERVICE_PORTS),
    table::AGE,
    table::wide("Selector", descriptions::SERVICE_SELECTOR),
];

impl Strategy for ServiceStrategy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default_zero(spec, "sessionAffinity", "None");
        match text(spec, "sessionAffinity") {
            "None" => set(spec, "sessionAffinityConfig", Value::Null),
            "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
                set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
            }
            _ => {}
        }
        default_zero(spec, "type", "ClusterIP");
        for port in items_mut(spec, "ports") {
            default_zero(port, "protocol", "TCP");
            let number = port["port"].clone();
            default_zero(port, "targetPort", number);
        }
        if is_externally_accessible(spec) {
            default_zero(spec, "externalTrafficPolicy", "Cluster");
        }
        if needs_cluster_ip(spec) {
            default(spec, "internalTrafficPolicy", "Cluster");
        }
        if text(spec, "type") == "LoadBalancer" {
            default(spec, "allocateLoadBalancerNodePorts", true);
        }
        if let Some(status) = object_mut(object, "status") {
            object_mut(status, "loadBalancer");
        }
    }

    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        set(object, "status", json!({"loadBalancer": {}}));
        let Some(spec) = object_mut(object, "spec") else { return Ok(()) };
        if !text(spec, "clusterIP").is_empty() && items(spec, "clusterIPs").is_empty() {
            let address = spec["clusterIP"].clone();
            set(spec, "clusterIPs", vec![address]);
        }
        default_families(spec);
        allocation::check(context, object, None)
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        if context.subresource == "status" {
            restore(object, old, "spec");
            return Ok(());
        }
        restore(object, old, "status");
        let (Some(spec), was) = (object_mut(object, "spec"), &old["spec"]) else { return Ok(()) };
        carry_over(spec, was);
        normalize_cluster_ips(spec, was);
        drop_what_no_longer_applies(spec, was);
        default_families(spec);
        if text(spec, "type") != "LoadBalancer" {
            set(&mut object["status"], "loadBalancer", json!({}));
        }
        allocation::check(context, object, Some(old))
    }

    fn validate(&self, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        if subresource == "status" { Vec::new() } else { validation::check(object, old) }
    }

    fn settlements(
        &self,
        context: &mut StrategyContext<'_>,
        object: &Value,
        old: Option<&Value>,
        write: usize,
    ) -> Vec<Settlement> {
        allocation::settlements(context.options, object, old, write)
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn attributes(&self, object: &Value) -> Attributes {
        let spec = &object["spec"];
        let value = |field: &str| (format!("spec.{field}"), text(spec, field).to_owned());
        Attributes::from([value("clusterIP"), value("type")])
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let spec = &object["spec"];
        let cluster_ip = items(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
        table::row([
            table::name(object),
            text(spec, "type").into(),
            cluster_ip.into(),
            external_ip(object).into(),
            table::or(&ports(spec), "<none>").into(),
            table::age(object, now),
            table::labels(spec, "selector").into(),
        ])
    }
}

fn needs_cluster_ip(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn needs_node_port(spec: &Value) -> bool {
    matches!(text(spec, "type"), "NodePort" | "LoadBalancer")
}

fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn is_externally_accessible(spec: &Value) -> bool {
    needs_node_port(spec) || (text(spec, "type") == "ClusterIP" && !items(spec, "externalIPs").is_empty())
}

fn is_headless(spec: &Value) -> bool {
    items(spec, "clusterIPs").len() == 1 && spec["clusterIPs"][0] == "None"
}

/// The cluster has IPv4 only; a headless Service without a selector may list addresses of both families.
fn default_families(spec: &mut Value) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let selectorless = is_headless(spec) && same(&spec["selector"], &Value::Null);
    default(spec, "ipFamilyPolicy", if selectorless { "RequireDualStack" } else { "SingleStack" });
    if items(spec, "ipFamilies").is_empty() {
        let both = selectorless && text(spec, "ipFamilyPolicy") != "SingleStack";
        set(spec, "ipFamilies", if both { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
    }
}

/// Who replaces a Service need not know the addresses and ports that it was given.
fn carry_over(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(spec) {
        if text(spec, "clusterIP").is_empty() {
            restore(spec, old, "clusterIP");
        }
        if items(spec, "clusterIPs").is_empty() && spec["clusterIP"] == old["clusterIP"] {
            restore(spec, old, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if same(&spec[field], &Value::Null) {
                restore(spec, old, field);
            }
        }
    }
    if needs_node_port(old) && needs_node_port(spec) {
        let mut used: Vec<Value> = items(spec, "ports").iter().map(|port| port["nodePort"].clone()).collect();
        for port in items_mut(spec, "ports").iter_mut().filter(|port| port["nodePort"].as_i64().unwrap_or(0) == 0) {
            let mut named = items(old, "ports").iter().filter(|was| text(was, "name") == text(port, "name"));
            if let Some(was) = named.next_back().map(|was| &was["nodePort"])
                && !was.is_null()
                && !used.contains(was)
            {
                used.push(was.clone());
                set(port, "nodePort", was.clone());
            }
        }
    }
    if needs_health_check(old) && needs_health_check(spec) && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
        restore(spec, old, "healthCheckNodePort");
    }
}

/// Who changes one of `clusterIP` and `clusterIPs` means both.
fn normalize_cluster_ips(spec: &mut Value, old: &Value) {
    let same_one = same(&spec["clusterIP"], &old["clusterIP"]);
    let same_list = same(&spec["clusterIPs"], &old["clusterIPs"]);
    if !same_one && (same_list || items(spec, "clusterIPs").is_empty()) {
        let address = spec["clusterIP"].clone();
        set(spec, "clusterIPs", if address.is_null() { Value::Null } else { json!([address]) });
    } else if same_one && !same_list && items(spec, "clusterIPs").is_empty() {
        set(spec, "clusterIP", Value::Null);
    }
}

/// Drops what the old type needed and the new one does not, unless the same change touches it.
fn drop_what_no_longer_applies(spec: &mut Value, old: &Value) {
    let drop_unchanged = |spec: &mut Value, fields: &[&str]| {
        if fields.iter().all(|field| same(&spec[*field], &old[*field])) {
            for field in fields {
                set(spec, field, Value::Null);
            }
        }
    };
    if needs_cluster_ip(old) && !needs_cluster_ip(spec) {
        drop_unchanged(spec, &["clusterIP", "clusterIPs"]);
        drop_unchanged(spec, &["ipFamilies"]);
        drop_unchanged(spec, &["ipFamilyPolicy"]);
        drop_unchanged(spec, &["internalTrafficPolicy"]);
    }
    let node_ports =
        |spec: &Value| -> Vec<Value> { items(spec, "ports").iter().map(|port| port["nodePort"].clone()).collect() };
    if needs_node_port(old) && !needs_node_port(spec) && node_ports(old) == node_ports(spec) {
        for port in items_mut(spec, "ports") {
            set(port, "nodePort", Value::Null);
        }
    }
    if needs_health_check(old) && !needs_health_check(spec) {
        drop_unchanged(spec, &["healthCheckNodePort"]);
    }
    if text(old, "type") == "LoadBalancer" && text(spec, "type") != "LoadBalancer" {
        drop_unchanged(spec, &["allocateLoadBalancerNodePorts"]);
        drop_unchanged(spec, &["loadBalancerClass"]);
    }
    if is_externally_accessible(old) && !is_externally_accessible(spec) {
        drop_unchanged(spec, &["externalTrafficPolicy"]);
    }
}

fn external_ip(object: &Value) -> String {
    let spec = &object["spec"];
    let given = items(spec, "externalIPs").iter().filter_map(|ip| ip.as_str().map(str::to_owned));
    match text(spec, "type") {
        "ClusterIP" | "NodePort" => table::or(&given.collect::<Vec<_>>().join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let ingress = items(&object["status"]["loadBalancer"], "ingress").iter();
            let address = |entry: &Value| table::or(text(entry, "ip"), text(entry, "hostname")).to_owned();
            let mut all: Vec<String> = ingress.map(address).filter(|address| !address.is_empty()).collect();
            all.sort();
            all.dedup();
            all.extend(given);
            table::or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(spec, "externalName").to_owned(),
        _ => "<unknown>".into(),
    }
}

fn ports(spec: &Value) -> String {
    let port = |port: &Value| {
        let (number, protocol) = (port["port"].as_i64().unwrap_or(0), text(port, "protocol"));
        match port["nodePort"].as_i64().unwrap_or(0) {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    };
    items(spec, "ports").iter().map(port).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
