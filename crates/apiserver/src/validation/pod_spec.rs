//! The specs of pods and of the templates of pods.

use serde_json::Value;

use super::container::{PodContext, check_containers, check_init_containers};
use super::field::{Causes, FieldPath};
use super::label::check_labels;
use super::meta::check_annotations;
use super::name::{dns_label, dns_subdomain, qualified_name};
use super::{placement, resources, volume};
use crate::kinds::value::{items, text};

/// Whether a spec is a pod's own or a template's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A pod's: everything that a pod gets by default must be there.
    Pod,
    /// A template's.
    Template,
}

/// Checks a pod template: labels, annotations, spec.
pub(crate) fn check_template(template: &Value, path: &FieldPath, causes: &mut Causes) {
    let meta = &template["metadata"];
    check_labels(&meta["labels"], &path.child("labels"), causes);
    check_annotations(&meta["annotations"], &path.child("annotations"), causes);
    let (spec, path) = (&template["spec"], path.child("spec"));
    check(spec, Owner::Template, &path, causes);
    if !items(spec, "ephemeralContainers").is_empty() {
        causes.forbidden(&path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Checks a pod spec, in Kubernetes' order.
pub(crate) fn check(spec: &Value, owner: Owner, path: &FieldPath, causes: &mut Causes) {
    let grace = spec["terminationGracePeriodSeconds"].as_i64();
    if grace.is_none() {
        causes.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volume::check_volumes(items(spec, "volumes"), &path.child("volumes"), causes);
    let pod = PodContext { volumes, grace };
    let (containers, init) = (items(spec, "containers"), items(spec, "initContainers"));
    check_containers(containers, &pod, &path.child("containers"), causes);
    check_init_containers(init, containers, &pod, &path.child("initContainers"), causes);
    if !spec["resources"].is_null() {
        resources::check(&spec["resources"], &path.child("resources"), causes);
    }
    check_host_network(spec, owner, path, causes);
    let policies = [
        ("restartPolicy", &["Always", "OnFailure", "Never"][..]),
        ("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
    ];
    for (field, supported) in policies {
        causes.one_of(&path.child(field), text(spec, field), supported);
    }
    placement::check_node_labels(&spec["nodeSelector"], &path.child("nodeSelector"), causes);
    placement::check_pod_security_context(&spec["securityContext"], spec, &path.child("securityContext"), causes);
    placement::check_affinity(&spec["affinity"], &path.child("affinity"), causes);
    check_dns_config(spec, path, causes);
    check_gates(spec, path, causes);
    let spread = items(spec, "topologySpreadConstraints");
    placement::check_spread(spread, &path.child("topologySpreadConstraints"), causes);
    check_names(spec, path, causes);
    placement::check_tolerations(items(spec, "tolerations"), &path.child("tolerations"), causes);
    check_host_aliases(spec, path, causes);
    check_classes(spec, path, causes);
}

fn check_host_network(spec: &Value, owner: Owner, path: &FieldPath, causes: &mut Causes) {
    if spec["hostNetwork"] != true {
        return;
    }
    for (container_index, container) in items(spec, "containers").iter().enumerate() {
        for (port_index, port) in items(container, "ports").iter().enumerate() {
            let host = port["hostPort"].as_i64().unwrap_or(0);
            // A template's ports are completed when its pods are made.
            let settled = owner == Owner::Pod || host != 0;
            if settled && host != port["containerPort"].as_i64().unwrap_or(0) {
                let at = path.child("containers").index(container_index).child("ports").index(port_index);
                let why = "must match `containerPort` when `hostNetwork` is true";
                causes.invalid(&at.child("hostPort"), host, why);
            }
        }
    }
}

fn check_dns_config(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    const NAMESERVERS_MAX: usize = 3;
    const SEARCHES_MAX: usize = 32;
    let (config, path) = (&spec["dnsConfig"], path.child("dnsConfig"));
    let servers = items(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            causes.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            causes.required(&path.child("nameservers"), why);
            return;
        }
    }
    if servers.len() > NAMESERVERS_MAX {
        let why = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        causes.invalid(&path.child("nameservers"), config["nameservers"].clone(), why);
    }
    for (index, server) in servers.iter().enumerate() {
        check_ip(server, &path.child("nameservers").index(index), causes);
    }
    let searches = items(config, "searches");
    if searches.len() > SEARCHES_MAX {
        let why = format!("must not have more than {SEARCHES_MAX} search paths");
        causes.invalid(&path.child("searches"), config["searches"].clone(), why);
    }
    for (index, search) in searches.iter().enumerate() {
        let search = search.as_str().unwrap_or_default();
        let name = search.strip_suffix('.').unwrap_or(search).replace('_', "");
        if search != "." {
            causes.invalid_each(&path.child("searches").index(index), search, dns_subdomain(&name));
        }
    }
    for (index, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            causes.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

fn check_gates(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    for (index, gate) in items(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        let at = path.child("readinessGates").index(index).child("conditionType");
        causes.invalid_each(&at, kind, qualified_name(kind));
    }
    let gates = items(spec, "schedulingGates");
    for (index, gate) in gates.iter().enumerate() {
        let (name, at) = (text(gate, "name"), path.child("schedulingGates").index(index));
        causes.invalid_each(&at, name, qualified_name(name));
        if gates[..index].iter().any(|other| text(other, "name") == name) {
            causes.duplicate(&at, name);
        }
    }
}

fn check_names(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    let mut check = |field: &str, rule: fn(&str) -> Vec<String>| {
        let name = text(spec, field);
        if !name.is_empty() {
            causes.invalid_each(&path.child(field), name, rule(name));
        }
    };
    check("serviceAccountName", dns_subdomain);
    check("nodeName", dns_subdomain);
    check("hostname", dns_label);
    check("subdomain", dns_label);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        causes.invalid(&path.child("activeDeadlineSeconds"), seconds, "must be between 1 and 2147483647, inclusive");
    }
}

fn check_host_aliases(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    for (index, alias) in items(spec, "hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        check_ip(&alias["ip"], &path.child("ip"), causes);
        for (index, name) in items(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            causes.invalid_each(&path.child("hostnames").index(index), name, dns_subdomain(name));
        }
    }
}

fn check_classes(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    for field in ["priorityClassName", "runtimeClassName"] {
        // An empty runtime class is a name that is wrong, an empty priority class is none.
        if let Some(name) = spec[field].as_str().filter(|name| !name.is_empty() || field == "runtimeClassName") {
            causes.invalid_each(&path.child(field), name, dns_subdomain(name));
        }
    }
    if let Some(policy) = spec["preemptionPolicy"].as_str() {
        causes.one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    resources::check_overhead(&spec["overhead"], &path.child("overhead"), causes);
    if !spec["os"].is_null() {
        causes.one_of(&path.child("os").child("name"), text(&spec["os"], "name"), &["linux", "windows"]);
    }
}

/// Checks that a text is an address.
pub(crate) fn check_ip(value: &Value, path: &FieldPath, causes: &mut Causes) {
    let address = value.as_str().unwrap_or_default();
    if address.parse::<std::net::IpAddr>().is_err() {
        causes.invalid(path, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::pod::default_spec;
    use crate::kinds::testing::texts;

    fn wrong(mut spec: Value) -> Vec<String> {
        default_spec(&mut spec);
        let mut causes = Causes::new();
        check(&spec, Owner::Pod, &FieldPath::new("spec"), &mut causes);
        texts(causes.into_vec())
    }

    /// A spec of one container with more fields.
    fn with(container: &Value) -> Value {
        let mut whole = json!({"name": "a", "image": "b"});
        whole.as_object_mut().unwrap().append(&mut container.as_object().unwrap().clone());
        json!({"containers": [whole]})
    }

    #[test]
    fn a_pod_has_containers_with_names_and_images() {
        assert_eq!(wrong(json!({})), ["spec.containers: Required value"]);
        assert_eq!(
            wrong(json!({"containers": [{}, {"name": "a", "image": "b"}, {"name": "a", "image": "b"}]})),
            [
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Required value",
                "spec.containers[2].name: Duplicate value: \"a\"",
            ]
        );
        assert!(wrong(with(&json!({}))).is_empty());
    }

    #[test]
    fn ports_and_variables_are_checked() {
        let ports = json!({"ports": [{"name": "web", "containerPort": 0}, {"name": "web", "containerPort": 70000, "protocol": "X"}]});
        assert_eq!(
            wrong(with(&ports)),
            [
                "spec.containers[0].ports[0].containerPort: Required value",
                "spec.containers[0].ports[1].name: Duplicate value: \"web\"",
                "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ]
        );
        let env = json!({"env": [{"name": "a=b"}, {}, {"name": "c", "value": "d", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}},
            {"name": "e", "valueFrom": {}}], "envFrom": [{}, {"configMapRef": {}}]});
        assert_eq!(
            wrong(with(&env)),
            [
                "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only \
                 of printable ASCII characters other than '='",
                "spec.containers[0].env[1].name: Required value",
                "spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting \
                 fieldPath: field label not supported: spec.x",
                "spec.containers[0].env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                "spec.containers[0].env[3].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
                 `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                "spec.containers[0].envFrom[1].configMapRef.name: Required value",
            ]
        );
    }

    #[test]
    fn a_mount_names_a_volume() {
        let mounts = json!({"volumeMounts": [{"name": "x", "mountPath": "/a"}, {"name": "x", "mountPath": "/a"}, {"name": "x"}]});
        assert_eq!(
            wrong(with(&mounts)),
            [
                "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
                "spec.containers[0].volumeMounts[1].name: Not found: \"x\"",
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
                "spec.containers[0].volumeMounts[2].name: Not found: \"x\"",
                "spec.containers[0].volumeMounts[2].mountPath: Required value",
            ]
        );
    }

    #[test]
    fn init_containers_have_names_of_their_own_and_no_probes() {
        let mut spec = with(&json!({}));
        spec["initContainers"] = json!([{"name": "a", "image": "b", "readinessProbe": {"tcpSocket": {"port": 1}}},
            {"name": "s", "image": "b", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 1}}},
            {"name": "t", "image": "b", "restartPolicy": "Sometimes"}]);
        assert_eq!(
            wrong(spec),
            [
                "spec.initContainers[0].name: Duplicate value: \"a\"",
                "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without \
                 restartPolicy=Always",
                "spec.initContainers[2].restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
                 \"Never\", \"OnFailure\"",
            ]
        );
    }

    #[test]
    fn policies_names_and_gates_are_checked() {
        let mut spec = with(&json!({}));
        for (field, value) in [
            ("restartPolicy", json!("Perhaps")),
            ("dnsPolicy", json!("None")),
            ("hostname", json!("A")),
            ("activeDeadlineSeconds", json!(0)),
            ("schedulingGates", json!([{"name": "a"}, {"name": "a"}])),
            ("hostAliases", json!([{"ip": "x"}])),
            ("preemptionPolicy", json!("x")),
        ] {
            spec[field] = value;
        }
        let texts = wrong(spec);
        assert_eq!(
            texts[0],
            "spec.restartPolicy: Unsupported value: \"Perhaps\": supported values: \"Always\", \"OnFailure\", \"Never\""
        );
        assert_eq!(texts[1], "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None");
        assert_eq!(texts[2], "spec.schedulingGates[1]: Duplicate value: \"a\"");
        assert!(
            texts[3].starts_with("spec.hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist of")
        );
        assert_eq!(
            texts[4],
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"
        );
        assert!(texts[5].starts_with("spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address"));
        assert_eq!(
            texts[6],
            "spec.preemptionPolicy: Unsupported value: \"x\": supported values: \"PreemptLowerPriority\", \"Never\""
        );
    }
}
