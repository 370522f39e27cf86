//! Nodes.

use std::net::Ipv4Addr;

use coracle_api::{Attributes, Cause, ObjectKey, Status, resources};
use coracle_base::Now;
use coracle_store::{Pool, Render, Settlement, Want};
use serde_json::{Value, json};

use super::pod::round_list;
use super::value::{entries, items, object_mut, present_mut, restore, set, text};
use super::{descriptions, table};
use crate::ServerOptions;
use crate::authorize::node::check_created_node;
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::placement::check_taints;
use crate::validation::resources::check_amount;

/// The strategy of Nodes.
#[derive(Debug)]
pub(crate) struct NodeStrategy;

/// The name of the pool of pod ranges; a value is the first address of a range.
pub(crate) const POD_RANGES: &str = "pod-ranges";
/// How many bits of a node's pod range are fixed.
const POD_RANGE_PREFIX: u8 = 24;
/// A node is not scheduled to until its Ready condition says so.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "string", "The status of the node"),
    table::column("Roles", "string", "The roles of the node"),
    table::AGE,
    table::column("Version", "string", descriptions::KUBELET_VERSION),
    table::wide("Internal-IP", descriptions::NODE_ADDRESSES),
    table::wide("External-IP", descriptions::NODE_ADDRESSES),
    table::wide("OS-Image", descriptions::OS_IMAGE),
    table::wide("Kernel-Version", descriptions::KERNEL_VERSION),
    table::wide("Container-Runtime", descriptions::CONTAINER_RUNTIME),
];

impl Strategy for NodeStrategy {
    fn default(&self, object: &mut Value) {
        object_mut(object, "spec");
        let Some(status) = object_mut(object, "status") else { return };
        if status["allocatable"].is_null() && !status["capacity"].is_null() {
            let capacity = status["capacity"].clone();
            set(status, "allocatable", capacity);
        }
        for list in ["capacity", "allocatable"] {
            if let Some(list) = present_mut(status, list) {
                round_list(list);
            }
        }
        if let Some(endpoint) =
            object_mut(status, "daemonEndpoints").and_then(|endpoints| object_mut(endpoints, "kubeletEndpoint"))
        {
            super::value::default(endpoint, "Port", 0);
        }
        if let Some(info) = object_mut(status, "nodeInfo") {
            for field in [
                "architecture",
                "bootID",
                "containerRuntimeVersion",
                "kernelVersion",
                "kubeProxyVersion",
                "kubeletVersion",
                "machineID",
                "operatingSystem",
                "osImage",
                "systemUUID",
            ] {
                super::value::default(info, field, "");
            }
        }
    }

    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        check_created_node(&context.request.user, text(&object["metadata"], "name"))?;
        let Some(spec) = object_mut(object, "spec") else { return Ok(()) };
        let mut taints = items(spec, "taints").to_vec();
        if !taints.iter().any(|taint| text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule") {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        set(spec, "taints", taints);
        mirror_pod_ranges(spec);
        Ok(())
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        if context.subresource == "status" {
            restore(object, old, "spec");
            return Ok(());
        }
        restore(object, old, "status");
        let Some(spec) = object_mut(object, "spec") else { return Ok(()) };
        // Who replaces a node need not know the range that it was given.
        if text(spec, "podCIDR").is_empty() && items(spec, "podCIDRs").is_empty() {
            for field in ["podCIDR", "podCIDRs"] {
                restore(spec, &old["spec"], field);
            }
        }
        mirror_pod_ranges(spec);
        Ok(())
    }

    fn validate(&self, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (at_spec, mut causes) = (FieldPath::new("spec"), Causes::new());
        check_resources(status, &mut causes);
        if let Some(old) = old {
            check_update(spec, &old["spec"], &at_spec, &mut causes);
            let addresses = items(status, "addresses");
            for (index, address) in addresses.iter().enumerate().filter(|(i, a)| addresses[..*i].contains(a)) {
                causes.duplicate(&FieldPath::new("status").child("addresses").index(index), address.clone());
            }
        }
        if subresource != "status" {
            // Kubernetes reports taints as if they were metadata.
            check_taints(items(spec, "taints"), &FieldPath::new("metadata").child("taints"), &mut causes);
            for (index, range) in items(spec, "podCIDRs").iter().enumerate() {
                if parse_range(range.as_str().unwrap_or_default()).is_none() {
                    let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                    causes.invalid(&at_spec.child("podCIDRs").index(index), range.clone(), why);
                }
            }
        }
        causes.into_vec()
    }

