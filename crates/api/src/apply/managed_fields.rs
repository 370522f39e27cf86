//! `metadata.managedFields`: who owns which fields of an object, and how every write but an apply changes that.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use coracle_base::Timestamp;
use serde_json::{Map, Value};

use super::compare::{Comparison, compare};
use super::field_set::FieldSet;
use super::typed::Spec;
use crate::schema::{Schema, Shape, TypeId};

/// How many `Update` entries an object keeps, as Kubernetes has it; older ones are thrown together.
pub const UPDATE_ENTRIES_MAX: usize = 10;

/// The manager that older entries are thrown together under.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// The manager of a write that names none.
const UNKNOWN: &str = "unknown";

/// What nobody owns: the server writes it, or it says which object this is.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// What a write to the object itself cannot change where `/status` is a subresource.
static RESET_BY_MAIN: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of_fields(&[&["status"]]));

/// What a write to `/status` cannot change.
static RESET_BY_STATUS: LazyLock<FieldSet> =
    LazyLock::new(|| FieldSet::of_fields(&[&["spec"], &["metadata", "labels"]]));

/// Managed fields that are not of the form that Kubernetes writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Neither `Apply` nor `Update`.
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    /// No `apiVersion`.
    #[error("apiVersion must not be empty")]
    ApiVersion,
    /// Another type of fields than `FieldsV1`.
    #[error("invalid fieldsType {found:?} in managed fields entry {index}")]
    FieldsType {
        /// What is there.
        found: String,
        /// In which entry.
        index: usize,
    },
    /// No type of fields.
    #[error("missing fieldsType in managed fields entry {index}")]
    NoFieldsType {
        /// In which entry.
        index: usize,
    },
    /// Fields that do not read.
    #[error("error decoding set: {0}")]
    Fields(super::field_set::DecodeError),
}

/// How fields came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// Who an entry belongs to. An applier has one entry a subresource, whatever versions it applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) manager: String,
    pub(super) operation: Operation,
    /// Empty for appliers.
    version: String,
    pub(super) subresource: String,
}

impl Identity {
    pub(super) fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let manager = if manager.is_empty() { UNKNOWN } else { manager };
        let version = if operation == Operation::Apply { "" } else { api_version };
        Self { manager: manager.into(), operation, version: version.into(), subresource: subresource.into() }
    }
}

/// The manager as conflicts name it.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.version)?;
        }
        Ok(())
    }
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) api_version: String,
    pub(super) time: Option<Timestamp>,
    pub(super) fields: FieldSet,
}

/// The entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managed {
    pub(super) entries: BTreeMap<Identity, Entry>,
}

