//! `metrics.k8s.io`: what nodes and pods use. It is asked of the nodes when somebody wants to know, and nothing of it is stored.
//!
//! <https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/>

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::{Attributes, GroupResource, Object, ObjectKey, Resource, Response, Status, Uid};
use coracle_base::{Now, Timestamp};
use coracle_store::View;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::{ListMeta, Presenter};
use crate::callout::{Asked, Callout, Purpose};
use crate::context::{Context, Step};
use crate::request::Verb;
use crate::request::negotiate::Encoding;
use crate::request::options::ListOptions;
use crate::strategy::Strategy;
use crate::verb::list::matches;

/// The group of the metrics API.
pub(crate) const GROUP: &str = "metrics.k8s.io";
const NODES: GroupResource = GroupResource::builtin("", "nodes");
const PODS: GroupResource = GroupResource::builtin("", "pods");

/// What was measured over a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Nanoseconds of processor time a second.
    pub cpu_nanos: u64,
    /// Bytes of memory at its end.
    pub memory_bytes: u64,
}

/// What one container used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRates {
    /// Its pod.
    pub pod: Uid,
    /// Its name in the pod.
    pub name: String,
    /// What it used.
    pub rates: Rates,
}

/// What a node and its containers used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsage {
    /// The node's name.
    pub node: String,
    /// When that was.
    pub at: Timestamp,
    /// Over which time.
    pub window: Duration,
    /// The whole node.
    pub rates: Rates,
    /// Its containers that ran all the time.
    pub containers: Vec<ContainerRates>,
}

/// What is made of the nodes' answers.
#[derive(Debug)]
pub(crate) struct Question {
    resource: Resource,
    strategy: &'static dyn Strategy,
    encoding: Encoding,
    namespace: String,
    /// Empty for a list.
    name: String,
    options: Option<ListOptions>,
}

/// Asks the nodes.
pub(crate) fn ask(context: &Context<'_>, verb: Verb) -> Result<Step, Status> {
    let options = match verb {
        Verb::Get => None,
        _ => Some(ListOptions::parse(context.request, context.resource, context.strategy, false)?),
    };
    let question = Question {
        resource: context.resource.clone(),
        strategy: context.strategy,
        encoding: context.encoding,
        namespace: context.path.namespace.clone(),
        name: context.path.name.clone(),
        options,
    };
    let asked = Asked { object: Value::Null, encoding: context.encoding, purpose: Purpose::Usage(Box::new(question)) };
    Ok(Step::Call(Callout::Usage, Box::new(asked)))
}

impl Question {
    /// The answer to the client, from what the nodes said: a list of [`NodeUsage`].
    pub(crate) fn answer(&self, said: Value, view: &View, now: Now) -> Response {
        let usages: Vec<NodeUsage> = match serde_json::from_value(said) {
            Ok(usages) => usages,
            Err(error) => return Status::internal(format!("what the nodes said cannot be read: {error}")).into(),
        };
        let objects = if self.resource.namespaced { self.of_pods(&usages, view) } else { self.of_nodes(&usages, view) };
        let presenter = Presenter { resource: &self.resource, strategy: self.strategy, encoding: self.encoding, now };
        match (&self.options, objects.first()) {
            (Some(_), _) => presenter.list(&ListMeta { revision: view.revision(), ..ListMeta::default() }, &objects),
            (None, Some(object)) => presenter.object(200, object),
            (None, None) => {
                // As the metrics server names what it does not have.
                let kind = if self.resource.namespaced { "podmetrics" } else { "nodemetrics" };
                let name = match self.namespace.as_str() {
                    "" => self.name.clone(),
                    namespace => format!("{namespace}/{}", self.name),
                };
                Status::not_found(&GroupResource::builtin(GROUP, kind), &name).into()
            }
        }
    }

    fn of_nodes(&self, usages: &[NodeUsage], view: &View) -> Vec<Arc<Object>> {
        let mut objects: Vec<_> = usages
            .iter()
            .filter_map(|usage| {
                let node = view.object(&ObjectKey::new(NODES, "", &usage.node))?;
                let measured = json!({ "usage": quantities(usage.rates) });
                self.object(node, usage, measured, view)
            })
            .collect();
        objects.sort_by(|a, b| a.key().cmp(b.key()));
        objects
    }

    fn of_pods(&self, usages: &[NodeUsage], view: &View) -> Vec<Arc<Object>> {
        let mut objects = Vec::new();
        for usage in usages {
            let mut pods: BTreeMap<&Uid, Vec<Value>> = BTreeMap::new();
            for ContainerRates { pod, name, rates } in &usage.containers {
                pods.entry(pod).or_default().push(json!({ "name": name, "usage": quantities(*rates) }));
            }
            objects.extend(pods.into_iter().filter_map(|(uid, containers)| {
                let pod = view.by_uid(uid).filter(|pod| pod.key().resource == PODS)?;
                self.object(pod, usage, json!({ "containers": containers }), view)
            }));
        }
        objects.sort_by(|a, b| a.key().cmp(b.key()));
        objects
    }

    /// What was measured of an object, if it is asked for.
    fn object(&self, of: &Object, usage: &NodeUsage, mut value: Value, view: &View) -> Option<Arc<Object>> {
        let (namespace, name) = (&*of.key().namespace, &*of.key().name);
        if (!self.namespace.is_empty() && namespace != self.namespace) || (!self.name.is_empty() && name != self.name) {
            return None;
        }
        let mut metadata = json!({ "name": name, "creationTimestamp": usage.at.rfc3339() });
        if !namespace.is_empty() {
            metadata["namespace"] = namespace.into();
        }
        let labels: BTreeMap<_, _> = of.metadata().labels.iter().collect();
        if !labels.is_empty() {
            metadata["labels"] = json!(labels);
        }
        value["metadata"] = metadata;
        value["timestamp"] = usage.at.rfc3339().into();
        value["window"] = format!("{}s", usage.window.as_millis() as f64 / 1000.0).into();
        let key = ObjectKey::new(self.resource.group_resource.clone(), namespace, name);
        let object = Arc::new(Object::new(key, view.revision(), value, Attributes::new()));
        self.options.as_ref().is_none_or(|options| matches(options, &object)).then_some(object)
    }
}

fn quantities(rates: Rates) -> Value {
    json!({ "cpu": format!("{}n", rates.cpu_nanos), "memory": format!("{}Ki", rates.memory_bytes >> 10) })
}
