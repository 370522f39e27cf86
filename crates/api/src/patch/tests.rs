//! Cases of the three patches; the refusals' texts are those of a real API server.

use serde_json::{Value, json};

use super::*;
use crate::schema::Schema;

#[track_caller]
fn strategic(kind: &str, original: Value, patch: Value) -> Result<Value, PatchError> {
    let schema = Schema::builtin();
    let type_id = schema.find(&format!("io.k8s.api.{kind}")).expect("a built-in type");
    strategic_merge(&schema, type_id, &original, &patch)
}

/// One pod spec merged into another one.
#[track_caller]
fn check(original: Value, patch: Value, merged: Value) {
    let result = strategic("core.v1.Pod", json!({"spec": original}), json!({"spec": patch}));
    assert_eq!(result, Ok(json!({"spec": merged})));
}

#[track_caller]
fn refused(original: Value, patch: Value, code: u16, reason: Option<Reason>, message: &str) {
    let error = strategic("core.v1.Pod", json!({"spec": original}), json!({"spec": patch})).unwrap_err();
    let status = Status::from(error);
    assert_eq!((status.code, status.reason, status.message.as_str()), (code, reason, message));
}

#[test]
fn json_patch_carries_out_every_operation() {
    let cases = [
        (json!([{"op": "add", "path": "/a/-", "value": 3}]), json!({"a": [1, 2, 3], "b": "x"})),
        (json!([{"op": "add", "path": "/a/0", "value": 0}]), json!({"a": [0, 1, 2], "b": "x"})),
        (json!([{"op": "remove", "path": "/b"}]), json!({"a": [1, 2]})),
        (json!([{"op": "replace", "path": "/b", "value": null}]), json!({"a": [1, 2], "b": null})),
        (json!([{"op": "move", "from": "/b", "path": "/c"}]), json!({"a": [1, 2], "c": "x"})),
        (json!([{"op": "copy", "from": "/a/1", "path": "/b"}]), json!({"a": [1, 2], "b": 2})),
        (json!([{"op": "test", "path": "/b", "value": "x"}]), json!({"a": [1, 2], "b": "x"})),
        (json!([{"op": "test", "path": "/none", "value": null}]), json!({"a": [1, 2], "b": "x"})),
        (json!([{"op": "add", "path": "/x~1y", "value": 1}]), json!({"a": [1, 2], "b": "x", "x/y": 1})),
        (json!(null), json!({"a": [1, 2], "b": "x"})),
    ];
    for (patch, patched) in cases {
        assert_eq!(json_patch(&json!({"a": [1, 2], "b": "x"}), &patch), Ok(patched), "{patch}");
    }
}

#[test]
fn a_failing_operation_is_a_422_that_keeps_its_cause_to_itself() {
    for patch in [
        json!([{"op": "test", "path": "/spec/replicas", "value": 9}]),
        json!([{"op": "remove", "path": "/spec/nope"}]),
        json!([{"op": "replace", "path": "/spec/nope", "value": 1}]),
        json!([{"op": "add", "path": "/nope/deep", "value": 1}]),
        json!([{"op": "frobnicate", "path": "/spec"}]),
    ] {
        let status = Status::from(json_patch(&json!({"spec": {"replicas": 2}}), &patch).unwrap_err());
        let text = String::from_utf8(status.to_json()).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server rejected our request due to an error in our request","reason":"Invalid","details":{},"code":422}"#
        );
    }
}

