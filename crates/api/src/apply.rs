//! Server-side apply and the record of who owns which field, as pure functions on JSON values and the schema table.
//!
//! The rules are those of Kubernetes' structured-merge-diff and of its `managedfields` package. Nothing here defaults, validates,
//! stores or reads a clock: an applied object still has to be defaulted and validated by the caller.
//!
//! Simplification: entries of another version of the same kind are read as if they were of the version at hand. It holds for custom
//! resources without conversion; of the built-in kinds only HorizontalPodAutoscaler has two versions whose fields differ.

mod check;
mod compare;
mod field_set;
mod last_applied;
mod managed_fields;
mod merge;
mod path;
mod prune;
mod typed;

use coracle_base::Timestamp;
use serde_json::Value;

use self::managed_fields::{
    Entry, Identity, Managed, compare_owned, reset_fields, synthetic, take_managed_fields, without_unowned,
};
use self::typed::{Spec, field_set};

pub use check::Misfit;
pub use field_set::FieldSet;
pub use managed_fields::{Operation, UPDATE_ENTRIES_MAX, UpdateOptions, keep_times_if_unchanged, track_update};
pub use path::{PathElement, Scalar};
pub use typed::to_field_set;

use crate::schema::{Schema, Shape, TypeId};
use crate::{Cause, Reason, Status, StatusDetails};

/// The manager of everything that an object held when somebody first applied to it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// An apply.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    /// The `fieldManager`, which must not be empty: whoever reads the request has checked that.
    pub manager: &'a str,
    /// Whether fields are taken from other managers rather than refused.
    pub force: bool,
    /// The `apiVersion` that the request's path names.
    pub api_version: &'a str,
    /// The kind that the request's path names.
    pub kind: &'a str,
    /// The subresource that is written, empty for the object itself.
    pub subresource: &'a str,
    /// When it is written; kept to the second.
    pub time: Timestamp,
    /// Whether the resource has `/status`, so that `status` is not changed by a write to the object itself.
    pub status_subresource: bool,
}

/// One field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The manager, as messages name it: `"kubectl" using apps/v1`.
    pub manager: String,
    /// The field.
    pub path: Vec<PathElement>,
}

impl Conflict {
    /// The field, as in `.spec.template.spec.containers[name="c"].image`.
    pub fn field(&self) -> String {
        self.path.iter().map(ToString::to_string).collect()
    }
}

/// Why a configuration was not applied; the texts are Kubernetes' own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// 400: the configuration is of another kind or version than the path says.
    #[error("invalid object type: {found}")]
    WrongType {
        /// What it says it is, as Go prints it: `apps/v2, Kind=Deployment`.
        found: String,
    },
    /// 400: the configuration holds managed fields.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// 409: other managers own what the configuration would change.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 500 without a reason: the configuration does not fit the schema.
    #[error("failed to create typed patch object ({object}): {}", misfit_message(.misfits))]
    Misfits {
        /// Which object: `<namespace>/<name>; <kind>`.
        object: String,
        /// What does not fit.
        misfits: Vec<Misfit>,
    },
    /// 500 without a reason: the live object's managed fields do not read.
    #[error("failed to decode managed fields: {0}")]
    Record(managed_fields::DecodeError),
}

fn misfit_message(misfits: &[Misfit]) -> String {
    match misfits {
        [one] => one.to_string(),
        many => many.iter().fold("errors:".to_owned(), |text, misfit| format!("{text}\n  {misfit}")),
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.field());
    }
    let mut lines = Vec::with_capacity(conflicts.len() + 1);
    for of_one in conflicts.chunk_by(|a, b| a.manager == b.manager) {
        lines.push(format!("conflicts with {}:", of_one[0].manager));
        lines.extend(of_one.iter().map(|conflict| format!("- {}", conflict.field())));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::WrongType { .. } | ApplyError::ManagedFields => Self::bad_request(message),
            ApplyError::Misfits { .. } | ApplyError::Record(_) => Self::failure(500, None, message),
            ApplyError::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|conflict| Cause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {}", conflict.manager),
                    field: conflict.field(),
                });
                Self::failure(409, Some(Reason::Conflict), message)
                    .with_details(StatusDetails { causes: causes.collect(), ..StatusDetails::default() })
            }
        }
    }
}

/// The object that a configuration makes of the live one, or a new one where there is none; with its `metadata.managedFields`.
///
/// `config` is everything that the manager wants, `apiVersion`, `kind` and `metadata.name` included. What it wanted before and does
/// not want now is removed, unless somebody else owns it. The result equals the live object when nothing changes (see also
/// [`keep_times_if_unchanged`]); otherwise it still has to be defaulted and validated.
pub fn apply(
    schema: &Schema,
    type_id: TypeId,
    live: Option<&Value>,
    config: &Value,
    options: &ApplyOptions<'_>,
) -> Result<Value, ApplyError> {
    let shape = Shape::Object(type_id);
    let spec = Spec::of_type(&shape);
    check_config(schema, spec, config, options)?;
    let mut base = live.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let record = take_managed_fields(&mut base);
    for (name, value) in [("apiVersion", options.api_version), ("kind", options.kind)] {
        base[name] = Value::String(value.to_owned());
    }
    let mut managed = Managed::decode(record.as_ref()).map_err(ApplyError::Record)?;
    if live.is_some() && managed.entries.is_empty() {
        managed = synthetic(schema, type_id, &base, &options.update_of(BEFORE_FIRST_APPLY));
    }
    let apply = Apply { schema, type_id, spec, base: &base, config, managed: &managed, options };
    let mut object = match apply.run(options.force) {
        Err(conflicts) => apply.retry_for_kubectl(conflicts).map_err(ApplyError::Conflicts)?,
        Ok(object) => object,
    };
    if options.manager == last_applied::KUBECTL {
        last_applied::refresh(&mut object, config);
    }
    Ok(object)
}