    fn settlements(
        &self,
        context: &mut StrategyContext<'_>,
        object: &Value,
        old: Option<&Value>,
        write: usize,
    ) -> Vec<Settlement> {
        let spec = &object["spec"];
        let given = items(spec, "podCIDRs").first().and_then(Value::as_str).unwrap_or_default();
        // A range that is not the cluster's to give is the user's own business, and so is one that is smaller than those it gives.
        let wants = match parse_range(given) {
            None => vec![Want::Any],
            Some(range) if old.is_none() => parts(context.options, range).map(Want::Exactly).collect(),
            Some(_) => Vec::new(),
        };
        let pointers =
            if given.is_empty() { vec!["/spec/podCIDR".into(), "/spec/podCIDRs/-".into()] } else { Vec::new() };
        let owner = ObjectKey::new(resources::NODES, "", text(&object["metadata"], "name"));
        let allocate = |want| Settlement::Allocate {
            pool: pod_ranges(context.options),
            owner: owner.clone(),
            want,
            write,
            pointers: pointers.clone(),
            render: Render::Ipv4Range(POD_RANGE_PREFIX),
            attribute: None,
        };
        wants.into_iter().map(allocate).collect()
    }

    fn attributes(&self, object: &Value) -> Attributes {
        let unschedulable = object["spec"]["unschedulable"] == true;
        Attributes::from([("spec.unschedulable".into(), unschedulable.to_string())])
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let info = &object["status"]["nodeInfo"];
        let address = |kind: &str| {
            let mut addresses = items(&object["status"], "addresses").iter();
            addresses.find(|a| text(a, "type") == kind).map_or("<none>", |address| text(address, "address"))
        };
        let mut kernel = table::or(text(info, "kernelVersion"), "<unknown>").to_owned();
        if !text(info, "architecture").is_empty() {
            kernel = format!("{kernel} ({})", text(info, "architecture"));
        }
        table::row([
            table::name(object),
            state(object).into(),
            roles(object).into(),
            table::age(object, now),
            text(info, "kubeletVersion").into(),
            address("InternalIP").into(),
            address("ExternalIP").into(),
            table::or(text(info, "osImage"), "<unknown>").into(),
            kernel.into(),
            table::or(text(info, "containerRuntimeVersion"), "<unknown>").into(),
        ])
    }
}

