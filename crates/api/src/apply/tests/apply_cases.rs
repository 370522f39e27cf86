//! Applies: merging, pruning, conflicts, refusals.

use super::*;

#[track_caller]
fn status(result: Result<Value, ApplyError>) -> Value {
    serde_json::from_slice(&Status::from(result.unwrap_err()).to_json()).unwrap()
}

#[test]
fn a_forced_apply_takes_what_it_changes_and_shares_the_rest() {
    let golden = recorded("deployment_applied");
    let applied = Kind::deployment().force(Some(&live_deployment()), &deployment_config(3, "nginx:1"), "m2").unwrap();
    assert_eq!(applied, golden);
}

#[test]
fn an_apply_that_changes_what_others_own_is_a_conflict() {
    let result = Kind::deployment().apply(Some(&live_deployment()), &deployment_config(3, "nginx:9"), "m2");
    assert_eq!(status(result), recorded("conflict"));
}

#[test]
fn one_conflict_is_told_in_one_line() {
    let kind = Kind::config_map();
    let live = kind.apply(None, &config_map(json!({"a": "1"})), "m1").unwrap();
    let body = status(kind.apply(Some(&live), &config_map(json!({"a": "2"})), "m2"));
    assert_eq!(body["message"], r#"Apply failed with 1 conflict: conflict with "m1": .data.a"#);
    let live = kind.update_at(Some(&live), &config_map(json!({"a": "3"})), "x", "status", now());
    let body = status(kind.apply(Some(&live), &config_map(json!({"a": "2"})), "m2"));
    assert_eq!(
        body["message"],
        r#"Apply failed with 1 conflict: conflict with "x" with subresource "status" using v1: .data.a"#
    );
}

#[test]
fn equal_values_are_shared_without_a_conflict() {
    let kind = Kind::config_map();
    let one = kind.apply(None, &config_map(json!({"a": "1", "b": "2"})), "m1").unwrap();
    let two = kind.apply(Some(&one), &config_map(json!({"a": "1"})), "m2").unwrap();
    assert_eq!(record(&two), [r#"Apply m1 {"f:data":{"f:a":{},"f:b":{}}}"#, r#"Apply m2 {"f:data":{"f:a":{}}}"#]);
    assert_eq!(without_record(&two), without_record(&one));
    let three = kind.apply(Some(&two), &config_map(json!({"b": "2"})), "m1").unwrap();
    assert_eq!(three["data"], json!({"a": "1", "b": "2"}), "what another one still owns is not removed");
}

#[test]
fn an_applied_config_map_is_created_and_pruned_as_recorded() {
    let (created, pruned) = (recorded("config_map_applied"), recorded("config_map_pruned"));
    let kind = Kind::config_map();
    let mut config = config_map(json!({"a": "1", "b": "2"}));
    config["metadata"] = json!({"name": "ac", "labels": {"q": "r"}});
    let first = kind.apply(None, &config, "m2").unwrap();
    assert_eq!(first["metadata"]["managedFields"], created["metadata"]["managedFields"]);
    config["data"] = json!({"a": "1"});
    config["metadata"] = json!({"name": "ac"});
    let second = kind.apply(Some(&created), &config, "m2").unwrap();
    let mut expected = pruned;
    expected["metadata"]["resourceVersion"] = created["metadata"]["resourceVersion"].clone();
    assert_eq!(second, expected);
}

#[test]
fn applying_the_same_again_changes_nothing_not_even_times() {
    let kind = Kind::deployment();
    let golden = recorded("deployment_applied");
    let options = ApplyOptions { time: Timestamp::from_secs(2_000_000_000), ..kind.options("m2") };
    let again = apply(&kind.schema, kind.type_id, Some(&golden), &deployment_config(3, "nginx:1"), &options).unwrap();
    assert_eq!(again, golden);
}

#[test]
fn what_is_given_up_is_removed_with_what_held_it() {
    let kind = Kind::deployment();
    let mut config = deployment_config(1, "nginx:1");
    config["spec"]["template"]["spec"]["securityContext"] = json!({"runAsUser": 1});
    config["spec"]["template"]["spec"]["containers"] = json!([
        {"name": "c", "image": "nginx:1", "env": [{"name": "A", "value": "1"}]},
        {"name": "side", "image": "s"}
    ]);
    let live = kind.apply(None, &config, "m1").unwrap();
    let spec = &mut config["spec"]["template"]["spec"];
    spec.as_object_mut().unwrap().remove("securityContext");
    spec["containers"] = json!([{"name": "c", "image": "nginx:1"}]);
    let applied = kind.apply(Some(&live), &config, "m1").unwrap();
    assert_eq!(without_record(&applied), config);
}

#[test]
fn what_nobody_applied_stays_where_something_holds_it() {
    let kind = Kind::deployment();
    let mut live = kind.apply(None, &deployment_config(1, "nginx:1"), "m1").unwrap();
    // A default that the server filled in belongs to nobody.
    live["spec"]["template"]["spec"]["dnsPolicy"] = json!("ClusterFirst");
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    let mut config = deployment_config(1, "nginx:1");
    config["spec"].as_object_mut().unwrap().remove("replicas");
    let applied = kind.apply(Some(&live), &config, "m1").unwrap();
    let spec = &applied["spec"]["template"]["spec"];
    assert_eq!(applied["spec"].get("replicas"), None);
    assert_eq!(
        (&spec["dnsPolicy"], &spec["containers"][0]["imagePullPolicy"]),
        (&json!("ClusterFirst"), &json!("IfNotPresent"))
    );
}

#[test]
fn items_come_in_the_order_of_the_configuration_around_the_live_ones() {
    let kind = Kind::pod();
    let pod = |names: &[&str]| {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}})
    };
    let cases: [(&[&str], &[&str], &[&str]); 8] = [
        (&["a", "b"], &["b", "a"], &["b", "a"]),
        (&["a", "x", "b"], &["b", "a"], &["x", "b", "a"]),
        (&["x", "a", "b"], &["a", "c", "b"], &["x", "a", "c", "b"]),
        (&["a", "b"], &["c"], &["a", "b", "c"]),
        (&["a", "b", "c"], &["c", "d"], &["a", "b", "c", "d"]),
        (&["a", "b", "x", "c"], &["c", "a", "b"], &["x", "c", "a", "b"]),
        (&[], &["a"], &["a"]),
        (&["a"], &[], &["a"]),
    ];
    for (live, config, merged) in cases {
        let applied = kind.force(Some(&kind.update(None, &pod(live), "u")), &pod(config), "m").unwrap();
        let names: Vec<&str> = applied["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect();
        assert_eq!(names, merged, "{live:?} with {config:?}");
    }
}

#[test]
fn a_set_merges_its_members() {
    let kind = Kind::custom();
    let foo = |set: Value| json!({"apiVersion": "ex.io/v1", "kind": "Foo", "metadata": {"name": "a"}, "set": set});
    let one = kind.apply(None, &foo(json!(["a", "b"])), "m1").unwrap();
    let two = kind.apply(Some(&one), &foo(json!(["b", "c"])), "m2").unwrap();
    assert_eq!(two["set"], json!(["a", "b", "c"]));
    let three = kind.apply(Some(&two), &foo(json!([])), "m1").unwrap();
    assert_eq!(three["set"], json!(["b", "c"]));
    assert_eq!(record(&three), [r#"Apply m2 {"f:set":{"v:\"b\"":{},"v:\"c\"":{}}}"#]);
}

#[test]
fn a_null_takes_a_value_away_and_says_nothing_of_what_merges() {
    let kind = Kind::deployment();
    let live = kind.apply(None, &deployment_config(2, "nginx:1"), "m1").unwrap();
    let mut config = deployment_config(2, "nginx:1");
    config["spec"]["replicas"] = Value::Null;
    config["metadata"]["labels"] = Value::Null;
    let applied = kind.apply(Some(&live), &config, "m1").unwrap();
    assert_eq!(applied["spec"].get("replicas"), None);
    assert_eq!(applied["metadata"].get("labels"), None, "the label itself was given up");
    let kept = kind.force(Some(&live), &config, "m2").unwrap();
    assert_eq!(kept["metadata"]["labels"], json!({"a": "b"}), "it was never this one's to give up");
}

#[test]
fn a_missing_key_counts_with_the_default_of_the_schema() {
    let mut config = deployment_config(3, "nginx:1");
    config["spec"]["template"]["spec"]["containers"][0].as_object_mut().unwrap().remove("name");
    let applied = Kind::deployment().force(Some(&live_deployment()), &config, "m2").unwrap();
    let containers = applied["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!((containers.len(), containers[1].get("name")), (2, None));
    assert!(record(&applied)[0].contains(r#""k:{\"name\":\"\"}":{".":{},"f:image":{}"#), "{:?}", record(&applied));
}

#[test]
fn a_configuration_that_does_not_fit_is_refused_in_kubernetes_words() {
    let kind = Kind::deployment();
    let config = |edit: &dyn Fn(&mut Value)| {
        let mut config = deployment_config(3, "nginx:1");
        edit(&mut config);
        config
    };
    let cases: [(Value, &str); 5] = [
        (
            config(&|c| c["spec"]["foo"] = json!(1)),
            "failed to create typed patch object (/d1; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema",
        ),
        (
            config(&|c| c["spec"]["replicas"] = json!("x")),
            "failed to create typed patch object (/d1; apps/v1, Kind=Deployment): .spec.replicas: expected numeric (int or float), got string",
        ),
        (
            config(&|c| {
                let container = c["spec"]["template"]["spec"]["containers"][0].clone();
                c["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(container);
            }),
            r#"failed to create typed patch object (/d1; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name="c"]"#,
        ),
        (
            config(&|c| c["spec"]["template"]["spec"]["containers"][0]["env"] = json!([1])),
            r#"failed to create typed patch object (/d1; apps/v1, Kind=Deployment): .spec.template.spec.containers[name="c"].env: element 0: associative list with keys may not have non-map elements"#,
        ),
        (
            config(&|c| c["metadata"] = json!({"name": "d1", "namespace": "n", "labels": {"a": 1, "b": true}})),
            "failed to create typed patch object (n/d1; apps/v1, Kind=Deployment): errors:\n  .metadata.labels.a: expected string, got &{1}\n  .metadata.labels.b: expected string, got &{true}",
        ),
    ];
    for (config, message) in cases {
        let body = status(kind.force(Some(&live_deployment()), &config, "m2"));
        assert_eq!((&body["message"], &body["code"], body.get("reason")), (&json!(message), &json!(500), None));
    }
}

#[test]
fn a_list_item_that_omits_every_key_is_refused() {
    let config =
        json!({"apiVersion": "ex.io/v1", "kind": "Foo", "metadata": {"name": "a"}, "items": [{"id": "x"}, {}]});
    let body = status(Kind::custom().apply(None, &config, "m"));
    assert_eq!(
        body["message"],
        "failed to create typed patch object (/a; ex.io/v1, Kind=Foo): .items: element 1: associative list with keys has an element that omits all key fields [\"id\"] (and doesn't have default values for any key fields)"
    );
}

#[test]
fn managed_fields_and_foreign_types_are_bad_requests() {
    let kind = Kind::deployment();
    let mut config = deployment_config(3, "nginx:1");
    config["metadata"]["managedFields"] = json!([{}]);
    let body = status(kind.force(None, &config, "m2"));
    assert_eq!(
        body,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "metadata.managedFields must be nil", "reason": "BadRequest", "code": 400})
    );
    config["apiVersion"] = json!("apps/v2");
    let body = status(kind.force(None, &config, "m2"));
    assert_eq!(
        body,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "invalid object type: apps/v2, Kind=Deployment", "reason": "BadRequest", "code": 400})
    );
}

#[test]
fn an_object_without_a_record_gets_one_of_the_past_at_its_first_apply() {
    let kind = Kind::config_map();
    let live = config_map(json!({"a": "1", "b": "2"}));
    let applied = kind.apply(Some(&live), &config_map(json!({"a": "1"})), "m").unwrap();
    assert_eq!(
        record(&applied),
        [r#"Apply m {"f:data":{"f:a":{}}}"#, r#"Update before-first-apply {"f:data":{".":{},"f:a":{},"f:b":{}}}"#]
    );
    let body = status(kind.apply(Some(&live), &config_map(json!({"a": "2"})), "m"));
    assert_eq!(
        body["message"],
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a"#
    );
}

#[test]
fn a_status_in_a_configuration_of_the_object_is_not_owned() {
    let mut config = deployment_config(3, "nginx:1");
    config["status"] = json!({"replicas": 7});
    let applied = Kind::deployment().apply(None, &config, "m").unwrap();
    assert!(!record(&applied)[0].contains("f:status"), "{:?}", record(&applied));
    let kind = Kind::deployment();
    let options = ApplyOptions { subresource: "status", ..kind.options("m") };
    let applied = apply(&kind.schema, kind.type_id, Some(&applied), &config, &options).unwrap();
    assert_eq!(record(&applied)[1], r#"Apply m {"f:status":{"f:replicas":{}}}"#);
    assert_eq!(applied["metadata"]["managedFields"][1]["subresource"], "status");
}

/// An object that client-side apply made: `kubectl` owns everything by updates, and the annotation says what it applied.
fn client_side_applied(data: &Value) -> Value {
    let mut object = config_map(data.clone());
    let last = format!("{}\n", config_map(data.clone()));
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    Kind::config_map().update(None, &object, "kubectl-client-side-apply")
}

#[test]
fn kubectl_takes_over_what_its_client_side_apply_left() {
    let kind = Kind::config_map();
    let live = client_side_applied(&json!({"a": "1", "b": "2"}));
    let config = config_map(json!({"a": "9"}));
    let applied = kind.apply(Some(&live), &config, "kubectl").unwrap();
    assert_eq!(applied["data"], json!({"a": "9", "b": "2"}));
    let annotation = &applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    let text = annotation.as_str().unwrap();
    assert!(text.ends_with("}\n"));
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), config);
    assert!(kind.apply(Some(&live), &config, "someone").is_err(), "nobody else may");
}

#[test]
fn kubectl_does_not_take_over_what_was_changed_since() {
    let kind = Kind::config_map();
    let mut new = client_side_applied(&json!({"a": "1", "b": "2"}));
    new["data"]["b"] = json!("edited");
    let live = kind.update(Some(&client_side_applied(&json!({"a": "1", "b": "2"}))), &new, "editor");
    let body = status(kind.apply(Some(&live), &config_map(json!({"a": "9", "b": "9"})), "kubectl"));
    assert_eq!(body["message"], r#"Apply failed with 1 conflict: conflict with "editor" using v1: .data.b"#);
}

#[test]
fn two_managers_conflicts_are_told_one_after_the_other() {
    let kind = Kind::config_map();
    let live = kind.update(None, &config_map(json!({"a": "1"})), "one");
    let live = kind.update(Some(&live), &config_map(json!({"a": "1", "b": "2", "c": "3"})), "two");
    let body = status(kind.apply(Some(&live), &config_map(json!({"a": "x", "b": "x", "c": "x"})), "m"));
    assert_eq!(
        body["message"],
        "Apply failed with 3 conflicts: conflicts with \"one\" using v1:\n- .data.a\nconflicts with \"two\" using v1:\n- .data.b\n- .data.c"
    );
    assert_eq!(body["details"]["causes"][2]["field"], ".data.c");
}

#[test]
fn a_record_that_does_not_read_is_a_server_error() {
    let mut live = config_map(json!({"a": "1"}));
    live["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Update", "apiVersion": "v1"}]);
    let body = status(Kind::config_map().apply(Some(&live), &config_map(json!({})), "m"));
    assert_eq!(body["message"], "failed to decode managed fields: missing fieldsType in managed fields entry 0");
}
