//! What a pod may ask of the runtime that runs it, decided field by field so that none is ignored.
//!
//! Which of a node's runtimes that is, [`crate::runtime::RuntimeKind`] says; each has features of its own. A runtime that has none of
//! them (WebAssembly has none) still meets more than it seems: a guest has no user, no
//! system calls, no files but its volumes and no way to gain anything, so every field that only takes rights away holds by
//! construction. What grants something that is not there is refused: the container waits with `CreateContainerConfigError`
//! and a sentence that names the field.
//!
//! | field | decision without features |
//! |---|---|
//! | `hostNetwork`, `hostPID`, `hostIPC`, `volumeMounts[].mountPropagation`, volumes of type `hostPath` | refused: [`RuntimeFeature::HostNamespaces`] |
//! | `hostUsers`, `automountServiceAccountToken` | hold: a guest has no user |
//! | `shareProcessNamespace` | refused: [`RuntimeFeature::SharedProcesses`] |
//! | `privileged`, `capabilities.add` (but `NET_BIND_SERVICE`: every port may be listened on), `runAsUser: 0`, `procMount`, `sysctls` | refused: [`RuntimeFeature::Privileges`] |
//! | `runAsNonRoot`, other `runAsUser`, `runAsGroup`, `supplementalGroups`, `fsGroup` and their policies | hold: guests see neither users nor groups, and read and write their volumes whatever these are |
//! | `capabilities.drop`, `allowPrivilegeEscalation`, `readOnlyRootFilesystem` | hold: there are no capabilities and no root filesystem |
//! | `seccompProfile`, `appArmorProfile` | `RuntimeDefault` and `Unconfined` hold, `Localhost` is refused: [`RuntimeFeature::SecurityProfiles`] |
//! | `seLinuxOptions` | refused: [`RuntimeFeature::SecurityProfiles`] |
//! | `windowsOptions` | refused: [`RuntimeFeature::Windows`]; `spec.os` is checked at admission |
//! | `stdin`, `stdinOnce` | refused: [`RuntimeFeature::Input`], which WebAssembly has as well |
//! | `tty` | refused: [`RuntimeFeature::Terminal`] |
//! | `volumeDevices` | refused: [`RuntimeFeature::BlockDevices`] |
//! | `ports[].hostPort` | refused: [`RuntimeFeature::HostPorts`] |
//! | `dnsPolicy: None`, `dnsConfig` | refused: [`RuntimeFeature::Resolver`]; with `Default` the cluster's names are found as well |
//! | `hostname`, `hostnameOverride`, `subdomain`, `setHostnameAsFQDN`, `hostAliases` | honoured: in the sandbox, and where the node's driver finds names |
//! | `lifecycle.stopSignal` | `SIGTERM` holds, others are refused: [`RuntimeFeature::StopSignals`] |
//! | `restartPolicy` and `restartPolicyRules` of a container | honoured, but the action `RestartAllContainers` is refused everywhere |
//! | `resources` of the pod | `requests` count at admission, `limits` are refused: [`RuntimeFeature::PodLimits`] |
//! | `resourceClaims` | refused: [`RuntimeFeature::ResourceClaims`] |
//! | `runtimeClassName` | honoured: a handler that the node does not have keeps the sandbox from being made |
//! | `imagePullSecrets` | honoured: an image is asked for as these users, in order |
//! | `ephemeralContainers`, resizing in place | refused by the API server before they get here |
//!
//! This is policy: a runtime only says what it has.

use std::collections::BTreeSet;

use serde_json::Value;

