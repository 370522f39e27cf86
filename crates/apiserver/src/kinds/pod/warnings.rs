//! What is accepted in a pod or a template and most likely not meant: texts for `Warning` headers.
//!
//! Source of the rules and texts: Kubernetes' `GetWarningsForPod` and `GetWarningsForPodTemplate`.

use coracle_api::Quantity;
use serde_json::Value;

use super::super::value::{entries, items, text};
use crate::validation::name::dns_label;

/// Labels of nodes that have other names by now: since when, and which.
const NODE_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// Annotations that do nothing any more: since when, and the field that took their place.
const ANNOTATIONS: &[(&str, &str, &str)] = &[
    ("scheduler.alpha.kubernetes.io/critical-pod", "v1.16+", "priorityClassName"),
    ("seccomp.security.alpha.kubernetes.io/pod", "v1.27+", "seccompProfile"),
    ("security.alpha.kubernetes.io/sysctls", "v1.11+", "sysctls"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "v1.11+", "sysctls"),
];

/// Types of volumes that are gone or going.
const VOLUMES: &[(&str, &str)] = &[
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
];

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// About a pod that is created.
pub(crate) fn of_pod(pod: &Value) -> Vec<String> {
    let mut warnings = of_template(pod, "");
    warnings.extend(of_name(pod, "the Pod's hostname"));
    warnings
}

/// About the name of what becomes a part of pods' names.
pub(crate) fn of_name(object: &Value, used_in: &str) -> Option<String> {
    let name = text(&object["metadata"], "name");
    let wrong = dns_label(name);
    (!name.is_empty() && !wrong.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; \
             a DNS label is recommended: [{}]",
            wrong.join(" ")
        )
    })
}

/// About a pod, or a template at a path that ends in a dot.
pub(crate) fn of_template(template: &Value, at: &str) -> Vec<String> {
    let spec = &template["spec"];
    let mut warnings = Vec::new();
    node_labels(spec, at, &mut warnings);
    for (name, since, field) in ANNOTATIONS {
        if entries(&template["metadata"], "annotations").any(|(key, _)| key == name) {
            let path = format!("{at}metadata.annotations[{name}]");
            warnings.push(format!("{path}: non-functional in {since}; use the \"{field}\" field instead"));
        }
    }
    for (index, volume) in items(spec, "volumes").iter().enumerate() {
        for (kind, why) in VOLUMES.iter().filter(|(kind, _)| !volume[*kind].is_null()) {
            warnings.push(format!("{at}spec.volumes[{index}].{kind}: {why}"));
        }
    }
    for (index, secret) in items(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            warnings.push(format!("{at}spec.imagePullSecrets[{index}].name: invalid empty name \"\""));
        }
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let path = format!("{at}spec.terminationGracePeriodSeconds");
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    null_selectors(spec, at, &mut warnings);
    let mut ports = Ports::default();
    for list in ["initContainers", "containers"] {
        for (index, container) in items(spec, list).iter().enumerate() {
            let path = format!("{at}spec.{list}[{index}]");
            // Ports of init containers that are over by then are nobody's.
            if list == "containers" || container["restartPolicy"] == "Always" {
                ports.look(container, &path, &mut warnings);
            }
            of_container(container, &path, &mut warnings);
        }
    }
    warnings
}

fn node_labels(spec: &Value, at: &str, warnings: &mut Vec<String>) {
    let mut check = |label: &str, path: String| {
        if let Some((_, since, name)) = NODE_LABELS.iter().find(|(known, ..)| *known == label) {
            warnings.push(format!("{path}: deprecated since {since}; use \"{name}\" instead"));
        }
    };
    for (label, _) in entries(spec, "nodeSelector") {
        check(label, format!("{at}spec.nodeSelector[{label}]"));
    }
    let affinity = &spec["affinity"]["nodeAffinity"];
    let path = format!("{at}spec.affinity.nodeAffinity");
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    let required = items(required, "nodeSelectorTerms").iter().enumerate().map(|(index, term)| {
        (term, format!("{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{index}]"))
    });
    let preferred = items(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter().enumerate();
    let preferred = preferred.map(|(index, term)| {
        (&term["preference"], format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}].preference"))
    });
    for (term, path) in required.chain(preferred) {
        for (index, expression) in items(term, "matchExpressions").iter().enumerate() {
            check(text(expression, "key"), format!("{path}.matchExpressions[{index}].key"));
        }
    }
    for (index, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{at}spec.topologySpreadConstraints[{index}].topologyKey");
        check(text(constraint, "topologyKey"), path);
    }
}

