//! Columns and cells that many kinds share.

use coracle_base::{Now, Timestamp, human_duration};
use serde_json::Value;

use super::descriptions;
use super::value::{entries, items, text};
use crate::strategy::{Column, Row};

/// The first column of every kind but events.
pub(crate) const NAME: Column =
    Column { name: "Name", kind: "string", format: "name", description: descriptions::NAME, priority: 0 };
/// The time since the object was created.
pub(crate) const AGE: Column = column("Age", "string", descriptions::AGE);

/// A column that is always shown.
pub(crate) const fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", description, priority: 0 }
}

/// A column that `-o wide` shows.
pub(crate) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1 }
}

/// A row of cells.
pub(crate) fn row<const N: usize>(cells: [Value; N]) -> Row {
    Row { cells: cells.into(), conditions: Vec::new() }
}

/// The object's name.
pub(crate) fn name(object: &Value) -> Value {
    text(&object["metadata"], "name").into()
}

/// The object's age.
pub(crate) fn age(object: &Value, now: Now) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

/// The time since a recorded one: `<unknown>` where there is none, `<invalid>` where it lies ahead.
pub(crate) fn since(time: &Value, now: Now) -> String {
    let Some(time) = time.as_str().and_then(|text| Timestamp::parse(text).ok()) else { return "<unknown>".into() };
    // Clocks differ a little, and recorded times have whole seconds.
    if time.saturating_since(now.wall).as_secs() > 1 {
        return "<invalid>".into();
    }
    human_duration(now.wall.saturating_since(time))
}

/// A number, zero where it is absent.
pub(crate) fn number(value: &Value) -> Value {
    value.as_i64().unwrap_or(0).into()
}

/// A text, or what stands for none.
pub(crate) fn or<'a>(text: &'a str, none: &'a str) -> &'a str {
    if text.is_empty() { none } else { text }
}

/// The names and the images of a pod spec's containers.
pub(crate) fn containers(pod_spec: &Value) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let cells: Vec<&str> = items(pod_spec, "containers").iter().map(|c| text(c, field)).collect();
        cells.join(",").into()
    })
}

/// A `metav1.LabelSelector` in its query form.
pub(crate) fn selector(selector: &Value) -> String {
    match coracle_api::LabelSelector::from_value(selector) {
        Ok(selector) => {
            let mut selector = selector;
            selector.requirements.sort_by(|a, b| a.key.cmp(&b.key));
            selector.to_string()
        }
        Err(_) => "<invalid>".into(),
    }
}

/// A map of labels as `a=b,c=d`, `<none>` where it is empty.
pub(crate) fn labels(object: &Value, field: &str) -> String {
    let pairs: Vec<String> =
        entries(object, field).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// The first three of a list, and how many more there are.
pub(crate) fn with_more(list: &[String], none: &str) -> String {
    const SHOWN: usize = 3;
    if list.is_empty() {
        return none.to_owned();
    }
    let shown = list[..list.len().min(SHOWN)].join(",");
    if list.len() > SHOWN { format!("{shown} + {} more...", list.len() - SHOWN) } else { shown }
}
