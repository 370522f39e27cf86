//! Revisions strictly rise: a view is never older than the one before, and every change has a revision of its own time.

use coracle_api::Revision;
use coracle_store::{Change, View};

use super::{Broken, Checked};

pub(super) fn check(before: Revision, view: &View, changes: &[Change]) -> Checked {
    let broken = |why| Err(Broken { property: "revisions rise", why });
    if view.revision() <= before {
        return broken(format!("revision {} came after {before}", view.revision()));
    }
    for change in changes {
        if change.revision <= before || change.revision > view.revision() {
            return broken(format!(
                "a change of revision {} between {before} and {}",
                change.revision,
                view.revision()
            ));
        }
        let (old, new) = (change.old.as_ref(), change.new.as_ref());
        if let Some(new) = new.filter(|new| new.revision() != change.revision) {
            return broken(format!("{} has revision {}, its change {}", new.key(), new.revision(), change.revision));
        }
        if let (Some(old), Some(new)) = (old, new)
            && old.revision() >= new.revision()
        {
            return broken(format!("{} went from revision {} to {}", new.key(), old.revision(), new.revision()));
        }
    }
    Ok(())
}
