//! Shared by the tests of the kinds: a small world, and what checks and rows say.

use coracle_api::{Attributes, Cause, GroupResource, Method, Object, ObjectKey, Request, Status, UserInfo};
use coracle_base::{Now, Rng, Timestamp};
use coracle_store::{Entry, Settlement, Store, StoreOptions, Transaction, View, Write};
use serde_json::Value;

use crate::ServerOptions;
use crate::strategy::{Strategy, StrategyContext};

/// A state to prepare writes against.
pub(crate) struct World {
    store: Store,
    rng: Rng,
    options: ServerOptions,
    request: Request,
    pub(crate) warnings: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::new(StoreOptions::default()),
            rng: Rng::seeded(1),
            options: ServerOptions::default(),
            request: Request::new(Method::Post, "/", UserInfo::admin("admin")),
            warnings: Vec::new(),
        }
    }

    /// Puts an object into the state.
    #[track_caller]
    pub(crate) fn with(self, resource: &GroupResource, object: Value) -> Self {
        self.with_settled(resource, object, Vec::new())
    }

    /// Puts an object into the state with what it is given there.
    #[track_caller]
    pub(crate) fn with_settled(
        mut self,
        resource: &GroupResource,
        object: Value,
        settlements: Vec<Settlement>,
    ) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey::new(resource.clone(), &text("namespace"), &text("name"));
        let object = Object::new(key.clone(), coracle_api::Revision(0), object, Attributes::new());
        let write = Write::Put { key, body: object.body().clone(), attributes: Attributes::new() };
        let mut entry = Entry::at(Timestamp::EPOCH);
        entry.transactions.push(Transaction { writes: vec![write], settlements, ..Transaction::default() });
        for result in self.store.apply(1, &entry) {
            result.expect("the object is written");
        }
        self
    }

    fn context<R>(&mut self, subresource: &str, run: impl FnOnce(&mut StrategyContext<'_>) -> R) -> R {
        let view: View = self.store.view();
        run(&mut StrategyContext {
            view: &view,
            now: now(),
            rng: &mut self.rng,
            options: &self.options,
            request: &self.request,
            subresource,
            warnings: &mut self.warnings,
        })
    }

    /// Defaults and prepares a new object.
    pub(crate) fn create(&mut self, strategy: &dyn Strategy, object: &mut Value) -> Result<(), Status> {
        strategy.default(object);
        self.context("", |context| strategy.prepare_create(context, object))
    }

    /// Defaults and prepares an update.
    pub(crate) fn update(
        &mut self,
        strategy: &dyn Strategy,
        subresource: &str,
        object: &mut Value,
        old: &Value,
    ) -> Result<(), Status> {
        strategy.default(object);
        self.context(subresource, |context| strategy.prepare_update(context, object, old))
    }

    /// Asks whether an object may be deleted.
    pub(crate) fn delete(&mut self, strategy: &dyn Strategy, object: &Value) -> Result<(), Status> {
        self.context("", |context| strategy.validate_delete(context, object))
    }

    /// What is settled for a write.
    pub(crate) fn settlements(
        &mut self,
        strategy: &dyn Strategy,
        object: &Value,
        old: Option<&Value>,
    ) -> Vec<Settlement> {
        self.context("", |context| strategy.settlements(context, object, old, 0))
    }
}

/// The time of every test: 2026-11-22T10:31:34Z.
pub(crate) fn now() -> Now {
    Now { wall: Timestamp::parse("2026-11-22T10:31:34Z").unwrap(), ..Now::default() }
}

/// Causes as Kubernetes prints them.
pub(crate) fn texts(causes: Vec<Cause>) -> Vec<String> {
    causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

/// The cells of an object's row, as many as there are columns.
#[track_caller]
pub(crate) fn cells(strategy: &dyn Strategy, object: &Value) -> Value {
    // As a Table reads it.
    let object = strategy.row_fields().read(object.to_string().as_bytes()).unwrap();
    let row = strategy.row(&object, now());
    assert_eq!(row.cells.len(), strategy.columns().len(), "one cell a column");
    row.cells.into()
}
