//! From a request to who answers it: authorization, then the resource and its verb, or a path that is no resource.

use coracle_api::{FieldSelector, ObjectKey, Registry, Request, Resource, Response, Status};
use coracle_base::{Now, Rng};
use coracle_store::View;

use crate::answer::Presenter;
use crate::authorize::{Access, Attributes, ResourceAttributes};
use crate::context::{Context, Proposal, Step};
use crate::request::negotiate::{Encoding, negotiate};
use crate::request::path::{self, ResourcePath, Target};
use crate::request::{Verb, method_word};
use crate::strategy::Strategy;
use crate::{
    Heartbeats, ServerOptions, discovery, health, kind_rules, kinds, metrics, openapi, openid, review, subresource,
    verb,
};

/// What a run of a request may look at.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) options: &'a ServerOptions,
    pub(crate) registry: &'a Registry,
    pub(crate) request: &'a Request,
    pub(crate) view: &'a View,
    pub(crate) heartbeats: &'a Heartbeats,
    pub(crate) now: Now,
    pub(crate) rng: &'a mut Rng,
    pub(crate) warnings: &'a mut Vec<String>,
    pub(crate) waited: bool,
}

/// Where a request on a resource went: what its answer needs when its transaction is settled.
#[derive(Clone, Debug)]
pub(crate) struct Routed {
    registry: Registry,
    pub(crate) strategy: &'static dyn Strategy,
    pub(crate) path: ResourcePath,
    pub(crate) encoding: Encoding,
}

impl Routed {
    /// The resource.
    pub(crate) fn resource(&self) -> &Resource {
        let ResourcePath { group, version, resource, .. } = &self.path;
        self.registry.by_path(group, version, resource).expect("the path led to it before")
    }

    /// Who writes its answer.
    pub(crate) fn presenter(&self, now: Now) -> Presenter<'_> {
        Presenter { resource: self.resource(), strategy: self.strategy, encoding: self.encoding, now }
    }

    fn context<'a>(&'a self, run: &'a mut Run<'_>) -> Context<'a> {
        Context {
            options: run.options,
            registry: run.registry,
            request: run.request,
            view: run.view,
            heartbeats: run.heartbeats,
            now: run.now,
            rng: run.rng,
            warnings: run.warnings,
            resource: self.resource(),
            strategy: self.strategy,
            path: &self.path,
            encoding: self.encoding,
            waited: run.waited,
        }
    }
}

/// Runs a request as far as it goes on one view.
pub(crate) fn run(run: &mut Run<'_>) -> Result<(Step, Option<Routed>), Status> {
    match path::parse(&run.request.path) {
        Target::Path => {
            let (verb, path) = (method_word(run.request.method), run.request.path.as_str());
            let access = Access::of(run.options, run.view);
            access.check(&run.request.user, &Attributes::Path { verb, path })?;
            Ok((Step::Respond(without_resource(run)?), None))
        }
        Target::Resource(path) => resource(run, path),
    }
}

fn without_resource(run: &Run<'_>) -> Result<Response, Status> {
    if let Some(response) = health::answer(run.options, run.registry, run.request) {
        return response;
    }
    if let Some(response) = openid::answer(run.options, run.request) {
        return response;
    }
    if run.request.path.starts_with("/openapi/") {
        return openapi::answer(run.options, run.request);
    }
    discovery::answer(run.options, run.registry, run.request)
}

fn resource(run: &mut Run<'_>, path: ResourcePath) -> Result<(Step, Option<Routed>), Status> {
    let Some(verb) = Verb::of(run.request, &path) else { return Err(Status::method_not_allowed()) };
    authorize(run, &path, verb)?;
    if let Some(answer) = review::answer(run, &path, verb) {
        return Ok((answer?, None));
    }
    let Some(resource) = run.registry.by_path(&path.group, &path.version, &path.resource) else {
        return Err(Status::unknown_path());
    };
    check_scope(resource, &path, verb)?;
    if !path.subresource.is_empty() && !subresource::exists(resource, &path.subresource) {
        return Err(Status::unknown_path());
    }
    let served = match path.subresource.as_str() {
        "" => resource.has_verb(verb.as_str()),
        name => subresource::has_verb(resource, name, verb),
    };
    if !served || !verb.fits(&path) {
        return Err(Status::method_not_allowed());
    }
    run.warnings.extend(kind_rules::deprecation(resource).map(str::to_owned));
    let list = matches!(verb, Verb::List | Verb::DeleteCollection);
    let encoding =
        if subresource::is_stream(&path.subresource) { Encoding::JSON } else { negotiate(run.request, list)? };
    let strategy = kinds::strategy_of(&resource.group_resource);
    let routed = Routed { registry: run.registry.clone(), strategy, path, encoding };
    let mut context = routed.context(run);
    let step = if routed.path.subresource.is_empty() {
        on_object(&mut context, verb)?
    } else {
        subresource::run(&mut context, verb)?
    };
    Ok((step, Some(routed)))
}

