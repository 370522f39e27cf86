//! Takes away what a manager applied before, does not apply any more, and nobody else owns.

use serde_json::Value;

use super::field_set::FieldSet;
use super::typed::{Spec, field_set, with_named_fields, without};
use crate::schema::Schema;

/// The merged object without the fields that were given up.
///
/// `last` is what the manager owned by its previous apply, `managed` everything that somebody owns now, the new configuration's
/// paths among it. A struct goes when all that was in it goes; what nobody ever owned stays as long as what holds it stays.
pub(super) fn prune(schema: &Schema, spec: Spec<'_>, merged: Value, last: &FieldSet, managed: &FieldSet) -> Value {
    if last.difference(managed).is_empty() {
        return merged;
    }
    let named = |set: &FieldSet| with_named_fields(schema, spec, set);
    let paths = |value: Option<&Value>| value.map(|value| named(&field_set(schema, spec, value))).unwrap_or_default();
    let last = named(last);
    let all = paths(Some(&merged));
    // First everything that was applied before goes, then what is owned comes back with what holds it ...
    let kept = paths(without(schema, spec, &merged, &last).as_ref()).union(named(managed));
    let pruned = without(schema, spec, &merged, &all.difference(&kept));
    // ... and what this manager never applied comes back too: it is not its to take away.
    let gone = all.difference(&paths(pruned.as_ref())).intersection(&last);
    without(schema, spec, &merged, &gone).unwrap_or(merged)
}
