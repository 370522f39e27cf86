//! GET of a collection: selection, pages, and the revisions they are read at.

mod token;

use std::sync::Arc;

use coracle_api::{Object, ObjectKey, Revision, Status};
use coracle_store::View;

use self::token::Token;
use crate::answer::ListMeta;
use crate::context::{Context, Step};
use crate::error;
use crate::request::options::{ListOptions, Match, field_of};
use crate::verb::get::at_least;

/// Answers with a page of the collection.
pub(crate) fn list(context: &mut Context<'_>) -> Result<Step, Status> {
    let options = ListOptions::parse(context.request, context.resource, context.strategy, false)?;
    if let Some(revision) = options.revision
        && let Some(step) = at_least(context, revision)?
    {
        return Ok(step);
    }
    let page = match read(context, &options) {
        Ok(page) => page,
        Err(Unread::Refused(status)) => return Err(status),
        Err(Unread::Answer(response)) => return Ok(Step::Respond(*response)),
    };
    Ok(Step::List(page.meta, page.objects))
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its metadata.
    pub(crate) meta: ListMeta,
    /// Its objects, in key order.
    pub(crate) objects: Vec<Arc<Object>>,
}

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum Unread {
    /// A status says it all.
    Refused(Status),
    /// A whole answer: a status whose metadata has a token to go on with.
    Answer(Box<coracle_api::Response>),
}

/// Reads a page.
pub(crate) fn read(context: &Context<'_>, options: &ListOptions) -> Result<Page, Unread> {
    let namespace = Some(context.path.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let token = Token::decode(&options.continue_token, namespace).map_err(Unread::Refused)?;
    let earlier = view_of(context, options, token.as_ref())?;
    let view = earlier.as_ref().unwrap_or(context.view);
    let after = token.as_ref().map(|token| (token.namespace.as_str(), token.name.as_str()));
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let mut objects: Vec<Arc<Object>> = Vec::new();
    let mut more = false;
    let leases = context.heartbeats.leases(view, &context.resource.group_resource, namespace);
    let mut found = candidates(context, options, view, namespace, after);
    if !leases.is_empty() {
        let behind = |key: &ObjectKey| after.is_none_or(|after| (&*key.namespace, &*key.name) > after);
        let mut all: Vec<_> = found.chain(leases.iter().filter(|lease| behind(lease.key()))).collect();
        all.sort_by(|a, b| a.key().cmp(b.key()));
        found = Box::new(all.into_iter());
    }
    for object in found {
        if !matches(options, object) {
            continue;
        }
        if objects.len() == limit {
            more = true;
            break;
        }
        objects.push(object.clone());
    }
    let mut meta = ListMeta { revision: view.revision(), ..ListMeta::default() };
    if more && let Some(last) = objects.last() {
        let (last_namespace, last_name) = (&*last.key().namespace, &*last.key().name);
        meta.continue_token = Token::encode(view.revision(), namespace, last_namespace, last_name);
        if !options.selects() {
            let (resource, last) = (&context.resource.group_resource, (last_namespace, last_name));
            let made_up = leases.iter().filter(|lease| (&*lease.key().namespace, &*lease.key().name) > last);
            meta.remaining = view.list_after(resource, namespace, last).count() + made_up.count();
        }
    }
    Ok(Page { meta, objects })
}

/// Whether the selectors take an object.
pub(crate) fn matches(options: &ListOptions, object: &Object) -> bool {
    options.labels.matches(&object.metadata().labels) && options.fields.matches(|field| field_of(object, field))
}

/// The earlier state that is asked for; `None` for the current one.
fn view_of(context: &Context<'_>, options: &ListOptions, token: Option<&Token>) -> Result<Option<View>, Unread> {
    let revision = match (token, options.revision) {
        (Some(token), _) => token.revision,
        (None, Some(revision)) if exact(options) => Some(revision),
        _ => None,
    };
    let Some(revision) = revision.filter(|revision| *revision != context.view.revision()) else { return Ok(None) };
    if revision > context.view.revision() {
        // Only a made-up token gets here.
        return Err(Unread::Refused(error::too_large(revision.0, context.view.revision().0)));
    }
    match context.view.at(revision) {
        Ok(view) => Ok(Some(view)),
        Err(_) if token.is_some() => Err(Unread::Answer(Box::new(token::expired(&options.continue_token)))),
        Err(expired) => Err(Unread::Refused(error::expired(&expired))),
    }
}

/// A page at a stated revision is at exactly that one, as before `resourceVersionMatch` existed.
fn exact(options: &ListOptions) -> bool {
    let stated = options.revision.is_some_and(|revision| revision != Revision(0));
    stated && (options.revision_match == Some(Match::Exact) || (options.revision_match.is_none() && options.limit > 0))
}

/// The objects that may match, in key order: one by its name, those of an indexed field, or all.
fn candidates<'a>(
    context: &Context<'_>,
    options: &ListOptions,
    view: &'a View,
    namespace: Option<&str>,
    after: Option<(&str, &str)>,
) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
    let resource = &context.resource.group_resource;
    let behind =
        |object: &Arc<Object>| after.is_none_or(|after| (&*object.key().namespace, &*object.key().name) > after);
    let inside = |object: &Arc<Object>| namespace.is_none_or(|namespace| &*object.key().namespace == namespace);
    if let Some(name) = options.fields.exact("metadata.name")
        && (namespace.is_some() || !context.resource.namespaced)
    {
        return Box::new(view.object(&context.key_of(name)).filter(|object| behind(object)).into_iter());
    }
    for requirement in options.fields.requirements.iter().filter(|requirement| !requirement.negated) {
        if let Some(found) = view.by_attribute(resource, &requirement.field, &requirement.value) {
            let mut found: Vec<&Arc<Object>> = found.filter(|object| inside(object) && behind(object)).collect();
            found.sort_by(|a, b| a.key().cmp(b.key()));
            return Box::new(found.into_iter());
        }
    }
    match after {
        Some(after) => view.list_after(resource, namespace, after),
        None => view.list(resource, namespace),
    }
}
