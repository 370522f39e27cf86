//! Watches are gapless and in order: who follows a resource through any members is told of every committed change exactly once, and
//! is sent back to a list only where the members no longer keep what it missed.

use std::time::Duration;

use coracle_api::{GroupResource, Revision};
use coracle_base::Timestamp;
use coracle_store::{Change, View};
use serde_json::Value;

use super::{Broken, Checked};

/// A change as a watch tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fact {
    revision: Revision,
    kind: &'static str,
    namespace: String,
    name: String,
    /// No later than when it happened.
    at: Timestamp,
}

/// What somebody follows, and everything that happened to it.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) resource: GroupResource,
    pub(crate) namespace: Option<String>,
    /// The revision from which on every change is noted.
    since: Revision,
    /// Some changes up to here were gone before they could be seen.
    unseen: Revision,
    facts: Vec<Fact>,
}

/// How far somebody has come in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The revision of the last list, event or bookmark.
    pub(crate) position: Revision,
    /// The next change.
    next: usize,
}

impl Place {
    /// Whether he has heard of the first so many changes.
    pub(crate) fn has_heard(&self, changes: usize) -> bool {
        self.next >= changes
    }
}

fn broken(why: String) -> Checked {
    Err(Broken { property: "watches are gapless and in order", why })
}

impl Topic {
    pub(crate) fn new(resource: GroupResource, namespace: Option<String>, since: Revision) -> Self {
        Self { resource, namespace, since, unseen: Revision(0), facts: Vec::new() }
    }

    /// Notes what happened after a view whose last entry was made at a time.
    pub(crate) fn changed(&mut self, before: Timestamp, changes: &[Change]) {
        for change in changes {
            let Some(object) = change.object().filter(|object| object.key().resource == self.resource) else {
                continue;
            };
            let (namespace, name) = (object.key().namespace.to_string(), object.key().name.to_string());
            if self.namespace.as_ref().is_some_and(|wanted| *wanted != namespace) {
                continue;
            }
            let kind = match (&change.old, &change.new) {
                (None, _) => "ADDED",
                (Some(_), Some(_)) => "MODIFIED",
                (Some(_), None) => "DELETED",
            };
            self.facts.push(Fact { revision: change.revision, kind, namespace, name, at: before });
        }
    }

    /// Some changes up to a revision were gone before they could be seen.
    pub(crate) fn missed(&mut self, unseen: Revision) {
        self.unseen = unseen;
    }

    /// Everything before a revision may be forgotten: the cluster was restored from a backup.
    pub(crate) fn begins_again(&mut self, since: Revision) {
        self.since = since;
    }

    /// How many changes there were up to now.
    pub(crate) fn len(&self) -> usize {
        self.facts.len()
    }

    /// A list was answered: it is the state at its revision.
    pub(crate) fn listed(&self, place: &mut Place, list: &Value, now: &View) -> Checked {
        let Some(revision) = revision(&list["metadata"]) else { return broken("a list has no revision".into()) };
        if revision < place.position {
            return broken(format!("a list is at {revision} after {} was seen", place.position));
        }
        if let Ok(then) = now.at(revision) {
            let there = then.list(&self.resource, self.namespace.as_deref());
            let there: Vec<(String, Option<Revision>)> =
                there.map(|object| (object.key().name.to_string(), Some(object.revision()))).collect();
            let items = list["items"].as_array().into_iter().flatten();
            let listed: Vec<(String, Option<Revision>)> =
                items.map(|item| (text(&item["metadata"]["name"]), self::revision(&item["metadata"]))).collect();
            if listed != there {
                return broken(format!("the list at {revision} has {listed:?}, the state {there:?}"));
            }
        }
        let next = self.facts.partition_point(|fact| fact.revision <= revision);
        *place = Place { position: revision, next };
        Ok(())
    }

