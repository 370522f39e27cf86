//! The finalizers that tell the garbage collector what becomes of dependents.

use serde_json::Value;

use super::set_list;
use crate::request::options::{DeleteOptions, Propagation};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Sets or removes the collector's finalizers as the options ask; gives whether any finalizer holds the object.
pub(super) fn for_collection(value: &mut Value, options: &DeleteOptions, orphans_by_default: bool) -> bool {
    let mut list: Vec<String> = value["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
    let (orphan, foreground) = match options.propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None => (has(&list, ORPHAN) || (orphans_by_default && !has(&list, FOREGROUND)), has(&list, FOREGROUND)),
    };
    if (orphan, foreground) != (has(&list, ORPHAN), has(&list, FOREGROUND)) {
        list.retain(|name| name != ORPHAN && name != FOREGROUND);
        list.extend(orphan.then(|| ORPHAN.to_owned()));
        list.extend(foreground.then(|| FOREGROUND.to_owned()));
    }
    let held = !list.is_empty();
    set_list(value, "finalizers", list);
    held
}
