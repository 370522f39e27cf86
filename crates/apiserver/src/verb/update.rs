//! PUT, and every other way in which an object changes (PATCH, apply, subresources).

use std::sync::Arc;

use coracle_api::{Object, Status, apply};
use coracle_store::{Precondition, Transaction, Write};
use serde_json::Value;

use crate::context::{Context, Finish, Proposal, Shape, Step};
use crate::error::{self, invalid_cause};
use crate::request::options::WriteOptions;
use crate::validation::meta;
use crate::verb::create::{self, check_name, check_namespace, metadata_of, put, value_of};
use crate::{decode, managed_fields};

/// What a client cannot change: it is taken over from the stored object.
const SERVER_FIELDS: [&str; 4] = ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// Replaces the object that the path names, or its `subresource`.
pub(crate) fn update(context: &mut Context<'_>) -> Result<Step, Status> {
    let options = WriteOptions::parse(context.request, "UpdateOptions", false)?;
    let value = decode::object(context, options.validation)?;
    check_namespace(context, &value)?;
    check_name(context, &value)?;
    let key = context.key();
    let Some(old) = context.view.object(&key) else {
        if context.resource.create_on_update && context.path.subresource.is_empty() {
            return create_instead(context, value, &options);
        }
        return Err(Status::not_found(&key.resource, &key.name));
    };
    let stated = value["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty());
    if !stated && !context.strategy.allows_unconditional_update() {
        let cause = invalid_cause("metadata.resourceVersion", &0.into(), "must be specified for an update");
        let resource = &context.resource.group_resource;
        return Err(Status::invalid(&resource.group, &resource.resource, &key.name, vec![cause]));
    }
    propose(context, value, old, &options, managed_fields::Change::Update, Shape::Object)
}

fn create_instead(context: &mut Context<'_>, mut value: Value, options: &WriteOptions) -> Result<Step, Status> {
    let metadata = metadata_of(&mut value);
    if let Some(uid) = metadata.get("uid").and_then(Value::as_str).filter(|uid| !uid.is_empty()) {
        return Err(error::uid_mismatch(&context.key(), uid, ""));
    }
    metadata.remove("resourceVersion");
    create::propose(context, value, options, managed_fields::Change::Update)
}

/// Proposes a change of `old` to `value`; both are whole objects. What is the same writes nothing.
pub(crate) fn propose(
    context: &mut Context<'_>,
    value: Value,
    old: &Arc<Object>,
    options: &WriteOptions,
    change: managed_fields::Change,
    shape: Shape,
) -> Result<Step, Status> {
    let before = value_of(context, old);
    propose_from(context, value, (old, before), options, change, shape)
}

/// The same for who has read `old` already, as it is stored.
pub(crate) fn propose_from(
    context: &mut Context<'_>,
    mut value: Value,
    (old, before): (&Arc<Object>, Value),
    options: &WriteOptions,
    change: managed_fields::Change,
    shape: Shape,
) -> Result<Step, Status> {
    take_over(context, &mut value, &before, old)?;
    let strategy = context.strategy;
    strategy.default(&mut value);
    managed_fields::track(context, &mut value, Some(&before), options, change);
    strategy.prepare_update(&mut context.for_strategy(), &mut value, &before)?;
    raise_generation(context, &mut value, &before);
    let mut causes = meta::check_update(&value, &before);
    causes.extend(strategy.validate(&value, Some(&before), &context.path.subresource));
    if !causes.is_empty() {
        return Err(error::invalid(context.resource, &context.path.name, causes));
    }
    apply::keep_times_if_unchanged(&before, &mut value);
    let key = old.key().clone();
    if options.dry_run {
        return Ok(Step::Respond(shown(context, &value, shape)));
    }
    if removes(&value) {
        let transaction = Transaction {
            preconditions: vec![Precondition::At(key.clone(), old.revision())],
            writes: vec![Write::Delete { key: key.clone() }],
            ..Transaction::default()
        };
        let finish = Finish::Removed(Box::new(value));
        return Ok(Step::Propose(Box::new(Proposal { transaction, key, finish, generated_name: false })));
    }
    let settlements = strategy.settlements(&mut context.for_strategy(), &value, Some(&before), 0);
    let mut transaction = Transaction { settlements, ..put(strategy, &key, value) };
    if transaction.settlements.is_empty() && unchanged(&transaction, old) {
        return Ok(Step::Respond(shown_object(context, old, shape)));
    }
    transaction.preconditions.push(Precondition::At(key.clone(), old.revision()));
    let finish = Finish::Written { code: 200, write: 0, shape };
    Ok(Step::Propose(Box::new(Proposal { transaction, key, finish, generated_name: false })))
}

/// Checks the stated revision and uid, and puts back what a client cannot change.
fn take_over(context: &Context<'_>, value: &mut Value, before: &Value, old: &Arc<Object>) -> Result<(), Status> {
    let key = old.key();
    let have = old.metadata().uid.as_ref().map(|uid| uid.as_str().to_owned()).unwrap_or_default();
    let metadata = metadata_of(value);
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != have {
        return Err(error::uid_mismatch(key, text("uid"), &have));
    }
    let version = text("resourceVersion");
    if !version.is_empty() && version != "0" && version != old.revision().to_string() {
        return Err(Status::modified(&key.resource, &key.name));
    }
    metadata.remove("selfLink");
    metadata.insert("uid".into(), have.into());
    metadata.insert("name".into(), key.name.to_string().into());
    metadata.insert("resourceVersion".into(), old.revision().to_string().into());
    if context.resource.namespaced {
        metadata.insert("namespace".into(), key.namespace.to_string().into());
    }
    for field in SERVER_FIELDS {
        match before["metadata"].get(field) {
            Some(kept) => metadata.insert(field.into(), kept.clone()),
            None => metadata.remove(field),
        };
    }
    Ok(())
}

fn raise_generation(context: &Context<'_>, value: &mut Value, before: &Value) {
    let Some(generation) = before["metadata"]["generation"].as_i64().filter(|generation| *generation > 0) else {
        return;
    };
    if context.path.subresource != "status" && context.strategy.generation_changed(value, before) {
        metadata_of(value).insert("generation".into(), (generation + 1).into());
    }
}

/// An object that is going away is gone once nothing holds it: no finalizer, no grace.
///
/// A Namespace is also held by its `spec.finalizers`.
fn removes(value: &Value) -> bool {
    let metadata = &value["metadata"];
    let held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !held(&metadata["finalizers"])
        && !(value["kind"] == "Namespace" && held(&value["spec"]["finalizers"]))
}

fn unchanged(transaction: &Transaction, old: &Arc<Object>) -> bool {
    match transaction.writes.as_slice() {
        [Write::Put { body, attributes, .. }] => {
            body == old.body() && attributes.iter().all(|(name, value)| old.attribute(name) == value)
        }
        _ => false,
    }
}

fn shown_object(context: &Context<'_>, object: &Arc<Object>, shape: Shape) -> coracle_api::Response {
    match shape {
        Shape::Object => context.presenter().object(200, object),
        Shape::Scale => shown(context, &value_of(context, object), shape),
    }
}

fn shown(context: &Context<'_>, value: &Value, shape: Shape) -> coracle_api::Response {
    match shape {
        Shape::Object => context.presenter().unstored(200, value),
        Shape::Scale => context.presenter().value(200, &crate::subresource::scale::scale_of(value)),
    }
}
