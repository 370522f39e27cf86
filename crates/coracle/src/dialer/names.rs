//! What a name means to a pod: the cluster's DNS, answered from the view.
//!
//! The rules are those of Kubernetes' DNS specification and of the search list in a pod's resolv.conf
//! (`<namespace>.svc.cluster.local svc.cluster.local cluster.local`).

use std::net::IpAddr;

use coracle_api::resources::PODS;
use coracle_api::{ObjectKey, Uid};
use coracle_store::View;
use serde_json::Value;

use super::endpoints;
use crate::dns::names::{CLUSTER_DOMAIN, Subject, subject};

/// How many external names may lead to one another.
const ALIASES_MAX: usize = 8;

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// An address.
    Address(IpAddr),
    /// A service.
    Service(ObjectKey),
    /// An endpoint of a headless service, by its hostname or its dashed address.
    Endpoint(ObjectKey, String),
    /// A name that the cluster leaves to the world.
    Outside(String),
    /// A name of the cluster's domain that nobody has.
    Unknown,
}

/// The address that a pod's `hostAliases` give a name, or its own where the name is its hostname.
pub(super) fn in_hosts(view: &View, pod: &Uid, name: &str) -> Option<IpAddr> {
    let pod = view.by_uid(pod).filter(|pod| pod.key().resource == PODS)?;
    hosts(&*view.decode::<Value>(pod)?, name)
}

fn hosts(pod: &Value, name: &str) -> Option<IpAddr> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_meant = |host: &Value| host.as_str().is_some_and(|host| host.eq_ignore_ascii_case(name));
    for alias in items(&pod["spec"]["hostAliases"]) {
        if items(&alias["hostnames"]).iter().any(is_meant) {
            return alias["ip"].as_str()?.parse().ok();
        }
    }
    let spec = &pod["spec"];
    let own = [&spec["hostnameOverride"], &spec["hostname"], &pod["metadata"]["name"]];
    let hostname = own.into_iter().find(|name| name.as_str().is_some_and(|name| !name.is_empty()))?;
    if is_meant(hostname) { pod["status"]["podIP"].as_str()?.parse().ok() } else { None }
}

/// What a pod of a namespace means by a name.
pub(super) fn look_up(view: &View, namespace: &str, name: &str) -> Name {
    let name = name.trim_matches(['[', ']']).to_lowercase();
    if let Ok(address) = name.parse() {
        return Name::Address(address);
    }
    if name == "localhost" {
        return Name::Address(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    }
    let Some(absolute) = name.strip_suffix('.') else {
        let searched = [
            format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}"),
            format!("{name}.svc.{CLUSTER_DOMAIN}"),
            format!("{name}.{CLUSTER_DOMAIN}"),
        ];
        let found = searched.iter().find_map(|full| in_cluster(view, full, 0));
        return found.unwrap_or_else(|| absolute_name(view, &name, 0));
    };
    absolute_name(view, absolute, 0)
}

fn absolute_name(view: &View, name: &str, aliases: usize) -> Name {
    if let Some(found) = in_cluster(view, name, aliases) {
        return found;
    }
    if subject(name).is_some() { Name::Unknown } else { Name::Outside(name.to_owned()) }
}

/// A whole name of the cluster's domain, if somebody has it.
fn in_cluster(view: &View, name: &str, aliases: usize) -> Option<Name> {
    match subject(name)? {
        Subject::Service(key) => {
            view.object(&key)?;
            match endpoints::external_name(view, &key) {
                Some(_) if aliases >= ALIASES_MAX => Some(Name::Unknown),
                Some(other) => Some(absolute_name(view, other.trim_end_matches('.'), aliases + 1)),
                None => Some(Name::Service(key)),
            }
        }
        Subject::Endpoint(key, label) => {
            let exists = !endpoints::of_label(view, &key, &label, 0).is_empty();
            exists.then_some(Name::Endpoint(key, label))
        }
        Subject::Pod(_, address) => Some(Name::Address(address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_hosts_are_its_aliases_and_itself() {
        let pod = json!({
            "metadata": {"name": "web-0"},
            "spec": {"hostAliases": [{"ip": "10.1.2.3", "hostnames": ["db.example", "cache.example"]}]},
            "status": {"podIP": "10.42.0.7"},
        });
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(hosts(&pod, "Cache.example"), address("10.1.2.3"));
        assert_eq!(hosts(&pod, "web-0"), address("10.42.0.7"));
        assert_eq!(hosts(&pod, "other"), None);
    }
}
