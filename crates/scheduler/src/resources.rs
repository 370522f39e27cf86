//! Amounts of what nodes have and pods ask for.

use std::collections::BTreeMap;

use coracle_api::Quantity;
use serde_json::Value;

/// What a container without a request counts as when nodes are compared: 100m and 200Mi, as in Kubernetes.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;
/// Resources of this domain are settings of a pod's runtime, not something a node runs out of.
const OWN_DOMAIN: &str = "coracle.dev/";

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral_storage: i64,
    /// Everything with a name of its own, in whole units.
    pub(crate) extended: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a `ResourceList`; quantities that cannot be read count as nothing.
    pub(crate) fn of(list: &Value) -> Self {
        let mut resources = Self::default();
        for (name, amount) in list.as_object().into_iter().flatten() {
            let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
            let quantity: Quantity = text.parse().unwrap_or_default();
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.millis(),
                "memory" => resources.memory = quantity.units(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.units(),
                "pods" => {}
                name if name.starts_with(OWN_DOMAIN) => {}
                name => {
                    resources.extended.insert(name.to_owned(), quantity.units());
                }
            }
        }
        resources
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    pub(crate) fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    /// Puts the amounts of a list in the place of its own, where the list has them.
    fn replace(&mut self, list: &Value) {
        let other = Self::of(list);
        for (name, own, amount) in [
            ("cpu", &mut self.milli_cpu, other.milli_cpu),
            ("memory", &mut self.memory, other.memory),
            ("ephemeral-storage", &mut self.ephemeral_storage, other.ephemeral_storage),
        ] {
            if !list[name].is_null() {
                *own = amount;
            }
        }
        self.extended.extend(other.extended);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.extended {
            let own = self.extended.entry(name.clone()).or_insert(0);
            *own = with(*own, *amount);
        }
    }
}

/// What a pod asks for: all its containers together, or the most that its init containers need at once; in place of these what
/// `spec.resources` asks for; and its overhead.
pub(crate) fn requests_of(pod: &Value) -> Resources {
    total(pod, Resources::of)
}

/// The same for comparing nodes: a container that asks for no CPU or memory counts a little.
pub(crate) fn weights_of(pod: &Value) -> Resources {
    total(pod, |list| {
        let mut resources = Resources::of(list);
        if list["cpu"].is_null() {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if list["memory"].is_null() {
            resources.memory = DEFAULT_MEMORY;
        }
        resources
    })
}

fn total(pod: &Value, request: impl Fn(&Value) -> Resources) -> Resources {
    let spec = &pod["spec"];
    let mut sum = Resources::default();
    for container in spec["containers"].as_array().into_iter().flatten() {
        sum.add(&request(&container["resources"]["requests"]));
    }
    let (mut peak, mut sidecars) = (Resources::default(), Resources::default());
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let own = request(&container["resources"]["requests"]);
        if container["restartPolicy"] == "Always" {
            sidecars.add(&own);
            peak.raise_to(&sidecars);
        } else {
            let mut at_once = own;
            at_once.add(&sidecars);
            peak.raise_to(&at_once);
        }
    }
    sum.add(&sidecars);
    sum.raise_to(&peak);
    sum.replace(&spec["resources"]["requests"]);
    sum.add(&Resources::of(&spec["overhead"]));
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_pod_asks_for_as_a_whole_stands_for_its_containers() {
        let pod = json!({"spec": {
            "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
            "resources": {"requests": {"cpu": "250m"}},
            "overhead": {"cpu": "50m"},
        }});
        let requests = requests_of(&pod);
        assert_eq!((requests.milli_cpu, requests.memory), (300, 1 << 30));
    }
}