    /// A frame arrived.
    pub(crate) fn heard(&self, place: &mut Place, frame: &Value) -> Checked {
        let metadata = &frame["object"]["metadata"];
        let (kind, Some(revision)) = (text(&frame["type"]), revision(metadata)) else {
            return broken(format!("a frame has no revision: {frame}"));
        };
        if place.position < self.unseen {
            place.position = place.position.max(revision);
            place.next = self.facts.partition_point(|fact| fact.revision <= place.position);
            return Ok(());
        }
        let next = self.facts.get(place.next);
        if kind == "BOOKMARK" {
            if let Some(next) = next.filter(|next| next.revision <= revision) {
                return broken(format!("a bookmark is at {revision}, and nobody told of {next:?}"));
            }
            place.position = place.position.max(revision);
            return Ok(());
        }
        let Some(next) = next else { return broken(format!("{kind} at {revision} never happened")) };
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        if (revision, &*kind, namespace, name) != (next.revision, next.kind, next.namespace.clone(), next.name.clone())
        {
            let name = &metadata["name"];
            return broken(format!("{kind} of {name} at {revision} came where {next:?} is next"));
        }
        *place = Place { position: revision, next: place.next + 1 };
        Ok(())
    }

    /// Somebody was told that his revision is too old. `now`: the time of the newest entry.
    pub(crate) fn expired(&self, place: Place, window: Duration, now: Timestamp) -> Checked {
        match self.facts.get(place.next) {
            _ if place.position < self.since.max(self.unseen) => Ok(()),
            Some(missed) if missed.at + window < now => Ok(()),
            missed => {
                let why = format!("{} is too old, and what comes next is {missed:?}, at {now}", place.position);
                broken(why)
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn revision(metadata: &Value) -> Option<Revision> {
    metadata["resourceVersion"].as_str()?.parse().ok().map(Revision)
}

#[cfg(test)]
mod tests {
    use coracle_api::resources::CONFIG_MAPS;
    use serde_json::json;

    use super::*;

    fn topic() -> Topic {
        let fact = |revision, kind| Fact {
            revision: Revision(revision),
            kind,
            namespace: "default".into(),
            name: "a".into(),
            at: Timestamp::EPOCH,
        };
        let facts = vec![fact(3, "ADDED"), fact(5, "MODIFIED"), fact(9, "DELETED")];
        Topic { facts, ..Topic::new(CONFIG_MAPS, None, Revision(0)) }
    }

    fn frame(kind: &str, revision: u64) -> Value {
        let metadata = json!({"namespace": "default", "name": "a", "resourceVersion": revision.to_string()});
        json!({"type": kind, "object": {"metadata": metadata}})
    }

    fn hear(frames: &[(&str, u64)]) -> Result<Place, Broken> {
        let (topic, mut place) = (topic(), Place::default());
        frames.iter().try_for_each(|(kind, revision)| topic.heard(&mut place, &frame(kind, *revision)))?;
        Ok(place)
    }

    #[test]
    fn every_change_once_and_in_order_is_what_a_watch_tells() {
        let all = [("ADDED", 3), ("MODIFIED", 5), ("BOOKMARK", 8), ("DELETED", 9), ("BOOKMARK", 12)];
        assert_eq!(hear(&all).unwrap().position, Revision(12));
    }

    #[test]
    fn a_gap_a_repetition_and_an_early_bookmark_are_found() {
        for wrong in [
            &[("ADDED", 3), ("DELETED", 9)][..],
            &[("ADDED", 3), ("ADDED", 3)],
            &[("ADDED", 3), ("BOOKMARK", 5)],
            &[("ADDED", 3), ("MODIFIED", 5), ("DELETED", 9), ("ADDED", 10)],
        ] {
            hear(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_revision_is_too_old_only_when_what_came_next_is_older_than_the_window() {
        let (topic, place) = (topic(), hear(&[("ADDED", 3)]).unwrap());
        let expired = |seconds| {
            topic.expired(place, Duration::from_secs(10), Timestamp::EPOCH + Duration::from_secs(seconds)).is_ok()
        };
        assert!(expired(11) && !expired(10));
    }
}
