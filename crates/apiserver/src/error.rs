//! Every refusal as a `Status`: field errors in Kubernetes' words, and what the store refused.

use coracle_api::{Cause, GroupResource, ObjectKey, Reason, Resource, Status, StatusDetails};
use coracle_store::Refused;

/// A cause about a field; `message` is the whole text behind the field.
pub(crate) fn field_cause(reason: &str, field: &str, message: String) -> Cause {
    Cause { reason: reason.into(), message, field: field.into() }
}

/// `Forbidden: <why>`.
pub(crate) fn forbidden_cause(field: &str, why: &str) -> Cause {
    field_cause("FieldValueForbidden", field, format!("Forbidden: {why}"))
}

/// `Required value[: <why>]`.
pub(crate) fn required_cause(field: &str, why: &str) -> Cause {
    let message = if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") };
    field_cause("FieldValueRequired", field, message)
}

/// `Invalid value: <value>: <why>`.
pub(crate) fn invalid_cause(field: &str, value: &serde_json::Value, why: &str) -> Cause {
    field_cause("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"))
}

/// `Unsupported value: "x": supported values: "a", "b"`.
pub(crate) fn not_supported_cause(field: &str, value: &str, supported: &[&str]) -> Cause {
    let list: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
    field_cause(
        "FieldValueNotSupported",
        field,
        format!("Unsupported value: {value:?}: supported values: {}", list.join(", ")),
    )
}

/// 422 for an object of this resource.
pub(crate) fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Status {
    Status::invalid(&resource.gvk.group_version.group, &resource.gvk.kind, name, causes)
}

/// 409: a stated uid is not the object's.
pub(crate) fn uid_mismatch(key: &ObjectKey, asked: &str, have: &str) -> Status {
    let resource = &key.resource;
    let path = if resource.group.is_empty() {
        resource.resource.to_string()
    } else {
        format!("{}/{}", resource.group, resource.resource)
    };
    // Kubernetes' own kinds lie under their plural alone, whatever their group.
    let path = if is_builtin(resource) { resource.resource.to_string() } else { path };
    let scope = if key.namespace.is_empty() { String::new() } else { format!("{}/", key.namespace) };
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{path}/{scope}{}, ResourceVersion: 0, \
         AdditionalErrorMsg: Precondition failed: UID in precondition: {asked}, UID in object meta: {have}",
        key.name
    );
    Status::conflict(resource, &key.name, why)
}

fn is_builtin(resource: &GroupResource) -> bool {
    !resource.group.contains('.') || resource.group.ends_with(".k8s.io")
}

/// 403: the namespace is going away.
pub(crate) fn namespace_terminating(resource: &GroupResource, name: &str, namespace: &str) -> Status {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = Status::forbidden(resource, name, why);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        });
    }
    status
}

/// 504: the revision lies in the future.
pub(crate) fn too_large(asked: u64, current: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    let details = StatusDetails { causes: vec![cause], retry_after_seconds: 1, ..StatusDetails::default() };
    Status::failure(504, Some(Reason::Timeout), message).with_details(details)
}

/// 410: the revision is no longer kept.
pub(crate) fn expired(error: &coracle_store::Expired) -> Status {
    Status::failure(410, Some(Reason::Expired), error.to_string())
}

/// 404 or 501-like answers for what is not here: it says so.
pub(crate) fn not_here(what: &str) -> Status {
    Status::failure(501, None, format!("{what} is not supported by this server yet"))
}

/// What the store refused, once running the request again has not helped or cannot help.
pub(crate) fn refused(resource: &Resource, key: &ObjectKey, refused: Refused) -> Status {
    let group_resource = &resource.group_resource;
    match refused {
        Refused::Exists(_) => Status::already_exists(group_resource, &key.name),
        Refused::Gone(gone) => Status::not_found(&gone.resource, &gone.name),
        Refused::Modified(_) => Status::modified(group_resource, &key.name),
        Refused::Terminating(namespace) => namespace_terminating(group_resource, &key.name, &namespace.name),
        Refused::Exhausted(pool) => {
            let what = if pool.contains("address") { "a serviceIP" } else { "a value" };
            Status::internal(format!("failed to allocate {what}: range is full"))
        }
        refused @ (Refused::Taken { .. } | Refused::OutOfRange { .. } | Refused::Malformed(_)) => {
            Status::internal(refused)
        }
        Refused::Term { .. } => Status::failure(
            503,
            Some(Reason::ServiceUnavailable),
            "the leader changed while the request was being carried out; please try again",
        ),
    }
}
