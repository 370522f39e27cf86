//! No acknowledged write is lost: after a crash and a restart everything that was visible before is there, as it was.

use coracle_api::Object;
use coracle_store::View;

use super::{Broken, Checked};

/// `before` is the state as it was when the member crashed: every acknowledged write is in it.
pub(super) fn check(before: &View, now: &View) -> Checked {
    let broken = |why| Err(Broken { property: "no acknowledged write is lost", why });
    if now.revision() < before.revision() {
        return broken(format!("it was at revision {} and is at {}", before.revision(), now.revision()));
    }
    match now.at(before.revision()) {
        Ok(then) if then.digest() != before.digest() => {
            let what = difference(before, &then);
            broken(format!("the state of revision {} is another one than before the crash: {what}", before.revision()))
        }
        Ok(_) => Ok(()),
        // A snapshot may not reach back that far: then the objects tell.
        Err(_) => objects(before, now),
    }
}

fn objects(before: &View, now: &View) -> Checked {
    for resource in before.resources() {
        for object in before.list(&resource, None) {
            let found = now.object(object.key());
            if let Some(found) = found.filter(|found| found.revision() < object.revision()) {
                let why = format!("{} fell from revision {} to {}", object.key(), object.revision(), found.revision());
                return Err(Broken { property: "no acknowledged write is lost", why });
            }
        }
    }
    Ok(())
}

/// What two states of one revision differ in.
fn difference(before: &View, now: &View) -> String {
    let mut found = Vec::new();
    for resource in before.resources().into_iter().chain(now.resources()) {
        for object in before.list(&resource, None).chain(now.list(&resource, None)) {
            let (old, new) = (before.object(object.key()), now.object(object.key()));
            if old != new {
                let text = |object: Option<&std::sync::Arc<Object>>| {
                    object.map_or("nothing".into(), |object| String::from_utf8_lossy(object.body()).into_owned())
                };
                found.push(format!("{}: {} became {}", object.key(), text(old), text(new)));
            }
        }
    }
    found.pop().unwrap_or_else(|| "the objects are equal, what is allotted is not".into())
}
