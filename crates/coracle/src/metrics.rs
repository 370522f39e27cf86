//! What Prometheus reads at `/metrics`: one registry a cluster, so that two clusters may live in one process.

use std::sync::Mutex;
use std::time::Duration;

use coracle_node::Heartbeat;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

/// The cluster's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Histogram,
    revision: Gauge,
    memory: Family<NodeLabels, Gauge>,
    containers: Family<NodeLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        // From 0.1 ms to 6.5 s.
        let durations = Histogram::new(exponential_buckets(0.0001, 2.0, 17));
        let (revision, memory, containers) = (Gauge::default(), Family::default(), Family::default());
        registry.register("apiserver_request", "Requests by verb and code", requests.clone());
        registry.register("apiserver_request_duration_seconds", "Time to the head of the answer", durations.clone());
        registry.register("coracle_store_revision", "The revision of the newest view", revision.clone());
        registry.register("coracle_node_container_memory_bytes", "Memory of a node's containers", memory.clone());
        registry.register("coracle_node_containers", "Running containers of a node", containers.clone());
        Self { registry: Mutex::new(registry), requests, durations, revision, memory, containers }
    }
}

impl Metrics {
    /// A request was answered.
    pub(crate) fn request(&self, verb: &str, code: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { verb: verb.to_owned(), code }).inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// A node told what its containers use.
    pub(crate) fn heartbeat(&self, node: &str, heartbeat: &Heartbeat) {
        let labels = NodeLabels { node: node.to_owned() };
        let memory: u64 = heartbeat.usage.values().map(|usage| usage.memory_bytes).sum();
        self.memory.get_or_create(&labels).set(i64::try_from(memory).unwrap_or(i64::MAX));
        self.containers.get_or_create(&labels).set(heartbeat.usage.len() as i64);
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self, revision: u64) -> String {
        self.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        let mut text = String::new();
        let registry = self.registry.lock().expect("nothing panics while it encodes");
        encode(&mut text, &registry).expect("a string takes everything");
        text
    }
}
