//! Random transactions against a plain map: whatever happens, the store says what the map says.

use std::collections::BTreeMap;

use coracle_api::resources::{CONFIG_MAPS, PODS};
use coracle_api::{Attributes, GroupResource, ObjectKey, canonical_json};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::*;
use crate::{Change, Pool, Precondition, Render, Settlement, Want, Write};

const POOL: &str = "numbers";
const POOL_SIZE: u64 = 4;

/// One transaction, in the model's words; revisions are chosen relative to what is there.
#[derive(Clone, Debug)]
struct Step {
    seconds: i64,
    precondition: Option<(ObjectKey, Expected)>,
    writes: Vec<(ObjectKey, Option<Content>)>,
    settle: Option<Settle>,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Absent,
    Current,
    Stale,
}

#[derive(Clone, Debug)]
struct Content {
    data: u8,
    owner: u8,
    node: u8,
}

#[derive(Clone, Copy, Debug)]
enum Settle {
    Any,
    Exactly(u64),
    Release(u64),
}

/// What is there: the revision and the body as it was put.
type Objects = BTreeMap<ObjectKey, (Revision, Bytes, Attributes)>;

#[derive(Clone, Debug, Default)]
struct Model {
    revision: Revision,
    objects: Objects,
    held: BTreeMap<u64, ObjectKey>,
}

fn keys() -> impl Strategy<Value = ObjectKey> {
    (select(vec![CONFIG_MAPS, PODS]), select(vec!["a", "b", "bb"]), select(vec!["x", "y", "z"]))
        .prop_map(|(resource, namespace, name)| ObjectKey::new(resource, namespace, name))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expected = select(vec![Expected::Absent, Expected::Current, Expected::Current, Expected::Stale]);
    let content = (0..3_u8, 0..3_u8, 0..3_u8).prop_map(|(data, owner, node)| Content { data, owner, node });
    let settle = prop_oneof![
        Just(Settle::Any),
        (0..POOL_SIZE + 1).prop_map(Settle::Exactly),
        (0..POOL_SIZE).prop_map(Settle::Release)
    ];
    let step = (
        0..20_i64,
        proptest::option::weighted(0.3, (keys(), expected)),
        proptest::collection::vec((keys(), proptest::option::weighted(0.7, content)), 0..4),
        proptest::option::weighted(0.3, settle),
    );
    let step = step.prop_map(|(seconds, precondition, writes, settle)| Step { seconds, precondition, writes, settle });
    proptest::collection::vec(step, 1..40)
}

fn transaction(step: &Step, model: &Model) -> Transaction {
    let revision_of = |key: &ObjectKey| model.objects.get(key).map_or(Revision(1), |(revision, ..)| *revision);
    let precondition = step.precondition.iter().map(|(key, expected)| match expected {
        Expected::Absent => Precondition::Absent(key.clone()),
        Expected::Current => Precondition::At(key.clone(), revision_of(key)),
        Expected::Stale => Precondition::At(key.clone(), Revision(revision_of(key).0 + 1)),
    });
    let writes: Vec<Write> = step.writes.iter().map(|(key, content)| write(key, content.as_ref())).collect();
    let settlements = match (step.settle, writes.first()) {
        (Some(settle), Some(Write::Put { key, .. })) => vec![settlement(settle, key)],
        _ => Vec::new(),
    };
    Transaction { preconditions: precondition.collect(), writes, settlements, term: None }
}

fn write(key: &ObjectKey, content: Option<&Content>) -> Write {
    let Some(Content { data, owner, node }) = content else { return Write::Delete { key: key.clone() } };
    let owner = json!({"apiVersion": "v1", "kind": "K", "name": "o", "uid": format!("owner-{owner}")});
    let meta = json!({"name": &*key.name, "uid": key.to_string(), "ownerReferences": [owner]});
    Write::Put {
        key: key.clone(),
        body: canonical_json(&json!({"metadata": meta, "data": data})).into(),
        attributes: Attributes::from([("spec.nodeName".to_owned(), format!("node-{node}"))]),
    }
}