impl Managed {
    /// Reads `metadata.managedFields`; what is absent holds no entry.
    pub(super) fn decode(list: Option<&Value>) -> Result<Self, DecodeError> {
        let mut entries = BTreeMap::new();
        for (index, value) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(DecodeError::Operation),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err(DecodeError::ApiVersion);
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(DecodeError::NoFieldsType { index }),
                found => return Err(DecodeError::FieldsType { found: found.to_owned(), index }),
            }
            let fields = match value.get("fieldsV1") {
                None | Some(Value::Null) => FieldSet::new(),
                Some(fields) => FieldSet::from_json(fields).map_err(DecodeError::Fields)?,
            };
            let identity = Identity {
                manager: text("manager").to_owned(),
                ..Identity::new("", operation, api_version, text("subresource"))
            };
            let time = Timestamp::parse(text("time")).ok();
            entries.insert(identity, Entry { api_version: api_version.to_owned(), time, fields });
        }
        Ok(Self { entries })
    }

    /// The value of `metadata.managedFields`: appliers first, then by time; `None` without entries.
    fn encode(&self) -> Option<Value> {
        let mut entries: Vec<(&Identity, &Entry)> = self.entries.iter().collect();
        entries.sort_by(|(left, old), (right, new)| {
            let key = |identity: &Identity, entry: &Entry| (identity.operation, entry.seconds());
            key(left, old).cmp(&key(right, new)).then_with(|| {
                let rest = (&left.manager, &old.api_version, &left.subresource);
                rest.cmp(&(&right.manager, &new.api_version, &right.subresource))
            })
        });
        let values: Vec<Value> = entries.into_iter().map(|(identity, entry)| entry.encode(identity)).collect();
        if values.is_empty() { None } else { Some(Value::Array(values)) }
    }

    /// Writes `metadata.managedFields` of an object.
    pub(super) fn write(&self, object: &mut Value) {
        set_managed_fields(object, self.encode());
    }

    /// Takes fields from every manager; who is left with nothing is left out.
    pub(super) fn take(&mut self, lost: impl Fn(&Identity, &FieldSet) -> Option<FieldSet>) {
        self.entries.retain(|identity, entry| {
            if let Some(rest) = lost(identity, &entry.fields) {
                entry.fields = rest;
            }
            !entry.fields.is_empty()
        });
    }

    /// Counts a write that changed an object for a manager.
    fn update(&mut self, comparison: Comparison, options: &UpdateOptions<'_>) {
        let Comparison { changed, removed } = comparison;
        self.take(|_, fields| Some(fields.difference(&changed).difference(&removed)));
        if changed.is_empty() {
            return;
        }
        let identity = Identity::new(options.manager, Operation::Update, options.api_version, options.subresource);
        let mine = self.entries.entry(identity).or_insert_with(|| Entry {
            api_version: options.api_version.to_owned(),
            time: None,
            fields: FieldSet::new(),
        });
        mine.fields = std::mem::take(&mut mine.fields).union(changed);
        mine.time = Some(options.time.truncate_to_secs());
        self.throw_old_updates_together();
    }

    /// Throws the oldest `Update` entries of a version together until there are few enough.
    fn throw_old_updates_together(&mut self) {
        let updates = |(identity, entry): (&Identity, &Entry)| {
            (identity.operation == Operation::Update).then(|| (entry.seconds(), identity.clone()))
        };
        let mut oldest: Vec<_> = self.entries.iter().filter_map(updates).collect();
        oldest.sort();
        let mut surplus = oldest.len().saturating_sub(UPDATE_ENTRIES_MAX);
        let mut first_of_version: BTreeMap<String, Identity> = BTreeMap::new();
        for (_, identity) in oldest {
            if surplus == 0 {
                return;
            }
            let Some(first) = first_of_version.get(&identity.version) else {
                first_of_version.insert(identity.version.clone(), identity);
                continue;
            };
            let bucket = Identity::new(ANCIENT_CHANGES, Operation::Update, &identity.version, "");
            if !self.entries.contains_key(&bucket)
                && let Some(entry) = self.entries.remove(first)
            {
                self.entries.insert(bucket.clone(), entry);
            }
            if let Some(entry) = self.entries.remove(&identity)
                && let Some(all) = self.entries.get_mut(&bucket)
            {
                all.fields = std::mem::take(&mut all.fields).union(entry.fields);
                all.time = entry.time;
            }
            surplus -= 1;
        }
    }
}

impl Entry {
    fn seconds(&self) -> i64 {
        self.time.map_or(0, Timestamp::as_secs)
    }

    fn encode(&self, identity: &Identity) -> Value {
        let operation = match identity.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut map = Map::new();
        map.insert("manager".into(), identity.manager.as_str().into());
        map.insert("operation".into(), operation.into());
        map.insert("apiVersion".into(), self.api_version.as_str().into());
        if let Some(time) = self.time {
            map.insert("time".into(), time.rfc3339().into());
        }
        map.insert("fieldsType".into(), "FieldsV1".into());
        map.insert("fieldsV1".into(), self.fields.to_json());
        if !identity.subresource.is_empty() {
            map.insert("subresource".into(), identity.subresource.as_str().into());
        }
        Value::Object(map)
    }
}

/// A write that is not an apply.
#[derive(Clone, Copy, Debug)]
pub struct UpdateOptions<'a> {
    /// The `fieldManager`, or what the user agent says; empty counts as `unknown`.
    pub manager: &'a str,
    /// The `apiVersion` that the object is written in.
    pub api_version: &'a str,
    /// The subresource that is written, empty for the object itself.
    pub subresource: &'a str,
    /// When it is written; kept to the second.
    pub time: Timestamp,
    /// Whether the resource has `/status`, so that `status` is not changed by a write to the object itself.
    pub status_subresource: bool,
}