/// Something that a runtime may be able to give to containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RuntimeFeature {
    /// The host's network, processes, IPC and mounts.
    HostNamespaces,
    /// Containers of a pod that see each other's processes.
    SharedProcesses,
    /// Root, Linux capabilities, kernel parameters.
    Privileges,
    /// Profiles of seccomp and AppArmor from the node, and SELinux labels.
    SecurityProfiles,
    /// A standard input for who attaches.
    Input,
    /// Terminals.
    Terminal,
    /// Volumes as block devices.
    BlockDevices,
    /// Ports of the node's own address.
    HostPorts,
    /// A resolver that can be configured.
    Resolver,
    /// Signals to stop with other than SIGTERM.
    StopSignals,
    /// Limits that the containers of a pod share.
    PodLimits,
    /// Dynamically allocated devices.
    ResourceClaims,
    /// Windows containers.
    Windows,
}

impl RuntimeFeature {
    /// What containers of processes on Linux have.
    pub fn of_linux() -> BTreeSet<Self> {
        use RuntimeFeature::{
            HostNamespaces, HostPorts, Input, Privileges, Resolver, SecurityProfiles, SharedProcesses, StopSignals,
            Terminal,
        };
        BTreeSet::from([
            HostNamespaces,
            SharedProcesses,
            Privileges,
            SecurityProfiles,
            Input,
            Terminal,
            HostPorts,
            Resolver,
            StopSignals,
        ])
    }

    /// All of them, for a runtime that only pretends to run.
    pub fn all() -> BTreeSet<Self> {
        use RuntimeFeature::{
            BlockDevices, HostNamespaces, HostPorts, Input, PodLimits, Privileges, Resolver, ResourceClaims,
            SecurityProfiles, SharedProcesses, StopSignals, Terminal, Windows,
        };
        BTreeSet::from([
            HostNamespaces,
            SharedProcesses,
            Privileges,
            SecurityProfiles,
            Input,
            Terminal,
            BlockDevices,
            HostPorts,
            Resolver,
            StopSignals,
            PodLimits,
            ResourceClaims,
            Windows,
        ])
    }
}

/// One field that asks for something.
struct Rule {
    /// Where it is, below `spec` or below the container; `[]` stands for every element of a list.
    path: &'static str,
    /// Whether a value of it asks for more than every runtime gives.
    asks: fn(&Value) -> bool,
    /// What a runtime needs for it; `None`: nothing helps.
    needs: Option<RuntimeFeature>,
    /// Why a node without it refuses.
    why: &'static str,
}

const NO_HOST: &str = "its containers see nothing of the host";
const NO_PRIVILEGES: &str = "its containers have no user and no privileges to be given";
const NO_PROFILES: &str = "its containers make no system calls that a profile of the node could judge";
const NO_WINDOWS: &str = "it runs no Windows containers";
const NO_INPUT: &str = "its containers have no standard input that anybody could attach to";
const NO_TERMINAL: &str = "its containers have no terminal";
const NO_RESOLVER: &str = "names are found without a resolver that could be configured";

/// What pods ask for.
const POD_RULES: &[Rule] = &[
    rule("hostNetwork", is_true, RuntimeFeature::HostNamespaces, NO_HOST),
    rule("hostPID", is_true, RuntimeFeature::HostNamespaces, NO_HOST),
    rule("hostIPC", is_true, RuntimeFeature::HostNamespaces, NO_HOST),
    rule("shareProcessNamespace", is_true, RuntimeFeature::SharedProcesses, "its containers are no processes"),
    rule("securityContext.sysctls", is_given, RuntimeFeature::Privileges, "a pod has no kernel parameters of its own"),
    rule("securityContext.runAsUser", is_root, RuntimeFeature::Privileges, NO_PRIVILEGES),
    rule("securityContext.seLinuxOptions", is_given, RuntimeFeature::SecurityProfiles, NO_PROFILES),
    rule("securityContext.seccompProfile.type", is_local, RuntimeFeature::SecurityProfiles, NO_PROFILES),
    rule("securityContext.appArmorProfile.type", is_local, RuntimeFeature::SecurityProfiles, NO_PROFILES),
    rule("securityContext.windowsOptions", is_given, RuntimeFeature::Windows, NO_WINDOWS),
    rule("dnsPolicy", is_none_policy, RuntimeFeature::Resolver, NO_RESOLVER),
    rule("dnsConfig.nameservers", is_given, RuntimeFeature::Resolver, NO_RESOLVER),
    rule("dnsConfig.searches", is_given, RuntimeFeature::Resolver, NO_RESOLVER),
    rule("dnsConfig.options", is_given, RuntimeFeature::Resolver, NO_RESOLVER),
    rule("resources.limits", is_given, RuntimeFeature::PodLimits, "it limits each container by itself"),
    rule("resourceClaims", is_given, RuntimeFeature::ResourceClaims, "it has no devices to allocate"),
];

