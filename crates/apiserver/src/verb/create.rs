//! POST of a collection, and every other way in which an object comes into being (PUT, apply).

use std::sync::Arc;

use coracle_api::{Object, ObjectKey, Revision, Status};
use coracle_store::{Precondition, Settlement, Transaction, Write};
use serde_json::{Map, Value};

use crate::context::{Context, Finish, Proposal, Shape, Step};
use crate::request::options::WriteOptions;
use crate::strategy::Strategy;
use crate::validation::meta;
use crate::{decode, error, managed_fields};

/// How long a generated name's base may be, so that five characters more still make a label.
const GENERATE_NAME_BASE_MAX: usize = 58;
/// How many characters are appended to it.
const GENERATE_NAME_SUFFIX: usize = 5;

/// Creates what the body holds.
pub(crate) fn create(context: &mut Context<'_>) -> Result<Step, Status> {
    let options = WriteOptions::parse(context.request, "CreateOptions", false)?;
    let value = decode::object(context, options.validation)?;
    check_namespace(context, &value)?;
    propose(context, value, &options, managed_fields::Change::Update)
}

/// The body's namespace must be the path's, or absent.
pub(crate) fn check_namespace(context: &Context<'_>, value: &Value) -> Result<(), Status> {
    let stated = value["metadata"]["namespace"].as_str().unwrap_or_default();
    if stated.is_empty() || stated == context.path.namespace {
        return Ok(());
    }
    Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
}

/// The body's name must be the path's.
pub(crate) fn check_name(context: &Context<'_>, value: &Value) -> Result<(), Status> {
    let (name, url) = (value["metadata"]["name"].as_str().unwrap_or_default(), &context.path.name);
    if name == url {
        return Ok(());
    }
    Err(Status::bad_request(if name.is_empty() {
        format!("the name of the object ({url} based on URL) was undeterminable: name must be provided")
    } else {
        format!("the name of the object ({name}) does not match the name on the URL ({url})")
    }))
}

/// Proposes a new object; `change` says how its fields are recorded as managed.
pub(crate) fn propose(
    context: &mut Context<'_>,
    mut value: Value,
    options: &WriteOptions,
    change: managed_fields::Change,
) -> Result<Step, Status> {
    let namespace_key = check_namespace_is_there(context, &value)?;
    let stated_version = value["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty());
    let generated_name = fill_metadata(context, &mut value);
    context.strategy.default(&mut value);
    managed_fields::track(context, &mut value, None, options, change);
    let strategy = context.strategy;
    strategy.prepare_create(&mut context.for_strategy(), &mut value)?;
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut causes = meta::check_new(&value, scope(context), strategy.name_rule());
    causes.extend(strategy.validate(&value, None, ""));
    if !causes.is_empty() {
        return Err(error::invalid(context.resource, &name, causes));
    }
    if stated_version {
        return Err(Status::failure(500, None, "resourceVersion should not be set on objects to be created"));
    }
    let key = context.key_of(&name);
    if context.view.object(&key).is_some() && !generated_name {
        return Err(Status::already_exists(&key.resource, &name));
    }
    if options.dry_run {
        return Ok(Step::Respond(context.presenter().unstored(201, &value)));
    }
    let mut settlements: Vec<Settlement> = namespace_key.map(Settlement::NotTerminating).into_iter().collect();
    settlements.extend(strategy.settlements(&mut context.for_strategy(), &value, None, 0));
    let preconditions = vec![Precondition::Absent(key.clone())];
    let transaction = Transaction { preconditions, settlements, ..put(strategy, &key, value) };
    let finish = Finish::Written { code: 201, write: 0, shape: Shape::Object };
    Ok(Step::Propose(Box::new(Proposal { transaction, key, finish, generated_name })))
}

/// The transaction that puts a value, and nothing yet that it depends on.
pub(crate) fn put(strategy: &dyn Strategy, key: &ObjectKey, value: Value) -> Transaction {
    let attributes = strategy.attributes(&value);
    let object = Object::new(key.clone(), Revision::default(), value, attributes);
    let write = Write::Put { key: key.clone(), body: object.body().clone(), attributes: object.attributes().clone() };
    Transaction { writes: vec![write], ..Transaction::default() }
}

/// A stored object's value with its kind, `apiVersion` and `resourceVersion`.
pub(crate) fn value_of(context: &Context<'_>, object: &Arc<Object>) -> Value {
    object.value(Some(&context.resource.gvk))
}

/// `NamespaceLifecycle`: the namespace is there and not going away. Gives its key.
fn check_namespace_is_there(context: &Context<'_>, value: &Value) -> Result<Option<ObjectKey>, Status> {
    if !context.resource.namespaced {
        return Ok(None);
    }
    let namespace = &context.path.namespace;
    let key = ObjectKey::new(coracle_api::resources::NAMESPACES, "", namespace);
    let Some(object) = context.view.object(&key) else { return Err(Status::not_found(&key.resource, namespace)) };
    if object.metadata().deletion_timestamp.is_some() {
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        return Err(error::namespace_terminating(&context.resource.group_resource, name, namespace));
    }
    Ok(Some(key))
}

/// Sets what only the server sets, and a name where one is to be generated. Gives whether it made the name up.
fn fill_metadata(context: &mut Context<'_>, value: &mut Value) -> bool {
    let now = context.now.wall.rfc3339();
    let uid = context.rng.uuid();
    let metadata = metadata_of(value);
    for field in ["selfLink", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"] {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), now.into());
    if context.resource.namespaced {
        metadata.insert("namespace".into(), context.path.namespace.clone().into());
    } else {
        metadata.remove("namespace");
    }
    if context.strategy.has_generation() {
        metadata.insert("generation".into(), 1.into());
    }
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let base = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
    if named || base.is_empty() {
        return false;
    }
    let base: String = base.chars().take(GENERATE_NAME_BASE_MAX).collect();
    metadata.insert("name".into(), format!("{base}{}", context.rng.name_suffix(GENERATE_NAME_SUFFIX)).into());
    true
}

/// The metadata of an object, made where it is missing.
pub(crate) fn metadata_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value["metadata"].is_object() {
        value["metadata"] = Value::Object(Map::new());
    }
    value["metadata"].as_object_mut().expect("it was made an object")
}

fn scope(context: &Context<'_>) -> meta::Scope {
    if context.resource.namespaced { meta::Scope::Namespaced } else { meta::Scope::Cluster }
}
