//! What every verb is given, and what every verb gives back.

use std::sync::Arc;

use coracle_api::{Object, ObjectKey, Registry, Request, Resource, Response, Revision};
use coracle_base::{Now, Rng};
use coracle_store::{Transaction, View};
use serde_json::Value;

use crate::answer::{ListMeta, Presenter};
use crate::callout::{Asked, Callout};
use crate::machine::TunnelSpec;
use crate::request::ResourcePath;
use crate::request::negotiate::Encoding;
use crate::strategy::{Strategy, StrategyContext};
use crate::watcher::Watcher;
use crate::{Heartbeats, ServerOptions};

/// A request on a resource, authorized, with everything that its verb may look at.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The server's settings.
    pub(crate) options: &'a ServerOptions,
    /// What is served.
    pub(crate) registry: &'a Registry,
    /// The request.
    pub(crate) request: &'a Request,
    /// The state.
    pub(crate) view: &'a View,
    /// When nodes were last heard of.
    pub(crate) heartbeats: &'a Heartbeats,
    /// The time.
    pub(crate) now: Now,
    /// For uids, generated names and timeouts.
    pub(crate) rng: &'a mut Rng,
    /// Texts for `Warning` headers.
    pub(crate) warnings: &'a mut Vec<String>,
    /// The resource.
    pub(crate) resource: &'a Resource,
    /// What its kind adds.
    pub(crate) strategy: &'static dyn Strategy,
    /// The parts of the path.
    pub(crate) path: &'a ResourcePath,
    /// How the answer is written.
    pub(crate) encoding: Encoding,
    /// Whether waiting for a later revision was tried and did not help.
    pub(crate) waited: bool,
}

impl<'a> Context<'a> {
    /// The key of the object that the path names.
    pub(crate) fn key(&self) -> ObjectKey {
        self.key_of(&self.path.name)
    }

    /// The key of an object of this name in the path's namespace.
    pub(crate) fn key_of(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.resource.group_resource.clone(), &self.path.namespace, name)
    }

    /// What a strategy is given.
    pub(crate) fn for_strategy(&mut self) -> StrategyContext<'_> {
        StrategyContext {
            view: self.view,
            now: self.now,
            rng: self.rng,
            options: self.options,
            request: self.request,
            subresource: &self.path.subresource,
            warnings: self.warnings,
        }
    }

    /// Who writes answers about this resource.
    pub(crate) fn presenter(&self) -> Presenter<'a> {
        Presenter { resource: self.resource, strategy: self.strategy, encoding: self.encoding, now: self.now }
    }

    /// Whether the resource is this one of the core group.
    pub(crate) fn is_core(&self, plural: &str) -> bool {
        self.resource.group_resource.group.is_empty() && self.resource.group_resource.resource == plural
    }
}

/// How an object is shown in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is.
    Object,
    /// As `autoscaling/v1` Scale.
    Scale,
}

/// The answer to give once a transaction is settled.
#[derive(Debug)]
pub(crate) enum Finish {
    /// The object of one of its writes.
    Written {
        /// The HTTP status code.
        code: u16,
        /// The index of the write.
        write: usize,
        /// How it is shown.
        shape: Shape,
    },
    /// The last state of an object that is gone, at the revision that took it away.
    Removed(Box<Value>),
    /// This one.
    Answer(Response),
}

/// A transaction and what follows it.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// The transaction.
    pub(crate) transaction: Transaction,
    /// The object that it is about.
    pub(crate) key: ObjectKey,
    /// The answer.
    pub(crate) finish: Finish,
    /// The name was made up by the server: another may be tried when it is taken.
    pub(crate) generated_name: bool,
}

/// What a verb comes to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Answer.
    Respond(Response),
    /// Propose, then answer.
    Propose(Box<Proposal>),
    /// Delete each of these for itself, then answer.
    DeleteAll(Vec<ObjectKey>, Response),
    /// Answer with a list.
    List(ListMeta, Vec<Arc<Object>>),
    /// Ask the world, then answer.
    Call(Callout, Box<Asked>),
    /// Stream.
    Watch(Box<Watcher>),
    /// Join to a byte stream.
    Tunnel(TunnelSpec),
    /// Look again at a later revision.
    WaitFor(Revision),
}
