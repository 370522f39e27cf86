//! Ownership after creates, updates and patches.

use super::*;

#[test]
fn the_creator_of_a_deployment_owns_what_it_gave_and_what_was_defaulted() {
    let golden = recorded("deployment_created");
    let time = Timestamp::parse("2026-11-22T10:31:34Z").unwrap();
    let created = Kind::deployment().update_at(None, &without_record(&golden), "m1", "", time);
    assert_eq!(created["metadata"]["managedFields"], golden["metadata"]["managedFields"]);
}

#[test]
fn a_status_write_is_an_entry_of_its_subresource() {
    let (before, golden) = (recorded("deployment_created"), recorded("deployment_applied"));
    let mut new = without_record(&golden);
    new["spec"]["replicas"] = json!(99);
    let time = Timestamp::parse("2026-11-22T10:31:34Z").unwrap();
    let written = Kind::deployment().update_at(Some(&before), &new, "kube-controller-manager", "status", time);
    let entries = written["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries[0], golden["metadata"]["managedFields"][1]);
    assert_eq!(entries[1], before["metadata"]["managedFields"][0], "a status write does not touch the spec's owner");
}

#[test]
fn the_scheduler_owns_the_condition_that_it_added() {
    let golden = recorded("pod_scheduled");
    let mut before = golden.clone();
    before["status"].as_object_mut().unwrap().remove("conditions");
    before["metadata"]["managedFields"] = json!([golden["metadata"]["managedFields"][1]]);
    let time = Timestamp::parse("2026-11-22T10:31:46Z").unwrap();
    let new = without_record(&golden);
    let written = Kind::pod().update_at(Some(&before), &new, "kube-scheduler", "status", time);
    assert_eq!(written["metadata"]["managedFields"], golden["metadata"]["managedFields"]);
}

#[test]
fn a_custom_object_is_owned_with_what_holds_the_fields() {
    let foo = |spec: Value| json!({"apiVersion": "ex.io/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": spec});
    let kind = Kind::custom();
    let created = kind.update(None, &foo(json!({"color": "red", "list": [1]})), "probe");
    assert_eq!(record(&created), [r#"Update probe {"f:spec":{".":{},"f:color":{},"f:list":{}}}"#]);
    let mut new = created.clone();
    new["status"] = json!({"replicas": 9});
    let written = kind.update_at(Some(&created), &new, "probe", "status", now());
    assert_eq!(
        record(&written),
        [
            r#"Update probe {"f:spec":{".":{},"f:color":{},"f:list":{}}}"#,
            r#"Update probe {"f:status":{".":{},"f:replicas":{}}}"#
        ]
    );
    assert_eq!(written["metadata"]["managedFields"][1]["subresource"], "status");
}

#[test]
fn a_value_that_turns_into_an_object_changes_hands() {
    let foo = |spec: Value| json!({"apiVersion": "ex.io/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": spec});
    let kind = Kind::custom();
    let created = kind.update(None, &foo(json!({"x": "text"})), "a");
    let turned = kind.update(Some(&created), &foo(json!({"x": {"y": 1}})), "b");
    assert_eq!(record(&turned), [r#"Update a {"f:spec":{}}"#, r#"Update b {"f:spec":{"f:x":{".":{},"f:y":{}}}}"#]);
    let back = kind.update(Some(&turned), &foo(json!({"x": "text"})), "c");
    assert_eq!(record(&back), [r#"Update a {"f:spec":{}}"#, r#"Update c {"f:spec":{"f:x":{}}}"#]);
}

#[test]
fn who_changes_a_field_takes_it_and_who_removes_it_frees_it() {
    let kind = Kind::config_map();
    let one = kind.update(None, &config_map(json!({"a": "1", "b": "2", "c": "3"})), "first");
    let two = kind.update(Some(&one), &config_map(json!({"a": "9", "b": "2"})), "second");
    assert_eq!(
        record(&two),
        [r#"Update first {"f:data":{".":{},"f:b":{}}}"#, r#"Update second {"f:data":{"f:a":{}}}"#]
    );
}

#[test]
fn a_write_that_changes_nothing_leaves_the_record_and_its_times() {
    let kind = Kind::config_map();
    let one = kind.update(None, &config_map(json!({"a": "1"})), "first");
    let later = Timestamp::from_secs(now().as_secs() + 60);
    let again = kind.update_at(Some(&one), &config_map(json!({"a": "1"})), "second", "", later);
    assert_eq!(again, one);
}

#[test]
fn an_empty_record_sent_by_a_client_starts_it_anew() {
    let kind = Kind::config_map();
    let one = kind.update(None, &config_map(json!({"a": "1"})), "first");
    for reset in [json!([]), json!([{}])] {
        let mut new = config_map(json!({"a": "2"}));
        new["metadata"]["managedFields"] = reset;
        let untracked = kind.update(Some(&one), &new, "second");
        assert_eq!(record(&untracked), [""; 0]);
        let after = kind.update(Some(&untracked), &config_map(json!({"a": "3"})), "third");
        assert_eq!(record(&after), [""; 0], "an object without a record stays without one until it is applied to");
    }
}

#[test]
fn a_record_sent_by_a_client_counts_and_a_broken_one_does_not() {
    let kind = Kind::config_map();
    let one = kind.update(None, &config_map(json!({"a": "1"})), "first");
    let mut new = one.clone();
    new["metadata"]["managedFields"][0]["manager"] = json!("renamed");
    let renamed = kind.update(Some(&one), &new, "second");
    assert_eq!(record(&renamed), [r#"Update renamed {"f:data":{".":{},"f:a":{}}}"#]);
    new["metadata"]["managedFields"][0]["operation"] = json!("Guess");
    assert_eq!(kind.update(Some(&one), &new, "second"), one);
}

#[test]
fn old_updates_are_thrown_together() {
    let kind = Kind::config_map();
    let mut data = serde_json::Map::new();
    let mut live: Option<Value> = None;
    for index in 0..15 {
        data.insert(format!("k{index:02}"), json!("v"));
        let time = Timestamp::from_secs(1_000 + index);
        let new = config_map(Value::Object(data.clone()));
        live = Some(kind.update_at(live.as_ref(), &new, &format!("m{index:02}"), "", time));
    }
    let record = record(&live.unwrap());
    assert_eq!(record.len(), UPDATE_ENTRIES_MAX);
    let ancient = r#"Update ancient-changes {"f:data":{".":{},"f:k00":{},"f:k01":{},"f:k02":{},"f:k03":{},"f:k04":{},"f:k05":{}}}"#;
    assert_eq!(record[0], ancient);
    assert_eq!(record[9], r#"Update m14 {"f:data":{"f:k14":{}}}"#);
}

#[test]
fn a_manager_without_a_name_is_unknown() {
    let created = Kind::config_map().update(None, &config_map(json!({"a": "1"})), "");
    assert_eq!(record(&created), [r#"Update unknown {"f:data":{".":{},"f:a":{}}}"#]);
}

#[test]
fn a_write_that_differs_in_times_only_is_no_write() {
    let kind = Kind::config_map();
    let live = kind.update(None, &config_map(json!({"a": "1"})), "first");
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["time"] = json!("2027-01-01T00:00:00Z");
    new["metadata"]["resourceVersion"] = json!("7");
    assert!(keep_times_if_unchanged(&live, &mut new));
    assert_eq!(new["metadata"]["managedFields"], live["metadata"]["managedFields"]);
    for (pointer, value) in [("/data/a", json!("2")), ("/metadata/managedFields/0/manager", json!("x"))] {
        let mut other = live.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert!(!keep_times_if_unchanged(&live, &mut other), "{pointer}");
    }
    let mut labelled = live.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert!(!keep_times_if_unchanged(&live, &mut labelled));
    assert!(!keep_times_if_unchanged(&labelled, &mut live.clone()));
}

#[test]
fn items_given_twice_are_owned_as_a_whole() {
    let pod = |env: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "env": env}]}});
    let kind = Kind::pod();
    let created = kind.update(None, &pod(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])), "first");
    let item = r#"{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"A\"}":{}},"f:name":{}}}}}"#;
    assert_eq!(record(&created), [format!("Update first {item}")]);
    let single = kind.update(Some(&created), &pod(json!([{"name": "A", "value": "2"}])), "second");
    assert_eq!(record(&single).len(), 2);
}

#[test]
fn a_reference_is_one_value_but_for_the_claim_of_a_volume() {
    let kind = Kind::builtin("core.v1", "v1", "PersistentVolume");
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {
        "claimRef": {"name": "c", "uid": "u"}, "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s", "namespace": "n"}}
    }});
    assert_eq!(
        record(&kind.update(None, &volume, "m")),
        [
            r#"Update m {"f:spec":{"f:claimRef":{".":{},"f:name":{},"f:uid":{}},"f:csi":{".":{},"f:driver":{},"f:nodePublishSecretRef":{}}}}"#
        ]
    );
}