fn settlement(settle: Settle, owner: &ObjectKey) -> Settlement {
    let want = match settle {
        Settle::Any => Want::Any,
        Settle::Exactly(value) => Want::Exactly(value),
        Settle::Release(value) => return Settlement::Release { pool: POOL.into(), owner: owner.clone(), value },
    };
    Settlement::Allocate {
        pool: Pool { name: POOL.into(), low: 0, high: POOL_SIZE - 1 },
        owner: owner.clone(),
        want,
        write: 0,
        pointers: vec!["/number".into()],
        render: Render::Number,
        attribute: None,
    }
}

impl Model {
    /// Why a transaction must be refused, if it must.
    fn refusal(&self, transaction: &Transaction) -> Option<Refused> {
        for precondition in &transaction.preconditions {
            match precondition {
                Precondition::Absent(key) if self.objects.contains_key(key) => {
                    return Some(Refused::Exists(key.clone()));
                }
                Precondition::At(key, _) if !self.objects.contains_key(key) => return Some(Refused::Gone(key.clone())),
                Precondition::At(key, revision) if self.objects[key].0 != *revision => {
                    return Some(Refused::Modified(key.clone()));
                }
                _ => {}
            }
        }
        let keys: Vec<_> = transaction.writes.iter().map(Write::key).collect();
        if let Some(twice) = (0..keys.len()).find(|n| keys[..*n].contains(&keys[*n])) {
            return Some(Refused::Malformed(keys[twice].clone()));
        }
        match transaction.settlements.first() {
            Some(Settlement::Allocate { want: Want::Exactly(value), .. }) if *value >= POOL_SIZE => {
                Some(Refused::OutOfRange { pool: POOL.into(), value: *value })
            }
            Some(Settlement::Allocate { want: Want::Exactly(value), owner, .. })
                if self.held.get(value).is_some_and(|holder| holder != owner) =>
            {
                Some(Refused::Taken { pool: POOL.into(), value: *value })
            }
            Some(Settlement::Allocate { want: Want::Any, .. }) if self.held.len() as u64 == POOL_SIZE => {
                Some(Refused::Exhausted(POOL.into()))
            }
            _ => None,
        }
    }

    /// Does what was applied; the value that was chosen is read out of the object.
    fn follow(&mut self, transaction: &Transaction, applied: &Applied) {
        let before = (self.objects.clone(), self.held.clone());
        let next = Revision(self.revision.0 + 1);
        match transaction.settlements.first() {
            Some(Settlement::Allocate { want, owner, .. }) => {
                let object = applied.objects[0].as_ref().unwrap();
                let value = object.value(None)["number"].as_u64().unwrap();
                match want {
                    Want::Any => assert!(value < POOL_SIZE && !self.held.contains_key(&value)),
                    Want::Exactly(asked) => assert_eq!(value, *asked),
                }
                self.held.insert(value, owner.clone());
            }
            Some(Settlement::Release { owner, value, .. }) if self.held.get(value) == Some(owner) => {
                self.held.remove(value);
            }
            _ => {}
        }
        for (write, object) in transaction.writes.iter().zip(&applied.objects) {
            match write {
                Write::Put { key, attributes, .. } => {
                    let body = object.as_ref().unwrap().body().clone();
                    let same = self.objects.get(key).is_some_and(|(_, b, a)| *b == body && a == attributes);
                    if !same {
                        self.objects.insert(key.clone(), (next, body, attributes.clone()));
                    }
                }
                Write::Delete { key } => {
                    assert_eq!(object.is_some(), self.objects.contains_key(key));
                    if self.objects.remove(key).is_some() {
                        self.held.retain(|_, owner| owner != key);
                    }
                }
            }
        }
        if before != (self.objects.clone(), self.held.clone()) {
            self.revision = next;
        }
        assert_eq!(applied.revision, self.revision);
    }

