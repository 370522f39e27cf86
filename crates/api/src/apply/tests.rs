//! Server-side apply and ownership against the answers of a real API server, and rule by rule.

use serde_json::json;

use super::*;
use crate::schema::{Field, ListType, Type};

mod apply_cases;
mod update_cases;

/// What a real API server answered, by the name of its file.
#[track_caller]
fn recorded(name: &str) -> Value {
    let text = match name {
        "config_map_applied" => include_str!("tests/data/config_map_applied.json"),
        "config_map_pruned" => include_str!("tests/data/config_map_pruned.json"),
        "conflict" => include_str!("tests/data/conflict.json"),
        "deployment_applied" => include_str!("tests/data/deployment_applied.json"),
        "deployment_created" => include_str!("tests/data/deployment_created.json"),
        "pod_scheduled" => include_str!("tests/data/pod_scheduled.json"),
        other => panic!("nothing is recorded as {other}"),
    };
    serde_json::from_str(text).expect("a recorded answer is JSON")
}

const NOW: &str = "2026-11-22T10:31:35Z";

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

/// A kind of the built-in table, or a custom one.
struct Kind {
    schema: std::sync::Arc<Schema>,
    type_id: TypeId,
    api_version: &'static str,
    name: &'static str,
}

impl Kind {
    #[track_caller]
    fn builtin(package: &str, api_version: &'static str, name: &'static str) -> Self {
        let schema = Schema::builtin();
        let type_id = schema.find(&format!("io.k8s.api.{package}.{name}")).expect("a built-in type");
        Self { schema, type_id, api_version, name }
    }

    fn config_map() -> Self {
        Self::builtin("core.v1", "v1", "ConfigMap")
    }

    fn deployment() -> Self {
        Self::builtin("apps.v1", "apps/v1", "Deployment")
    }

    fn pod() -> Self {
        Self::builtin("core.v1", "v1", "Pod")
    }

    /// A custom kind that says nothing of its spec, with a set and a keyed list beside it.
    fn custom() -> Self {
        let field = |name: &str, shape| (name.to_owned(), Field { pointer: true, ..Field::new(name, shape) });
        let fields = [
            field("apiVersion", Shape::String),
            field("kind", Shape::String),
            field("metadata", Shape::Any),
            field("spec", Shape::Any),
            field("status", Shape::Any),
            ("set".into(), Field { list_type: ListType::Set, ..field("set", Shape::List(Shape::String.into())).1 }),
        ];
        let items = Shape::List(Shape::Object(TypeId(1)).into());
        let items = Field { list_type: ListType::Map(vec!["id".into()]), ..Field::new("items", items) };
        let item = Type { name: "io.ex.v1.Item".into(), fields: [field("id", Shape::String)].into(), atomic: false };
        let fields = fields.into_iter().chain([("items".to_owned(), items)]);
        let foo = Type { name: "io.ex.v1.Foo".into(), fields: fields.collect(), atomic: false };
        let schema = std::sync::Arc::new(Schema::new(vec![foo, item]));
        Self { schema, type_id: TypeId(0), api_version: "ex.io/v1", name: "Foo" }
    }

    fn options<'a>(&'a self, manager: &'a str) -> ApplyOptions<'a> {
        ApplyOptions {
            manager,
            force: false,
            api_version: self.api_version,
            kind: self.name,
            subresource: "",
            time: now(),
            status_subresource: true,
        }
    }

    fn apply(&self, live: Option<&Value>, config: &Value, manager: &str) -> Result<Value, ApplyError> {
        apply(&self.schema, self.type_id, live, config, &self.options(manager))
    }

    fn force(&self, live: Option<&Value>, config: &Value, manager: &str) -> Result<Value, ApplyError> {
        let options = ApplyOptions { force: true, ..self.options(manager) };
        apply(&self.schema, self.type_id, live, config, &options)
    }

    fn update(&self, live: Option<&Value>, new: &Value, manager: &str) -> Value {
        self.update_at(live, new, manager, "", now())
    }

    fn update_at(&self, live: Option<&Value>, new: &Value, manager: &str, subresource: &str, time: Timestamp) -> Value {
        let options =
            UpdateOptions { manager, api_version: self.api_version, subresource, time, status_subresource: true };
        let mut new = new.clone();
        track_update(&self.schema, self.type_id, live, &mut new, &options);
        new
    }
}

/// The record without its constant members, one line a manager.
fn record(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or("-");
            assert_eq!(text("fieldsType"), "FieldsV1");
            format!("{} {} {}", text("operation"), text("manager"), entry["fieldsV1"])
        })
        .collect()
}

fn without_record(object: &Value) -> Value {
    let mut object = object.clone();
    take_managed_fields(&mut object);
    object
}

/// A ConfigMap with this data.
fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ac", "namespace": "default"}, "data": data})
}

/// The Deployment that the recorded requests send.
fn deployment_config(replicas: i32, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d1", "labels": {"a": "b"}}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "d1"}}, "template": {
            "metadata": {"labels": {"app": "d1"}},
            "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]}
        }
    }})
}

/// The Deployment as it was before the recorded apply.
fn live_deployment() -> Value {
    let mut live = recorded("deployment_applied");
    let created = recorded("deployment_created");
    live["spec"]["replicas"] = json!(2);
    live["metadata"]["managedFields"] =
        json!([live["metadata"]["managedFields"][1], created["metadata"]["managedFields"][0]]);
    live
}
