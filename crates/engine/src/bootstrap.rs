//! The objects that every cluster has from its first moment: namespaces, priority classes, runtime classes, default roles, and
//! the Service through which pods find the API server.

mod roles;

use coracle_api::resources::{
    ENDPOINT_SLICES, ENDPOINTS, INGRESS_CLASSES, NAMESPACES, PRIORITY_CLASSES, RUNTIME_CLASSES, SERVICES,
};
use coracle_api::{GroupResource, ObjectKey};
use coracle_apiserver::ServerOptions;
use coracle_controllers::Action;
use coracle_store::View;
use serde_json::{Value, json};

/// Which address of the service range the DNS has, where the range is as large as this.
const DNS_ADDRESS: u32 = 10;
const DNS_PREFIX_MAX: u8 = 27;

/// What has to be done for all of it to be there, in order: what later ones need comes first.
pub(crate) fn missing(view: &View, options: &ServerOptions) -> Vec<Action> {
    let dns = dns(view, options);
    let missing = wanted(options).into_iter().chain([dns]).filter(|(key, _)| view.object(key).is_none());
    let creations = missing.map(|(key, object)| Action::Create { key, object });
    creations.chain(roles::wanted(view)).collect()
}

fn wanted(options: &ServerOptions) -> Vec<(ObjectKey, Value)> {
    let mut objects = Vec::new();
    let mut add = |resource: GroupResource, namespace: &str, object: Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        objects.push((ObjectKey::new(resource, namespace, name), object));
    };
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        add(NAMESPACES, "", json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}));
    }
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({
            "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
            "value": value, "description": description,
        });
        add(PRIORITY_CLASSES, "", class);
    }
    for name in ["wasm", "wasmtime"] {
        let class = json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": name}, "handler": "wasmtime"});
        add(RUNTIME_CLASSES, "", class);
    }
    let class = json!({
        "kind": "IngressClass", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "coracle", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "coracle.dev/ingress"},
    });
    add(INGRESS_CLASSES, "", class);
    let first = u32::from(options.service_network) + 1;
    add(
        SERVICES,
        "default",
        json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "clusterIP": std::net::Ipv4Addr::from(first).to_string(),
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": api_port(options)}],
                "sessionAffinity": "None", "type": "ClusterIP",
            },
        }),
    );
    endpoints(options, &mut add);
    objects
}

/// The Service of the cluster's DNS, at the tenth address as users know it; another one where a Service of theirs has that.
///
/// It selects nothing: every node answers for it itself.
fn dns(view: &View, options: &ServerOptions) -> (ObjectKey, Value) {
    let key = ObjectKey::new(SERVICES, "kube-system", "kube-dns");
    let address = u32::from(options.service_network) + DNS_ADDRESS;
    let held = view.allocations("service-addresses");
    let is_taken = held.iter().any(|(value, owner)| *value == u64::from(address) && *owner != key);
    let mut object = json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": "kube-dns",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
            "type": "ClusterIP",
        },
    });
    if !is_taken && options.service_prefix <= DNS_PREFIX_MAX {
        object["spec"]["clusterIP"] = std::net::Ipv4Addr::from(address).to_string().into();
    }
    (key, object)
}

/// Where the Service leads: the address that clients reach this server by. Without a listening socket there is none.
fn endpoints(options: &ServerOptions, add: &mut impl FnMut(GroupResource, &str, Value)) {
    let Some((host, _)) = options.advertise.rsplit_once(':') else { return };
    // An Endpoints object may not hold a loopback address; what dials for pods knows the API server by its Service instead.
    if host.parse::<std::net::Ipv4Addr>().map_or(true, |address| address.is_loopback() || address.is_unspecified()) {
        return;
    }
    let port = api_port(options);
    add(
        ENDPOINTS,
        "default",
        json!({
            "kind": "Endpoints", "apiVersion": "v1",
            "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": host}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
        }),
    );
    add(
        ENDPOINT_SLICES,
        "default",
        json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [host], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }),
    );
}

fn api_port(options: &ServerOptions) -> u16 {
    options.advertise.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(6443)
}
