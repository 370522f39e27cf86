//! One transaction on one root: either refused, or a new root and what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{Attributes, Object, ObjectKey, Revision, canonical_json};
use serde_json::Value;

use crate::root::Root;
use crate::settlement::write_at;
use crate::{Applied, Change, Precondition, Refused, Settlement, Transaction, Write};

/// What a transaction came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) applied: Applied,
    /// The new root and the changes that led to it; `None` when nothing changed.
    pub(crate) step: Option<(Root, Vec<Change>)>,
}

/// Tries a transaction; the root given is not touched.
pub(crate) fn attempt(root: &Root, term: u64, transaction: &Transaction) -> Result<Outcome, Refused> {
    if let Some(made) = transaction.term
        && made != term
    {
        return Err(Refused::Term { made, applied: term });
    }
    check_preconditions(root, &transaction.preconditions)?;
    check_keys(&transaction.writes)?;
    let mut draft = Draft {
        revision: Revision(root.revision.0 + 1),
        root: root.clone(),
        changes: Vec::new(),
        pools_changed: false,
        settled: BTreeMap::new(),
    };
    for settlement in &transaction.settlements {
        draft.settle(settlement, &transaction.writes)?;
    }
    let mut objects = Vec::with_capacity(transaction.writes.len());
    for (index, write) in transaction.writes.iter().enumerate() {
        objects.push(draft.write(index, write)?);
    }
    Ok(draft.finish(root.revision, objects))
}

fn check_preconditions(root: &Root, preconditions: &[Precondition]) -> Result<(), Refused> {
    for precondition in preconditions {
        match precondition {
            Precondition::Absent(key) if root.object(key).is_some() => return Err(Refused::Exists(key.clone())),
            Precondition::Absent(_) => {}
            Precondition::At(key, revision) => match root.object(key) {
                None => return Err(Refused::Gone(key.clone())),
                Some(object) if object.revision() != *revision => return Err(Refused::Modified(key.clone())),
                Some(_) => {}
            },
        }
    }
    Ok(())
}

/// Watchers are told of a key once a revision, so a transaction writes it once.
fn check_keys(writes: &[Write]) -> Result<(), Refused> {
    let mut keys = BTreeSet::new();
    match writes.iter().map(Write::key).find(|key| !keys.insert(*key)) {
        Some(twice) => Err(Refused::Malformed(twice.clone())),
        None => Ok(()),
    }
}

/// The root as it is being changed.
struct Draft {
    revision: Revision,
    root: Root,
    changes: Vec<Change>,
    pools_changed: bool,
    /// What settlements write into the `Put` of an index.
    settled: BTreeMap<usize, Vec<Settled>>,
}

struct Settled {
    pointers: Vec<String>,
    attribute: Option<String>,
    value: Value,
}

impl Draft {
    fn settle(&mut self, settlement: &Settlement, writes: &[Write]) -> Result<(), Refused> {
        match settlement {
            Settlement::NotTerminating(key) => match self.root.object(key) {
                None => Err(Refused::Gone(key.clone())),
                Some(object) if object.metadata().deletion_timestamp.is_some() => {
                    Err(Refused::Terminating(key.clone()))
                }
                Some(_) => Ok(()),
            },
            Settlement::Allocate { pool, owner, want, write, pointers, render, attribute } => {
                let malformed = || Refused::Malformed(owner.clone());
                if !matches!(writes.get(*write), Some(Write::Put { .. })) {
                    return Err(malformed());
                }
                let step = render.step().ok_or_else(malformed)?;
                let chosen = self.root.pools.allocate(pool, step, owner, *want)?;
                self.pools_changed |= chosen.is_new;
                let value = render.value(chosen.value).ok_or_else(malformed)?;
                let settled = Settled { pointers: pointers.clone(), attribute: attribute.clone(), value };
                self.settled.entry(*write).or_default().push(settled);
                Ok(())
            }
            Settlement::Release { pool, owner, value } => {
                self.pools_changed |= self.root.pools.release(pool, owner, *value);
                Ok(())
            }
        }
    }

    fn write(&mut self, index: usize, write: &Write) -> Result<Option<Arc<Object>>, Refused> {
        match write {
            Write::Put { key, body, attributes } => match self.settled.remove(&index) {
                None => self.put(key, body.clone(), attributes.clone()).map(Some),
                Some(settled) => {
                    let (body, attributes) =
                        fill_in(body, attributes, settled).ok_or_else(|| Refused::Malformed(key.clone()))?;
                    self.put(key, body, attributes).map(Some)
                }
            },
            Write::Delete { key } => Ok(self.delete(key)),
        }
    }

    fn put(&mut self, key: &ObjectKey, body: Bytes, attributes: Attributes) -> Result<Arc<Object>, Refused> {
        if let Some(old) = self.root.object(key)
            && *old.body() == body
            && *old.attributes() == attributes
        {
            return Ok(old.clone());
        }
        let new = Object::from_body(key.clone(), self.revision, body, attributes);
        let new = Arc::new(new.map_err(|error| Refused::Malformed(error.key))?);
        let old = self.root.put(new.clone(), self.revision);
        self.changes.push(Change { revision: self.revision, old, new: Some(new.clone()) });
        Ok(new)
    }

    fn delete(&mut self, key: &ObjectKey) -> Option<Arc<Object>> {
        let old = self.root.remove(key, self.revision)?;
        self.pools_changed |= self.root.pools.release_all(key);
        self.changes.push(Change::deletion(&old, self.revision));
        Some(old)
    }

    fn finish(mut self, before: Revision, objects: Vec<Option<Arc<Object>>>) -> Outcome {
        if self.changes.is_empty() && !self.pools_changed {
            return Outcome { applied: Applied { revision: before, objects }, step: None };
        }
        self.root.revision = self.revision;
        Outcome { applied: Applied { revision: self.revision, objects }, step: Some((self.root, self.changes)) }
    }
}

/// A body and attributes with what was settled in them.
fn fill_in(body: &[u8], attributes: &Attributes, settled: Vec<Settled>) -> Option<(Bytes, Attributes)> {
    let mut object: Value = serde_json::from_slice(body).ok()?;
    let mut attributes = attributes.clone();
    for Settled { pointers, attribute, value } in settled {
        for pointer in &pointers {
            write_at(&mut object, pointer, value.clone())?;
        }
        if let Some(attribute) = attribute {
            attributes.insert(attribute, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
    }
    Some((canonical_json(&object).into(), attributes))
}

impl Change {
    /// A deletion; watchers are told of the last state at the revision that took it away.
    pub(crate) fn deletion(last: &Object, revision: Revision) -> Self {
        Self { revision, old: Some(Arc::new(last.clone().at(revision))), new: None }
    }
}