/// What authorization looks at, for `look`. A selector of one name asks for that object, as `watch` of one does.
pub(crate) fn resource_attributes<T>(
    request: &Request,
    path: &ResourcePath,
    verb: Verb,
    look: impl FnOnce(&Attributes<'_>) -> T,
) -> T {
    let fields = match verb {
        Verb::List | Verb::Watch => request.param("fieldSelector").and_then(|text| FieldSelector::parse(text).ok()),
        _ => None,
    };
    let exact = |field: &str| fields.as_ref().and_then(|fields| fields.exact(field)).unwrap_or_default();
    look(&Attributes::Resource(ResourceAttributes {
        verb: verb.as_str(),
        group: &path.group,
        resource: &path.resource,
        subresource: &path.subresource,
        namespace: path.scope(),
        name: if path.name.is_empty() { exact("metadata.name") } else { &path.name },
        node_name: exact("spec.nodeName"),
    }))
}

/// Whether the user may do that.
fn authorize(run: &Run<'_>, path: &ResourcePath, verb: Verb) -> Result<(), Status> {
    let access = Access::of(run.options, run.view);
    resource_attributes(run.request, path, verb, |attributes| {
        access.check(&run.request.user, attributes)?;
        // A stream into a pod changes it, whichever method opens it: a WebSocket is a GET.
        match attributes {
            Attributes::Resource(asked)
                if verb == Verb::Get && matches!(asked.subresource, "exec" | "attach" | "portforward") =>
            {
                let create = ResourceAttributes { verb: "create", ..*asked };
                access.check(&run.request.user, &Attributes::Resource(create))
            }
            _ => Ok(()),
        }
    })
}

fn on_object(context: &mut Context<'_>, verb: Verb) -> Result<Step, Status> {
    if context.resource.group_resource.group == metrics::GROUP {
        return metrics::ask(context, verb);
    }
    match verb {
        Verb::Get => verb::get::get(context),
        Verb::List => verb::list::list(context),
        Verb::Watch => verb::watch::watch(context),
        Verb::Create if context.is_core("bindings") => subresource::binding::bind(context),
        Verb::Create => verb::create::create(context),
        Verb::Update => verb::update::update(context),
        Verb::Patch => verb::patch::patch(context),
        Verb::Delete => verb::delete::delete(context),
        Verb::DeleteCollection => verb::delete_collection::delete_collection(context),
    }
}

/// A path with a namespace is for a namespaced resource, and one object of such a resource has a namespace.
fn check_scope(resource: &Resource, path: &ResourcePath, verb: Verb) -> Result<(), Status> {
    if !resource.namespaced && !path.namespace.is_empty() {
        return Err(Status::unknown_path());
    }
    if resource.namespaced && path.namespace.is_empty() {
        return match verb {
            Verb::List | Verb::Watch => Ok(()),
            Verb::Create | Verb::DeleteCollection if path.name.is_empty() => Err(Status::method_not_allowed()),
            _ => Err(Status::unknown_path()),
        };
    }
    Ok(())
}

/// Works out the deletion of one object of a collection; `None` when there is nothing to do.
pub(crate) fn delete_one(run: &mut Run<'_>, routed: &Routed, key: &ObjectKey) -> Result<Option<Proposal>, Status> {
    let mut context = routed.context(run);
    Ok(match verb::delete_collection::delete_one(&mut context, key)? {
        Some(Step::Propose(proposal)) => Some(*proposal),
        _ => None,
    })
}
