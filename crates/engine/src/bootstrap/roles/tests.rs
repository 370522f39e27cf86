use coracle_api::{Attributes, Object, Revision};
use coracle_base::Timestamp;
use coracle_store::{Entry, Store, StoreOptions, Transaction, Write};

use super::*;

/// A store with what the actions say, as if the API server had carried them out.
fn carried_out(store: &mut Store, actions: Vec<Action>) {
    for action in actions {
        let write = match action {
            Action::Create { key, object } | Action::Update { key, object, .. } => put(key, object),
            Action::Delete { key, .. } => Write::Delete { key },
            other => panic!("{other:?}"),
        };
        let mut entry = Entry::at(Timestamp::EPOCH);
        entry.transactions.push(Transaction { writes: vec![write], ..Transaction::default() });
        store.apply(1, &entry).pop().unwrap().unwrap();
    }
}

fn put(key: ObjectKey, object: Value) -> Write {
    let object = Object::new(key.clone(), Revision(0), object, Attributes::new());
    Write::Put { key, body: object.body().clone(), attributes: Attributes::new() }
}

fn role(store: &Store, name: &str) -> Value {
    store.view().object(&ObjectKey::new(CLUSTER_ROLES, "", name)).unwrap().value(None)
}

fn change(store: &mut Store, name: &str, change: impl FnOnce(&mut Value)) {
    let mut object = role(store, name);
    change(&mut object);
    let key = ObjectKey::new(CLUSTER_ROLES, "", name);
    carried_out(store, vec![Action::Update { key, subresource: None, object }]);
}

fn bootstrapped() -> Store {
    let mut store = Store::new(StoreOptions::default());
    let actions = wanted(&store.view());
    carried_out(&mut store, actions);
    store
}

#[test]
fn a_cluster_that_has_the_default_roles_needs_nothing() {
    let store = bootstrapped();
    assert_eq!(wanted(&store.view()), []);
    assert_eq!(role(&store, "view")["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
    assert_eq!(role(&store, "admin").get("rules"), None);
}

#[test]
fn what_was_taken_from_a_default_role_is_given_back_and_what_was_added_stays() {
    let mut store = bootstrapped();
    change(&mut store, "system:basic-user", |role| {
        role["rules"] = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        role["metadata"]["labels"] = json!({"mine": "1"});
    });
    let actions = wanted(&store.view());
    assert_eq!(actions.len(), 1);
    carried_out(&mut store, actions);
    let role = role(&store, "system:basic-user");
    assert_eq!(role["rules"].as_array().unwrap().len(), 4, "{role}");
    assert_eq!(role["metadata"]["labels"], json!({"mine": "1", "kubernetes.io/bootstrapping": "rbac-defaults"}));
    assert_eq!(wanted(&store.view()), []);
}

#[test]
fn a_role_that_is_not_to_be_updated_is_left_alone() {
    let mut store = bootstrapped();
    change(&mut store, "cluster-admin", |role| {
        role["rules"] = json!([]);
        role["metadata"]["annotations"][AUTOUPDATE] = "false".into();
    });
    assert_eq!(wanted(&store.view()), []);
}

#[test]
fn a_default_binding_of_another_role_is_made_anew() {
    let mut store = bootstrapped();
    let key = ObjectKey::new(CLUSTER_ROLE_BINDINGS, "", "system:discovery");
    let mut binding = store.view().object(&key).unwrap().value(None);
    binding["roleRef"]["name"] = "view".into();
    carried_out(&mut store, vec![Action::Update { key: key.clone(), subresource: None, object: binding }]);
    let actions = wanted(&store.view());
    assert!(matches!(&actions[..], [Action::Delete { .. }, Action::Create { .. }]), "{actions:?}");
    carried_out(&mut store, actions);
    assert_eq!(wanted(&store.view()), []);
}
