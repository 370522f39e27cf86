//! DELETE of one object: preconditions, grace, finalizers, and what is answered.
//!
//! Source of the algorithm: `BeforeDelete` and `updateForGracefulDeletionAndFinalizers` of `k8s.io/apiserver`.

mod finalizers;
mod grace;

use std::sync::Arc;

use coracle_api::{GroupResource, Object, ObjectKey, Response, Status, StatusDetails};
use coracle_store::{Precondition, Transaction, Write};
use serde_json::Value;

use self::grace::Grace;
use crate::context::{Context, Finish, Proposal, Shape, Step};
use crate::request::options::DeleteOptions;
use crate::verb::create::{metadata_of, put, value_of};
use crate::verb::get::existing;
use crate::{decode, kind_rules};

/// Deletes the object that the path names.
pub(crate) fn delete(context: &mut Context<'_>) -> Result<Step, Status> {
    let body = decode::delete_options(context)?;
    let options = DeleteOptions::parse(context.request, body.as_ref())?;
    let object = existing(context)?;
    match plan(context, object, &options)? {
        Plan::Write(proposal) => Ok(Step::Propose(proposal)),
        Plan::Answer(response) => Ok(Step::Respond(response)),
    }
}

/// What a deletion comes to.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Something is written.
    Write(Box<Proposal>),
    /// Nothing is (a dry run, or it is going away already); this is the answer.
    Answer(Response),
}

/// Works out what deleting an object does.
pub(crate) fn plan(context: &mut Context<'_>, object: &Arc<Object>, options: &DeleteOptions) -> Result<Plan, Status> {
    check_preconditions(context, object, options)?;
    let before = value_of(context, object);
    let strategy = context.strategy;
    strategy.validate_delete(&mut context.for_strategy(), &before)?;
    let mut value = before.clone();
    let grace = if context.is_core("namespaces") {
        grace::of_namespace(context.now, &mut value)
    } else {
        grace::begin(context.now, &mut value, options, context.is_core("pods"))
    };
    if grace == Grace::Pending {
        return Ok(Plan::Answer(context.presenter().object(200, object)));
    }
    let orphans = kind_rules::orphans_by_default(context.resource);
    let held = finalizers::for_collection(&mut value, options, orphans);
    if held && grace == Grace::None {
        grace::mark(context.now, &mut value, 0);
    }
    let kept = held || matches!(grace, Grace::Running | Grace::Namespace);
    if kept && value == before {
        return Ok(Plan::Answer(context.presenter().object(200, object)));
    }
    if options.dry_run {
        return Ok(Plan::Answer(if kept {
            context.presenter().unstored(200, &value)
        } else {
            gone(context, object, &value)
        }));
    }
    let key = object.key().clone();
    let (write, finish) = if kept {
        let code = if options.orphan_false { 202 } else { 200 };
        (put(strategy, &key, value).writes, Finish::Written { code, write: 0, shape: Shape::Object })
    } else if kind_rules::returns_deleted(context.resource) {
        (vec![Write::Delete { key: key.clone() }], Finish::Removed(Box::new(value)))
    } else {
        (vec![Write::Delete { key: key.clone() }], Finish::Answer(success(context, object)))
    };
    let preconditions = vec![Precondition::At(key.clone(), object.revision())];
    let transaction = Transaction { preconditions, writes: write, ..Transaction::default() };
    Ok(Plan::Write(Box::new(Proposal { transaction, key, finish, generated_name: false })))
}

fn gone(context: &Context<'_>, object: &Arc<Object>, value: &Value) -> Response {
    if kind_rules::returns_deleted(context.resource) {
        context.presenter().unstored(200, value)
    } else {
        success(context, object)
    }
}

/// `Status` with success, naming what is gone.
fn success(context: &Context<'_>, object: &Arc<Object>) -> Response {
    let GroupResource { group, resource } = &context.resource.group_resource;
    let details = StatusDetails {
        name: object.key().name.to_string(),
        group: group.to_string(),
        kind: resource.to_string(),
        uid: object.metadata().uid.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..StatusDetails::default()
    };
    let status =
        Status { status: "Success".into(), message: String::new(), reason: None, details: Some(details), code: 0 };
    Response::from(status)
}

fn check_preconditions(context: &Context<'_>, object: &Object, options: &DeleteOptions) -> Result<(), Status> {
    // These messages name the kind where others name the plural.
    let kind = GroupResource {
        group: context.resource.gvk.group_version.group.clone(),
        resource: context.resource.gvk.kind.clone(),
    };
    let ObjectKey { name, .. } = object.key();
    let have = object.metadata().uid.as_ref().map(ToString::to_string).unwrap_or_default();
    if let Some(asked) = options.uid.as_ref().filter(|asked| **asked != have) {
        let why = format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({have}). \
             The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&kind, name, why));
    }
    let version = object.revision().to_string();
    if let Some(asked) = options.resource_version.as_ref().filter(|asked| **asked != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({version}). \
             The object might have been modified"
        );
        return Err(Status::conflict(&kind, name, why));
    }
    Ok(())
}

/// Removes a field of an object's metadata, or sets it to a list.
fn set_list(value: &mut Value, field: &str, list: Vec<String>) {
    let metadata = metadata_of(value);
    if list.is_empty() {
        metadata.remove(field);
    } else {
        metadata.insert(field.into(), list.into());
    }
}