/// What containers ask for.
const CONTAINER_RULES: &[Rule] = &[
    rule("securityContext.privileged", is_true, RuntimeFeature::Privileges, NO_PRIVILEGES),
    rule("securityContext.capabilities.add[]", is_capability, RuntimeFeature::Privileges, NO_PRIVILEGES),
    rule("securityContext.runAsUser", is_root, RuntimeFeature::Privileges, NO_PRIVILEGES),
    rule("securityContext.procMount", is_unmasked, RuntimeFeature::Privileges, NO_PRIVILEGES),
    rule("securityContext.seLinuxOptions", is_given, RuntimeFeature::SecurityProfiles, NO_PROFILES),
    rule("securityContext.seccompProfile.type", is_local, RuntimeFeature::SecurityProfiles, NO_PROFILES),
    rule("securityContext.appArmorProfile.type", is_local, RuntimeFeature::SecurityProfiles, NO_PROFILES),
    rule("securityContext.windowsOptions", is_given, RuntimeFeature::Windows, NO_WINDOWS),
    rule("stdin", is_true, RuntimeFeature::Input, NO_INPUT),
    rule("stdinOnce", is_true, RuntimeFeature::Input, NO_INPUT),
    rule("tty", is_true, RuntimeFeature::Terminal, NO_TERMINAL),
    rule("volumeDevices", is_given, RuntimeFeature::BlockDevices, "its volumes are folders"),
    rule("ports[].hostPort", is_number, RuntimeFeature::HostPorts, "it opens no ports of the node for a pod"),
    rule("volumeMounts[].mountPropagation", is_propagation, RuntimeFeature::HostNamespaces, NO_HOST),
    rule("lifecycle.stopSignal", is_other_signal, RuntimeFeature::StopSignals, "its containers take no signals"),
    Rule {
        path: "restartPolicyRules[].action",
        asks: |value| value == "RestartAllContainers",
        needs: None,
        why: "containers start again one by one",
    },
];

const fn rule(path: &'static str, asks: fn(&Value) -> bool, needs: RuntimeFeature, why: &'static str) -> Rule {
    Rule { path, asks, needs: Some(needs), why }
}

/// Why a container of a pod cannot be made by a runtime with these features: the message of `CreateContainerConfigError`.
///
/// # Errors
///
/// The sentence names the first field that asks for something that the runtime does not have.
pub(crate) fn check(
    spec: &Value,
    list: &str,
    container: &str,
    features: &BTreeSet<RuntimeFeature>,
) -> Result<(), String> {
    refusal(spec, POD_RULES, "spec", features)?;
    let containers = spec[list].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, found) in containers.iter().enumerate().filter(|(_, found)| found["name"] == *container) {
        refusal(found, CONTAINER_RULES, &format!("spec.{list}[{index}]"), features)?;
    }
    Ok(())
}

fn refusal(value: &Value, rules: &[Rule], at: &str, features: &BTreeSet<RuntimeFeature>) -> Result<(), String> {
    for rule in rules.iter().filter(|rule| rule.needs.is_none_or(|feature| !features.contains(&feature))) {
        if let Some(path) = find(value, rule.path, rule.asks) {
            return Err(format!("{at}.{path} is not supported by this node: {}", rule.why));
        }
    }
    Ok(())
}

