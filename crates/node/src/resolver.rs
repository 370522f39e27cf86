//! What a pod's resolver is told: `dnsPolicy`, then `dnsConfig` on top.
//!
//! Source of the rules: <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>; of the bounds: the kubelet's validation.

use std::net::IpAddr;

use serde_json::Value;

use crate::NodeConfig;
use crate::pod_spec::PodView;
use crate::runtime::{HostAlias, Resolver};

/// What libc's resolver reads; more are left out, as the kubelet does.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// The resolver of a pod.
pub(crate) fn of(pod: &PodView, config: &NodeConfig) -> Resolver {
    let spec = &pod.value["spec"];
    let on_host = spec["hostNetwork"] == true;
    let mut resolver = match spec["dnsPolicy"].as_str() {
        Some("None") => Resolver::default(),
        Some("Default") => config.resolver.clone(),
        Some("ClusterFirstWithHostNet") => cluster(pod, config),
        _ if on_host => config.resolver.clone(),
        _ => cluster(pod, config),
    };
    let own = &spec["dnsConfig"];
    resolver.nameservers.extend(texts(&own["nameservers"]));
    resolver.searches.extend(texts(&own["searches"]));
    for option in own["options"].as_array().into_iter().flatten() {
        let name = option["name"].as_str().unwrap_or_default();
        resolver.options.retain(|known| known.split(':').next() != Some(name));
        resolver.options.push(match option["value"].as_str().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
    dedup(&mut resolver.nameservers);
    dedup(&mut resolver.searches);
    resolver.nameservers.truncate(NAMESERVERS_MAX);
    resolver.searches.truncate(SEARCHES_MAX);
    resolver
}

/// The cluster's DNS; the node's own resolver where the node has none to offer.
fn cluster(pod: &PodView, config: &NodeConfig) -> Resolver {
    if config.cluster_dns.is_empty() {
        return config.resolver.clone();
    }
    let domain = &config.cluster_domain;
    let mut searches = vec![format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.clone()];
    searches.extend(config.resolver.searches.iter().cloned());
    Resolver {
        nameservers: config.cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

/// The pod's `hostAliases`; what is no address is left out (the API server has refused it).
pub(crate) fn host_aliases(pod: &PodView) -> Vec<HostAlias> {
    let aliases = pod.value["spec"]["hostAliases"].as_array().into_iter().flatten();
    let alias = |alias: &Value| {
        Some(HostAlias { address: alias["ip"].as_str()?.parse().ok()?, names: texts(&alias["hostnames"]).collect() })
    };
    aliases.filter_map(alias).collect()
}

fn texts(value: &Value) -> impl Iterator<Item = String> + use<'_> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned))
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn resolver(mut spec: Value, dns: &[&str]) -> Resolver {
        spec["containers"] = json!([]);
        let pod = json!({"metadata": {"name": "p", "namespace": "shop", "uid": "u"}, "spec": spec});
        let mut config = NodeConfig::new("n");
        config.cluster_dns = dns.iter().map(|address| address.parse().unwrap()).collect();
        config.resolver =
            Resolver { nameservers: vec!["192.0.2.1".into()], searches: vec!["lan".into()], options: Vec::new() };
        of(&PodView::new(Arc::new(pod), None).unwrap(), &config)
    }

    #[test]
    fn the_clusters_names_come_first_and_the_nodes_domains_behind_them() {
        let found = resolver(json!({}), &["10.42.0.1"]);
        assert_eq!(found.nameservers, ["10.42.0.1"]);
        assert_eq!(found.searches, ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"]);
        assert_eq!(found.options, ["ndots:5"]);
    }

    #[test]
    fn pods_that_ask_for_the_nodes_resolver_or_find_no_other_get_it() {
        for (spec, dns) in [
            (json!({"dnsPolicy": "Default"}), &["10.42.0.1"][..]),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), &["10.42.0.1"]),
            (json!({"dnsPolicy": "ClusterFirst"}), &[]),
        ] {
            assert_eq!(resolver(spec, dns).nameservers, ["192.0.2.1"]);
        }
        let on_host = json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true});
        assert_eq!(resolver(on_host, &["10.42.0.1"]).nameservers, ["10.42.0.1"]);
    }

    #[test]
    fn what_a_pod_says_itself_is_added_and_its_options_replace() {
        let spec = json!({"dnsConfig": {"nameservers": ["192.0.2.9", "10.42.0.1"], "searches": ["example"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        let found = resolver(spec, &["10.42.0.1"]);
        assert_eq!(found.nameservers, ["10.42.0.1", "192.0.2.9"]);
        assert_eq!(found.searches.last().unwrap(), "example");
        assert_eq!(found.options, ["ndots:2", "edns0"]);
        let own = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"]}});
        let only = Resolver { nameservers: vec!["192.0.2.9".into()], ..Resolver::default() };
        assert_eq!(resolver(own, &["10.42.0.1"]), only);
    }
}
