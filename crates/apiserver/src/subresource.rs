//! Subresources: parts of an object, and actions on it.

pub(crate) mod binding;
mod eviction;
mod log;
pub(crate) mod scale;
mod token;
mod tunnel;

use coracle_api::{Resource, Status};

use crate::context::{Context, Step};
use crate::error;
use crate::request::Verb;
use crate::verb::{get, patch, update};

/// Whether a resource has a subresource. Those that are streams, or not here yet, may be missing from discovery.
pub(crate) fn exists(resource: &Resource, name: &str) -> bool {
    resource.subresource(name).is_some() || is_absent(resource, name)
}

/// Whether a subresource has a verb.
pub(crate) fn has_verb(resource: &Resource, name: &str, verb: Verb) -> bool {
    match resource.subresource(name) {
        Some(found) => found.verbs.iter().any(|one| one == verb.as_str()),
        None => true,
    }
}

/// Whether a subresource answers with bytes that are no object.
pub(crate) fn is_stream(name: &str) -> bool {
    matches!(name, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Subresources that Kubernetes has and this server has not yet.
fn is_absent(resource: &Resource, name: &str) -> bool {
    match &*resource.group_resource.resource {
        "pods" => matches!(name, "exec" | "attach" | "ephemeralcontainers" | "resize"),
        "nodes" => name == "proxy",
        _ => false,
    }
}

/// Runs a verb on a subresource.
pub(crate) fn run(context: &mut Context<'_>, verb: Verb) -> Result<Step, Status> {
    let subresource = context.path.subresource.as_str();
    match (subresource, verb) {
        ("status", Verb::Get) => get::get(context),
        ("status" | "finalize", Verb::Update) => update::update(context),
        ("status", Verb::Patch) => patch::patch(context),
        ("scale", Verb::Get) => scale::get(context),
        ("scale", Verb::Update) => scale::update(context),
        ("scale", Verb::Patch) => scale::patch(context),
        ("binding", Verb::Create) => binding::bind(context),
        ("eviction", Verb::Create) => eviction::evict(context),
        ("log", Verb::Get) => log::log(context),
        ("portforward", _) => tunnel::port_forward(context),
        ("proxy", _) => tunnel::proxy(context),
        ("exec" | "attach", _) => tunnel::session(context),
        ("token", Verb::Create) => token::create(context),
        _ => Err(error::not_here(&format!("subresource {subresource:?} of {}", context.resource.group_resource))),
    }
}