/// The path of the first value at `path` that `asks`, with the indexes of lists filled in.
fn find(value: &Value, path: &str, asks: fn(&Value) -> bool) -> Option<String> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let below = |value: &Value| match rest {
        Some(rest) => find(value, rest, asks).map(|path| format!(".{path}")),
        None => asks(value).then(String::new),
    };
    let Some(list) = first.strip_suffix("[]") else {
        return below(value.get(first)?).map(|path| format!("{first}{path}"));
    };
    let items = value.get(list)?.as_array()?;
    let mut found = items.iter().enumerate().filter_map(|(index, item)| Some((index, below(item)?)));
    found.next().map(|(index, path)| format!("{list}[{index}]{path}"))
}

fn is_true(value: &Value) -> bool {
    *value == true
}

fn is_given(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

fn is_root(value: &Value) -> bool {
    *value == 0
}

fn is_number(value: &Value) -> bool {
    value.as_i64().is_some_and(|number| number != 0)
}

fn is_local(value: &Value) -> bool {
    *value == "Localhost"
}

fn is_unmasked(value: &Value) -> bool {
    *value == "Unmasked"
}

fn is_none_policy(value: &Value) -> bool {
    *value == "None"
}

fn is_propagation(value: &Value) -> bool {
    value.as_str().is_some_and(|propagation| propagation != "None")
}

fn is_other_signal(value: &Value) -> bool {
    value.as_str().is_some_and(|signal| signal != "SIGTERM")
}

/// Listening on a low port is the one thing that a capability gives and every container has anyway.
fn is_capability(value: &Value) -> bool {
    value.as_str().is_some_and(|name| name.trim_start_matches("CAP_") != "NET_BIND_SERVICE")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check_one(pod: Value, container: Value, expected: Result<(), &str>) {
        let mut spec = pod;
        spec["containers"] = json!([{"name": "other"}, container]);
        spec["containers"][1]["name"] = json!("c");
        assert_eq!(check(&spec, "containers", "c", &BTreeSet::new()), expected.map_err(str::to_owned));
        assert_eq!(check(&spec, "containers", "c", &RuntimeFeature::all()), Ok(()));
    }

    #[test]
    fn what_takes_rights_away_holds_by_construction() {
        let pod = json!({"hostNetwork": false, "hostUsers": false, "securityContext": {
            "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000,
            "seccompProfile": {"type": "RuntimeDefault"}}});
        let container = json!({"stdin": false, "ports": [{"containerPort": 80}], "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}});
        check_one(pod, container, Ok(()));
    }

    #[test]
    fn what_asks_for_more_is_refused_by_the_name_of_its_field() {
        let refused = |path: &str, why: &str| format!("{path} is not supported by this node: {why}");
        check_one(json!({"hostNetwork": true}), json!({}), Err(&refused("spec.hostNetwork", NO_HOST)));
        check_one(
            json!({"securityContext": {"runAsUser": 0}}),
            json!({}),
            Err(&refused("spec.securityContext.runAsUser", NO_PRIVILEGES)),
        );
        check_one(
            json!({}),
            json!({"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE", "SYS_ADMIN"]}}}),
            Err(&refused("spec.containers[1].securityContext.capabilities.add[1]", NO_PRIVILEGES)),
        );
        check_one(
            json!({}),
            json!({"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]}),
            Err(&refused("spec.containers[1].ports[1].hostPort", "it opens no ports of the node for a pod")),
        );
        check_one(json!({}), json!({"tty": true}), Err(&refused("spec.containers[1].tty", NO_TERMINAL)));
    }

    #[test]
    fn another_containers_fields_do_not_refuse_this_one() {
        let spec = json!({"containers": [{"name": "c"}, {"name": "other", "tty": true}]});
        assert_eq!(check(&spec, "containers", "c", &BTreeSet::new()), Ok(()));
    }

    #[test]
    fn restarting_all_containers_is_refused_whatever_the_runtime() {
        let spec = json!({"containers": [{"name": "c", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]});
        assert!(check(&spec, "containers", "c", &RuntimeFeature::all()).is_err());
    }
}