fn null_selectors(spec: &Value, at: &str, warnings: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, path) = (&spec["affinity"][kind], format!("{at}spec.affinity.{kind}"));
        let (required, preferred) =
            ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
        for (index, term) in items(affinity, required).iter().enumerate() {
            if term["labelSelector"].is_null() {
                warnings.push(format!("{path}.{required}[{index}].labelSelector: {NULL_SELECTOR}"));
            }
        }
        for (index, term) in items(affinity, preferred).iter().enumerate() {
            if term["podAffinityTerm"]["labelSelector"].is_null() {
                warnings.push(format!("{path}.{preferred}[{index}].podAffinityTerm.labelSelector: {NULL_SELECTOR}"));
            }
        }
    }
    for (index, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        if constraint["labelSelector"].is_null() {
            warnings.push(format!("{at}spec.topologySpreadConstraints[{index}].labelSelector: {NULL_SELECTOR}"));
        }
    }
}

fn of_container(container: &Value, path: &str, warnings: &mut Vec<String>) {
    let env = items(container, "env");
    for (index, variable) in env.iter().enumerate() {
        let name = text(variable, "name");
        if env[..index].iter().any(|before| text(before, "name") == name) {
            warnings.push(format!(
                "{path}.env[{index}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
    for list in ["limits", "requests"] {
        for resource in ["memory", "ephemeral-storage"] {
            let Some(amount) = container["resources"][list][resource].as_str() else { continue };
            if amount.parse::<Quantity>().is_ok_and(|quantity| is_fractional(&quantity)) {
                warnings.push(format!(
                    "{path}.resources.{list}[{resource}]: fractional byte value {amount:?} is invalid, must be an integer"
                ));
            }
        }
    }
}

fn is_fractional(quantity: &Quantity) -> bool {
    quantity.millis().rem_euclid(1000) != 0
}

/// The ports of a pod so far, each with its path.
#[derive(Debug, Default)]
struct Ports<'a> {
    seen: Vec<(&'a Value, String)>,
}

impl<'a> Ports<'a> {
    fn look(&mut self, container: &'a Value, path: &str, warnings: &mut Vec<String>) {
        let own = self.seen.len();
        for (index, port) in items(container, "ports").iter().enumerate() {
            let path = format!("{path}.ports[{index}]");
            let of = |port: &Value| (port["containerPort"].clone(), port["protocol"].clone(), port["hostPort"].clone());
            let name = text(port, "name");
            let (mut same, mut named) = (None, None);
            for (number, (before, at)) in self.seen.iter().enumerate() {
                if of(before) == of(port) && before["hostIP"] == port["hostIP"] && same.is_none() {
                    same = Some(at);
                }
                // The same name twice in one container is an error.
                if number < own && !name.is_empty() && text(before, "name") == name && named.is_none() {
                    named = Some(at);
                }
            }
            if let Some(at) = same {
                warnings.push(format!("{path}: duplicate port definition with {at}"));
            }
            if let Some(at) = named {
                warnings.push(format!(
                    "{path}: duplicate port name {name:?} with {at}, \
                     services and probes that select ports by name will use {at}"
                ));
            }
            self.seen.push((port, path));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(spec: &Value, expected: &[&str]) {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        assert_eq!(of_pod(&pod), expected);
    }

    #[test]
    fn a_port_that_is_there_twice_is_told_of() {
        let one = json!({"containerPort": 80, "protocol": "TCP", "name": "http"});
        let two = json!({"containerPort": 80, "protocol": "TCP"});
        check(
            &json!({"containers": [{"ports": [one, two]}]}),
            &["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
        );
        let other = json!({"containerPort": 81, "protocol": "TCP", "name": "http"});
        check(
            &json!({"containers": [{"ports": [one]}, {"ports": [other]}]}),
            &["spec.containers[1].ports[0]: duplicate port name \"http\" with spec.containers[0].ports[0], \
               services and probes that select ports by name will use spec.containers[0].ports[0]"],
        );
    }

    #[test]
    fn a_variable_that_hides_another_is_told_of() {
        check(
            &json!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]}),
            &["spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"],
        );
    }

    #[test]
    fn what_is_deprecated_is_told_of_at_its_path_in_a_template() {
        let template = json!({
            "metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "runtime/default"}},
            "spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "volumes": [{"name": "v", "gitRepo": {}}]},
        });
        assert_eq!(
            of_template(&template, "spec.template."),
            [
                "spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; \
                 use the \"seccompProfile\" field instead",
                "spec.template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            ]
        );
    }

    #[test]
    fn a_fraction_of_a_byte_is_told_of() {
        check(
            &json!({"containers": [{"resources": {"limits": {"memory": "128m", "cpu": "100m"}}}]}),
            &[
                "spec.containers[0].resources.limits[memory]: fractional byte value \"128m\" is invalid, must be an integer",
            ],
        );
    }

    #[test]
    fn a_name_that_is_no_hostname_is_told_of() {
        let pod = json!({"metadata": {"name": "a.b"}, "spec": {}});
        let warnings = of_pod(&pod);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0]
                .starts_with("metadata.name: this is used in the Pod's hostname, which can result in surprising")
        );
    }
}