#[test]
fn a_patch_of_the_wrong_form_is_a_400() {
    let status = Status::from(json_patch(&json!({}), &json!({"a": 1})).unwrap_err());
    assert_eq!(
        (status.code, status.message.as_str()),
        (400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp")
    );
    let array = "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
    assert_eq!(merge_patch(&json!({}), &json!([])).unwrap_err().to_string(), array);
    assert_eq!(strategic("core.v1.Pod", json!({}), json!([])).unwrap_err().to_string(), array);
    assert_eq!(decode(b"{\"a\":").unwrap_err().to_string(), "error decoding patch: unexpected end of JSON input");
    assert_eq!(Status::from(decode(b"nope").unwrap_err()).code, 400);
}

#[test]
fn a_json_patch_of_too_many_operations_is_a_413() {
    let operation = json!({"op": "test", "path": "", "value": {}});
    assert!(json_patch(&json!({}), &Value::Array(vec![operation.clone(); OPERATIONS_MAX])).is_ok());
    let status = Status::from(json_patch(&json!({}), &Value::Array(vec![operation; OPERATIONS_MAX + 1])).unwrap_err());
    assert_eq!((status.code, status.reason), (413, Some(Reason::RequestEntityTooLarge)));
}

#[test]
fn merge_patch_merges_objects_deletes_by_null_and_replaces_the_rest() {
    let original = json!({"a": "b", "c": {"d": "e", "f": "g"}, "l": [1, 2]});
    let patch = json!({"a": "z", "c": {"f": null, "n": {"x": null, "y": 1}}, "l": [3]});
    assert_eq!(merge_patch(&original, &patch), Ok(json!({"a": "z", "c": {"d": "e", "n": {"y": 1}}, "l": [3]})));
}

#[test]
fn containers_merge_by_name_and_keep_what_the_patch_does_not_say() {
    check(
        json!({"containers": [{"name": "a", "image": "a:1", "tty": true}, {"name": "b", "image": "b:1"}]}),
        json!({"containers": [{"name": "a", "image": "a:2", "tty": null}]}),
        json!({"containers": [{"name": "a", "image": "a:2"}, {"name": "b", "image": "b:1"}]}),
    );
}

#[test]
fn a_new_item_stands_before_the_items_the_patch_does_not_name() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "c"}]}),
        json!({"containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}),
    );
}

#[test]
fn integer_keys_merge_too() {
    check(
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 443}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 443, "name": "https"}]}]}),
        json!({"containers": [{"name": "a", "ports": [
            {"containerPort": 80, "name": "http"},
            {"containerPort": 443, "name": "https"}
        ]}]}),
    );
}

#[test]
fn an_atomic_list_is_replaced() {
    check(
        json!({"tolerations": [{"key": "a"}, {"key": "b"}], "containers": [{"name": "a", "args": ["1", "2"]}]}),
        json!({"tolerations": [{"key": "c"}], "containers": [{"name": "a", "args": ["3"]}]}),
        json!({"tolerations": [{"key": "c"}], "containers": [{"name": "a", "args": ["3"]}]}),
    );
}

#[test]
fn a_list_of_scalars_merges_as_a_set() {
    let original = json!({"metadata": {"finalizers": ["x/a", "x/b"]}});
    let patched = strategic("core.v1.Pod", original.clone(), json!({"metadata": {"finalizers": ["x/b", "x/c"]}}));
    assert_eq!(patched, Ok(json!({"metadata": {"finalizers": ["x/a", "x/b", "x/c"]}})));
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a", "x/z"]}});
    assert_eq!(strategic("core.v1.Pod", original.clone(), patch), Ok(json!({"metadata": {"finalizers": ["x/b"]}})));
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["x/b"],
        "$setElementOrder/finalizers": ["x/c", "x/a"],
        "finalizers": ["x/c"]
    }});
    assert_eq!(strategic("core.v1.Pod", original, patch), Ok(json!({"metadata": {"finalizers": ["x/c", "x/a"]}})));
}

#[test]
fn the_delete_directive_takes_an_item_or_a_map_away() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}], "securityContext": {"runAsUser": 1}}),
        json!({"containers": [{"name": "a", "$patch": "delete"}], "securityContext": {"$patch": "delete"}}),
        json!({"containers": [{"name": "b"}], "securityContext": {}}),
    );
}

#[test]
fn the_delete_directive_against_nothing_leaves_nothing() {
    check(
        json!({}),
        json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b"}], "securityContext": {"$patch": "delete"}}),
        json!({"containers": [{"name": "b"}]}),
    );
}

#[test]
fn the_replace_directive_replaces_a_map_or_a_list() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}], "securityContext": {"runAsUser": 1, "fsGroup": 2}}),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}], "securityContext": {"$patch": "replace", "fsGroup": 3}}),
        json!({"containers": [{"name": "c"}], "securityContext": {"fsGroup": 3}}),
    );
}

#[test]
fn retain_keys_drops_what_it_does_not_name() {
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}),
        json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}),
    );
    let original = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        strategic("apps.v1.Deployment", original, patch),
        Ok(json!({"spec": {"strategy": {"type": "Recreate"}}}))
    );
}

#[test]
fn set_element_order_orders_the_items_around_the_servers_own() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "injected"}, {"name": "b"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}],
            "containers": [{"name": "c", "image": "c:1"}]
        }),
        json!({"containers": [{"name": "injected"}, {"name": "b"}, {"name": "a"}, {"name": "c", "image": "c:1"}]}),
    );
}

