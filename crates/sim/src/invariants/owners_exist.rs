//! At convergence no object is left whose owners are gone.

use coracle_store::View;

use super::{Broken, Checked};

pub(super) fn check(view: &View) -> Checked {
    for resource in view.resources() {
        for object in view.list(&resource, None) {
            let owners = &object.metadata().owner_references;
            if !owners.is_empty() && owners.iter().all(|owner| view.by_uid(&owner.uid).is_none()) {
                let why = format!("none of the owners of {} is there", object.key());
                return Err(Broken { property: "owners exist", why });
            }
        }
    }
    Ok(())
}