/// Refuses what can be refused without looking at the live object.
fn check_config(schema: &Schema, spec: Spec<'_>, config: &Value, options: &ApplyOptions<'_>) -> Result<(), ApplyError> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind = go_kind(text("apiVersion"), text("kind"));
    if text("apiVersion") != options.api_version || text("kind") != options.kind {
        return Err(ApplyError::WrongType { found: kind });
    }
    if managed_fields::managed_fields(config).is_some_and(Value::is_array) {
        return Err(ApplyError::ManagedFields);
    }
    let misfits = check::check(schema, spec, config);
    if misfits.is_empty() {
        return Ok(());
    }
    let metadata =
        |name: &str| config.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).unwrap_or_default();
    let object = format!("{}/{}; {kind}", metadata("namespace"), metadata("name"));
    Err(ApplyError::Misfits { object, misfits })
}

/// A kind as Go prints it: the core group is an empty text before the slash.
fn go_kind(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

impl<'a> ApplyOptions<'a> {
    fn update_of(&self, manager: &'a str) -> UpdateOptions<'a> {
        UpdateOptions {
            manager,
            api_version: self.api_version,
            subresource: self.subresource,
            time: self.time,
            status_subresource: self.status_subresource,
        }
    }
}

struct Apply<'a> {
    schema: &'a Schema,
    type_id: TypeId,
    spec: Spec<'a>,
    /// The live object without its record.
    base: &'a Value,
    config: &'a Value,
    managed: &'a Managed,
    options: &'a ApplyOptions<'a>,
}

impl Apply<'_> {
    fn run(&self, force: bool) -> Result<Value, Vec<Conflict>> {
        let options = self.options;
        let me = Identity::new(options.manager, Operation::Apply, options.api_version, options.subresource);
        let mut managed = self.managed.clone();
        let previous = managed.entries.remove(&me);
        let mut mine = field_set(self.schema, self.spec, self.config);
        if let Some(reset) = reset_fields(options.subresource, options.status_subresource) {
            mine = mine.difference_with_children(reset);
        }
        let mut object =
            merge::merge(self.schema, self.spec, Some(self.base), self.config).unwrap_or_else(|| self.base.clone());
        if let Some(previous) = &previous {
            let others = managed.entries.values().map(|entry| entry.fields.clone());
            let owned = others.fold(mine.clone(), FieldSet::union);
            object = prune::prune(self.schema, self.spec, object, &previous.fields, &owned);
        }
        let comparison = compare_owned(
            self.schema,
            self.type_id,
            Some(self.base),
            &object,
            options.subresource,
            options.status_subresource,
        );
        if !force {
            let conflicts = conflicts(&managed, &comparison.changed);
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
        }
        managed.take(|_, fields| Some(fields.difference(&comparison.changed).difference(&comparison.removed)));
        let mine = without_unowned(&mine);
        if !mine.is_empty() {
            let now = Some(options.time.truncate_to_secs());
            // An apply that changes nothing leaves no trace in time.
            let time = match previous {
                Some(previous) if object == *self.base => previous.time,
                _ => now,
            };
            let entry = Entry { api_version: options.api_version.to_owned(), time, fields: mine };
            managed.entries.insert(me, entry);
        }
        managed.write(&mut object);
        Ok(object)
    }

    /// `kubectl` takes over what its client-side apply left, as long as nobody changed it since.
    fn retry_for_kubectl(&self, mut conflicts: Vec<Conflict>) -> Result<Value, Vec<Conflict>> {
        let options = self.options;
        if options.manager != last_applied::KUBECTL {
            return Err(conflicts);
        }
        let Some(own) = last_applied::unchanged_since(self.schema, self.spec, self.base, options.api_version) else {
            return Err(conflicts);
        };
        conflicts.retain(|conflict| !own.contains(&conflict.path));
        if conflicts.is_empty() { self.run(true) } else { Err(conflicts) }
    }
}

/// What others own of what would change.
fn conflicts(managed: &Managed, changed: &FieldSet) -> Vec<Conflict> {
    let of_one = |(identity, entry): (&Identity, &Entry)| {
        let manager = identity.to_string();
        let paths = entry.fields.intersection(changed).paths();
        paths.into_iter().map(move |path| Conflict { manager: manager.clone(), path })
    };
    managed.entries.iter().flat_map(of_one).collect()
}

#[cfg(test)]
mod tests;