#[test]
fn set_element_order_alone_only_reorders() {
    check(
        json!({"containers": [{"name": "a", "image": "a"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
        json!({"containers": [{"name": "b"}, {"name": "a", "image": "a"}]}),
    );
    check(json!({}), json!({"$setElementOrder/containers": [{"name": "b"}]}), json!({}));
}

/// What `kubectl apply` sends after an edit: the live object has a sidecar and defaults that the user never wrote.
#[test]
fn a_three_way_patch_of_kubectl_changes_adds_and_removes_only_what_the_user_changed() {
    let live = json!({"spec": {"replicas": 5, "template": {"spec": {
        "containers": [
            {"name": "web", "image": "web:1", "imagePullPolicy": "IfNotPresent",
             "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
             "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"name": "sidecar", "image": "side:1"}
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "dnsPolicy": "ClusterFirst"
    }}}});
    let patch = json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}\n"}},
        "spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "web"}],
            "$setElementOrder/volumes": [{"name": "data"}],
            "containers": [{
                "name": "web",
                "image": "web:2",
                "$setElementOrder/env": [{"name": "C"}, {"name": "A"}],
                "$setElementOrder/ports": [{"containerPort": 80}],
                "env": [{"name": "C", "value": "3"}, {"name": "B", "$patch": "delete"}]
            }],
            "volumes": [{"name": "data", "$retainKeys": ["name", "configMap"], "configMap": {"name": "cm"}, "emptyDir": null}]
        }}}
    });
    let merged = json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}\n"}},
        "spec": {"replicas": 5, "template": {"spec": {
            "containers": [
                {"name": "web", "image": "web:2", "imagePullPolicy": "IfNotPresent",
                 "env": [{"name": "C", "value": "3"}, {"name": "A", "value": "1"}],
                 "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                {"name": "sidecar", "image": "side:1"}
            ],
            "volumes": [{"name": "data", "configMap": {"name": "cm"}}],
            "dnsPolicy": "ClusterFirst"
        }}}
    });
    assert_eq!(strategic("apps.v1.Deployment", live, patch), Ok(merged));
}

#[test]
fn a_condition_is_patched_by_its_type() {
    let original =
        json!({"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other", "status": "True"}]}});
    let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(
        strategic("core.v1.Pod", original, patch),
        Ok(
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]}})
        )
    );
}

#[test]
fn null_deletes_and_unmatched_nulls_vanish() {
    check(
        json!({"nodeName": "n", "nodeSelector": {"a": "b"}}),
        json!({"nodeName": null, "hostNetwork": null, "nodeSelector": {"a": null, "c": "d"}, "affinity": {"nodeAffinity": null}}),
        json!({"nodeSelector": {"c": "d"}, "affinity": {}}),
    );
}

#[test]
fn a_selector_of_a_disruption_budget_is_replaced() {
    let original = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
    let patch = json!({"spec": {"selector": {"matchLabels": {"c": "d"}}}});
    assert_eq!(strategic("policy.v1.PodDisruptionBudget", original, patch.clone()), Ok(patch));
}

#[test]
fn an_item_without_its_merge_key_is_a_500_without_a_reason() {
    let deployment = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}});
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}});
    let status = Status::from(strategic("apps.v1.Deployment", deployment, patch).unwrap_err());
    let text = String::from_utf8(status.to_json()).unwrap();
    assert_eq!(
        text,
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"map: map[image:x] does not contain declared merge key: name","code":500}"#
    );
}

#[test]
fn contradictory_and_malformed_directives_are_refused_in_kubernetes_words() {
    let pod =
        || json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {}});
    let bad = Some(Reason::BadRequest);
    refused(
        pod(),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "configMap": {}}]}),
        400,
        bad,
        "invalid patch format of retainKeys",
    );
    refused(pod(), json!({"$deleteFromPrimitiveList/x": 1}), 400, bad, "invalid patch format of primitive list");
    refused(pod(), json!({"$setElementOrder": []}), 400, bad, "invalid patch format of setElementOrder list");
    refused(
        pod(),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}),
        500,
        None,
        "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
    );
    refused(
        pod(),
        json!({"securityContext": {"$patch": "merge"}}),
        500,
        None,
        "unknown patch type: merge in map: map[$patch:merge]",
    );
    refused(
        pod(),
        json!({"containers": [{"name": "a", "$patch": "merge"}]}),
        500,
        None,
        "merging lists cannot yet be specified in the patch",
    );
    refused(
        pod(),
        json!({"containers": ["a"]}),
        500,
        None,
        "list element types are not identical: [[map[name:a]] [a]]",
    );
    refused(
        pod(),
        json!({"containers": [["a"]], "initContainers": null}),
        500,
        None,
        "list element types are not identical: [[map[name:a]] [[a]]]",
    );
}