    #[track_caller]
    fn assert_same(&self, view: &View) {
        assert_eq!(view.revision(), self.revision);
        assert_eq!(objects(view), self.objects);
        view.root().assert_indexes_hold();
    }
}

fn objects(view: &View) -> Objects {
    let listed = [CONFIG_MAPS, PODS].into_iter().flat_map(|r| view.list(&r, None).collect::<Vec<_>>());
    listed.map(|o| (o.key().clone(), (o.revision(), o.body().clone(), o.attributes().clone()))).collect()
}

/// What a watcher has that knew `before` and was told of these changes.
fn told(mut before: Objects, changes: Vec<Change>) -> Objects {
    for change in changes {
        let key = change.object().unwrap().key().clone();
        if let Some(new) = change.new {
            assert_eq!(change.old.map(|o| o.revision()), before.get(&key).map(|(r, ..)| *r));
            before.insert(key, (new.revision(), new.body().clone(), new.attributes().clone()));
        } else {
            assert_eq!(change.old.unwrap().revision(), change.revision);
            assert!(before.remove(&key).is_some());
        }
    }
    before
}

fn of(resource: &GroupResource, objects: &Objects) -> Objects {
    objects.iter().filter(|(key, _)| key.resource == *resource).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Every kept revision is what it was, and a watcher from there arrives at the present.
#[track_caller]
fn assert_past_holds(view: &View, past: &[Model]) {
    let present = &past.last().unwrap().objects;
    let mut kept = 0;
    for model in past {
        if let Ok(then) = view.at(model.revision) {
            model.assert_same(&then);
            kept += 1;
        }
        for resource in [CONFIG_MAPS, PODS] {
            match view.changes_after(&resource, model.revision) {
                Ok(changes) => assert_eq!(told(of(&resource, &model.objects), changes), of(&resource, present)),
                Err(expired) => assert!(view.at(model.revision).is_err(), "{expired}"),
            }
        }
    }
    assert!(kept > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_says_what_a_plain_map_says(steps in steps()) {
        let options = StoreOptions { window: Duration::from_mins(1), window_bytes: 100_000, ..StoreOptions::default() };
        let mut store = Store::new(options.clone());
        let mut past = vec![Model::default()];
        let mut views = vec![store.view()];
        let mut time = Timestamp::EPOCH;
        for step in &steps {
            let mut model = past.last().unwrap().clone();
            let transaction = transaction(step, &model);
            time = time + Duration::from_secs(step.seconds.unsigned_abs());
            let entry = Entry { time, transactions: vec![transaction.clone()] };
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
            let result = store.apply(1, &entry).remove(0);
            match (model.refusal(&transaction), result) {
                (Some(expected), Err(refused)) => assert_eq!(refused, expected),
                (None, Ok(applied)) => model.follow(&transaction, &applied),
                (expected, result) => panic!("{expected:?} but {result:?}"),
            }
            let held: Vec<_> = model.held.iter().map(|(value, owner)| (*value, owner.clone())).collect();
            assert_eq!(store.view().allocations(POOL), held);
            past.push(model);
            views.push(store.view());
        }
        for (model, view) in past.iter().zip(&views) {
            model.assert_same(view);
        }
        assert_past_holds(&store.view(), &past);

        let snapshot = store.view().snapshot();
        let mut restored = Store::restore(options, &snapshot).unwrap();
        assert_eq!(restored.view().snapshot(), snapshot);
        assert_eq!(restored.view().digest(), store.view().digest());
        assert_past_holds(&restored.view(), &past);
        let later = Entry { time: time + Duration::from_secs(30), transactions: vec![transaction(&steps[0], &past[0])] };
        assert_eq!(restored.apply(1, &later), store.apply(1, &later));
        assert_eq!(restored.view().snapshot(), store.view().snapshot());
    }
}
