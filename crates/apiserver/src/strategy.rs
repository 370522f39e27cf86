//! What a kind adds to the machinery that is the same for all: defaults, validation, preparation, selectable fields, columns.
//!
//! A strategy is pure: it looks at values and at a view, and changes the value it is given.

use std::fmt;

use coracle_api::{Attributes, Cause, Fields, Request, Status};
use coracle_base::{Now, Rng};
use coracle_store::{Settlement, View};
use serde_json::Value;

use crate::ServerOptions;
use crate::validation::name::NameRule;

/// What a strategy may look at.
#[derive(Debug)]
pub struct StrategyContext<'a> {
    /// The state.
    pub view: &'a View,
    /// The time.
    pub now: Now,
    /// For generated names.
    pub rng: &'a mut Rng,
    /// The server's settings.
    pub options: &'a ServerOptions,
    /// The request (its user, its query).
    pub request: &'a Request,
    /// The subresource of the request: empty for the object itself, or `status`, `scale`, ...
    pub subresource: &'a str,
    /// Texts for `Warning` headers are pushed here.
    pub warnings: &'a mut Vec<String>,
}

/// A column of a Table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The title.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `date`.
    pub kind: &'static str,
    /// `name` for the first column, else empty.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 always, 1 with `-o wide`.
    pub priority: i32,
}

/// A row of a Table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// One cell a column.
    pub cells: Vec<Value>,
    /// The row's conditions (pods that have completed).
    pub conditions: Vec<Value>,
}

/// What a kind adds. Values are whole objects with `kind` and `apiVersion`, in the storage version.
pub trait Strategy: fmt::Debug + Send + Sync {
    /// Fills in what the user left out, on every write; it must be idempotent.
    fn default(&self, object: &mut Value) {
        let _ = object;
    }

    /// Makes a new object ready: drops what only the server sets, sets initial status and fields that admission sets.
    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        let _ = (context, object);
        Ok(())
    }

    /// Makes an update ready: puts back what this (sub)resource may not change.
    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        let _ = (context, object, old);
        Ok(())
    }

    /// Whether an object may be deleted at all: admission's last word before a deletion begins.
    fn validate_delete(&self, context: &mut StrategyContext<'_>, object: &Value) -> Result<(), Status> {
        let _ = (context, object);
        Ok(())
    }

    /// What the names of its objects look like.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Whether its objects have a `metadata.generation`, which starts at 1.
    fn has_generation(&self) -> bool {
        false
    }

    /// Whether a PUT without a `metadata.resourceVersion` overwrites what is there; otherwise it is refused.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// Whether a change from `old` to `new` raises `metadata.generation`; the default: `spec` differs.
    fn generation_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec")
    }

    /// What is wrong with a new object (without `old`) or with an update, in Kubernetes' words and order; its metadata is checked
    /// before, for every kind alike ([`crate::validation::meta`]).
    fn validate(&self, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        let _ = (object, old, subresource);
        Vec::new()
    }

    /// What is settled when the write is applied; `write` is the index of the object's `Put`.
    fn settlements(
        &self,
        context: &mut StrategyContext<'_>,
        object: &Value,
        old: Option<&Value>,
        write: usize,
    ) -> Vec<Settlement> {
        let _ = (context, object, old, write);
        Vec::new()
    }

    /// The values of the kind's selectable fields beyond name and namespace: every one that it supports, empty ones too.
    fn attributes(&self, object: &Value) -> Attributes {
        let _ = object;
        Attributes::new()
    }

    /// The names of its selectable fields beyond `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The columns of its Table.
    fn columns(&self) -> &'static [Column];

    /// What [`Self::row`] looks at: a Table of many objects reads no more.
    fn row_fields(&self) -> Fields {
        Fields::Except(&[("metadata", Fields::Except(&[("managedFields", Fields::Nothing)]))])
    }

    /// Its row.
    fn row(&self, object: &Value, now: Now) -> Row;
}