fn state(object: &Value) -> String {
    let conditions = items(&object["status"], "conditions");
    let ready = conditions.iter().find(|condition| text(condition, "type") == "Ready");
    let ready = match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if object["spec"]["unschedulable"] == true { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(object: &Value) -> String {
    let labels = entries(&object["metadata"], "labels");
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    table::or(&roles.join(","), "<none>").to_owned()
}

/// `podCIDR` is an old name of the first of `podCIDRs`.
fn mirror_pod_ranges(spec: &mut Value) {
    let first = items(spec, "podCIDRs").first().cloned();
    match (text(spec, "podCIDR").to_owned(), first) {
        (range, None) if !range.is_empty() => set(spec, "podCIDRs", vec![range]),
        (range, Some(first)) if range.is_empty() => set(spec, "podCIDR", first),
        _ => {}
    }
}

fn check_resources(status: &Value, causes: &mut Causes) {
    for list in ["capacity", "allocatable"] {
        for (name, amount) in entries(status, list) {
            check_amount(name, amount, &FieldPath::new("status").child(list).key(name), causes);
        }
    }
}

fn check_update(spec: &Value, old: &Value, path: &FieldPath, causes: &mut Causes) {
    if !items(old, "podCIDRs").is_empty() && items(old, "podCIDRs") != items(spec, "podCIDRs") {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        causes.forbidden(&path.child("podCIDRs"), why);
    }
    if !text(old, "providerID").is_empty() && text(old, "providerID") != text(spec, "providerID") {
        let why = "node updates may not change providerID except from \"\" to valid";
        causes.forbidden(&path.child("providerID"), why);
    }
}

/// The pool whose values are the numbers of the pod range's addresses that start a node's range.
fn pod_ranges(options: &ServerOptions) -> Pool {
    let first = u64::from(u32::from(options.pod_network));
    let size = 1u64 << (32 - options.pod_prefix.min(POD_RANGE_PREFIX));
    Pool { name: POD_RANGES.into(), low: first, high: first + size - 1 }
}

/// The values of the pool that make up a range of the cluster's: one, or more for a wider one; none for any other range.
fn parts(options: &ServerOptions, (first, prefix): (Ipv4Addr, u8)) -> impl Iterator<Item = u64> + use<> {
    let pool = pod_ranges(options);
    let value = u64::from(u32::from(first));
    let is_own = (options.pod_prefix..=POD_RANGE_PREFIX).contains(&prefix) && (pool.low..=pool.high).contains(&value);
    let size = if is_own { 1_u64 << (32 - prefix) } else { 0 };
    (value..value + size).step_by(1 << (32 - POD_RANGE_PREFIX))
}

fn parse_range(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{World, cells, texts};

    fn node() -> Value {
        json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "status": {"capacity": {"cpu": 2}, "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1", "architecture": "amd64"}}})
    }

    #[test]
    fn a_new_node_is_tainted_and_gets_a_pod_range() {
        let mut object = node();
        let mut world = World::new();
        world.create(&NodeStrategy, &mut object).unwrap();
        assert_eq!(object["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
        assert_eq!(object["status"]["allocatable"], json!({"cpu": "2"}));
        let settlements = world.settlements(&NodeStrategy, &object, None);
        let [Settlement::Allocate { pool, want: Want::Any, pointers, render, .. }] = &settlements[..] else {
            panic!("{settlements:?}")
        };
        let first = u64::from(u32::from(Ipv4Addr::new(10, 42, 0, 0)));
        assert_eq!((pool.low, pool.high), (first, first + 65_535));
        assert_eq!((pointers.join(" "), *render), ("/spec/podCIDR /spec/podCIDRs/-".to_owned(), Render::Ipv4Range(24)));
        object["spec"]["podCIDRs"] = json!(["10.42.3.0/24"]);
        assert!(world.settlements(&NodeStrategy, &object, Some(&object)).is_empty());
    }

    #[test]
    fn a_wider_pod_range_is_held_as_a_whole() {
        let mut world = World::new();
        let mut held = |range: &str| -> Vec<u64> {
            let mut object = node();
            object["spec"] = json!({"podCIDR": range, "podCIDRs": [range]});
            let settlements = world.settlements(&NodeStrategy, &object, None);
            let exact = settlements.iter().map(|settlement| match settlement {
                Settlement::Allocate { want: Want::Exactly(value), pointers, .. } if pointers.is_empty() => *value,
                other => panic!("{other:?}"),
            });
            exact.collect()
        };
        let first = u64::from(u32::from(Ipv4Addr::new(10, 42, 4, 0)));
        assert_eq!(held("10.42.4.0/24"), [first]);
        assert_eq!(held("10.42.4.0/22"), [first, first + 256, first + 512, first + 768]);
        // The last is wider than the cluster's own range, and part of it.
        for foreign in ["192.0.2.0/24", "10.42.4.0/25", "10.42.0.0/15"] {
            assert!(held(foreign).is_empty(), "{foreign}");
        }
    }

    #[test]
    fn a_pod_range_stays_and_is_carried_over() {
        let mut old = node();
        old["spec"] = json!({"podCIDR": "10.42.3.0/24", "podCIDRs": ["10.42.3.0/24"], "providerID": "p"});
        let mut new = node();
        World::new().update(&NodeStrategy, "", &mut new, &old).unwrap();
        assert_eq!(new["spec"]["podCIDRs"], old["spec"]["podCIDRs"]);
        new["spec"]["podCIDRs"] = json!(["10.42.4.0/24"]);
        assert_eq!(
            texts(NodeStrategy.validate(&new, Some(&old), "")),
            [
                "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid",
                "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            ]
        );
    }

    #[test]
    fn taints_resources_and_ranges_are_checked() {
        let object =
            json!({"spec": {"taints": [{"key": "a"}], "podCIDRs": ["x"]}, "status": {"capacity": {"pods": "0.5"}}});
        assert_eq!(
            texts(NodeStrategy.validate(&object, None, "")),
            [
                "status.capacity[pods]: Invalid value: \"500m\": must be an integer",
                "metadata.taints[0].effect: Required value",
                "spec.podCIDRs[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ]
        );
    }

    #[test]
    fn the_row_shows_state_roles_and_versions() {
        let mut object = node();
        assert_eq!(
            cells(&NodeStrategy, &object),
            json!([
                "n",
                "Ready",
                "control-plane",
                "<unknown>",
                "v1.36.0",
                "127.0.0.1",
                "<none>",
                "<unknown>",
                "6.1 (amd64)",
                "<unknown>"
            ])
        );
        object["spec"]["unschedulable"] = true.into();
        object["status"]["conditions"][0]["status"] = "Unknown".into();
        assert_eq!(cells(&NodeStrategy, &object)[1], "NotReady,SchedulingDisabled");
        assert_eq!(NodeStrategy.attributes(&object)["spec.unschedulable"], "true");
    }
}