/// Gives `new` its `metadata.managedFields`: the manager comes to own what the write added or modified, everyone loses what it
/// modified or removed.
///
/// `live` is the object before, absent at a create; `new` is the object after defaulting, before admission changes it, with
/// whatever `managedFields` the client sent. An empty list (or one empty entry) starts the record anew, and an existing object
/// without a record stays without one until somebody applies; a list that does not read counts as not sent.
pub fn track_update(
    schema: &Schema,
    type_id: TypeId,
    live: Option<&Value>,
    new: &mut Value,
    options: &UpdateOptions<'_>,
) {
    let before = live.and_then(managed_fields);
    // What a client read and sent back unchanged is what is there.
    let sent = take_managed_fields(new).filter(|sent| options.subresource.is_empty() && Some(sent) != before);
    let comparison = compare_owned(schema, type_id, live, new, options.subresource, options.status_subresource);
    let given = match &sent {
        Some(list) if is_reset(list) => Some(Managed::default()),
        Some(list) => Managed::decode(Some(list)).ok().filter(|managed| !managed.entries.is_empty()),
        None => None,
    };
    if given.is_none() && comparison.is_empty() {
        return set_managed_fields(new, before.cloned());
    }
    let mut managed = given.unwrap_or_else(|| Managed::decode(before).unwrap_or_default());
    if live.is_none() || !managed.entries.is_empty() {
        managed.update(comparison, options);
    }
    managed.write(new);
}

/// The entries of an object that has none yet and is applied to: everything in it belongs to one manager of the past.
pub(super) fn synthetic(schema: &Schema, type_id: TypeId, live: &Value, options: &UpdateOptions<'_>) -> Managed {
    let mut managed = Managed::default();
    let comparison = compare_owned(schema, type_id, None, live, options.subresource, options.status_subresource);
    managed.update(comparison, options);
    managed
}

/// What a write changed of what can be owned.
pub(super) fn compare_owned(
    schema: &Schema,
    type_id: TypeId,
    old: Option<&Value>,
    new: &Value,
    subresource: &str,
    status_subresource: bool,
) -> Comparison {
    let mut comparison = compare(schema, Spec::of_type(&Shape::Object(type_id)), old, new);
    if let Some(reset) = reset_fields(subresource, status_subresource) {
        comparison.changed = comparison.changed.difference_with_children(reset);
        comparison.removed = comparison.removed.difference_with_children(reset);
    }
    Comparison { changed: without_unowned(&comparison.changed), removed: without_unowned(&comparison.removed) }
}

/// What a write through this path leaves as it is, whatever it says.
pub(super) fn reset_fields(subresource: &str, status_subresource: bool) -> Option<&'static FieldSet> {
    match subresource {
        "" if status_subresource => Some(&RESET_BY_MAIN),
        "status" => Some(&RESET_BY_STATUS),
        _ => None,
    }
}

pub(super) fn without_unowned(set: &FieldSet) -> FieldSet {
    set.difference(&UNOWNED)
}

/// `[]` and `[{}]`.
fn is_reset(list: &Value) -> bool {
    let Value::Array(list) = list else { return false };
    match list.as_slice() {
        [] => true,
        [entry] => entry.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

pub(super) fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

pub(super) fn take_managed_fields(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields").filter(Value::is_array)
}

pub(super) fn set_managed_fields(object: &mut Value, list: Option<Value>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match list {
        Some(list) => metadata.insert("managedFields".to_owned(), list),
        None => metadata.remove("managedFields"),
    };
}

/// Whether a write changes nothing but the times of managed fields (and the `resourceVersion`, which is the server's to set);
/// if so, `new` gets the live object's managed fields, so that it is not written and clients see no new times.
pub fn keep_times_if_unchanged(live: &Value, new: &mut Value) -> bool {
    let (Some(old), Some(now)) = (live.as_object(), new.as_object()) else { return live == new };
    let same_body = old.len() == now.len()
        && old.iter().all(|(name, value)| match now.get(name) {
            Some(other) if name == "metadata" => same_metadata(value, other),
            Some(other) => value == other,
            None => false,
        });
    if same_body {
        set_managed_fields(new, managed_fields(live).cloned());
    }
    same_body
}

fn same_metadata(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    let compared = |name: &str| name != "managedFields" && name != "resourceVersion";
    old.iter().filter(|(name, _)| compared(name)).all(|(name, value)| new.get(name) == Some(value))
        && new.keys().filter(|name| compared(name)).all(|name| old.contains_key(name))
        && same_but_times(old.get("managedFields"), new.get("managedFields"))
}

fn same_but_times(old: Option<&Value>, new: Option<&Value>) -> bool {
    match (Managed::decode(old), Managed::decode(new)) {
        (Ok(mut old), Ok(mut new)) => {
            for entry in old.entries.values_mut().chain(new.entries.values_mut()) {
                entry.time = None;
            }
            old == new
        }
        _ => old == new,
    }
}
