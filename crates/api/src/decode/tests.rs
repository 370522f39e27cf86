use serde_json::json;

use super::*;

#[track_caller]
fn decode(kind: &str, body: &str, strictness: Strictness) -> Result<Decoded, DecodeError> {
    let schema = Schema::builtin();
    let id = schema.find(&format!("io.k8s.api.{kind}")).expect("the type is in the table");
    let decoded = decode_json(&schema, id, body.as_bytes(), strictness);
    if let (Ok(decoded), Ok(value)) = (&decoded, serde_json::from_str::<Value>(body)) {
        let of_value =
            decode_value(&schema, id, &value, Strictness::Ignore).expect("the value decodes as the bytes do");
        assert_eq!(of_value.value, decoded.value);
        let again =
            decode_value(&schema, id, &decoded.value, Strictness::Strict).expect("what is decoded decodes again");
        assert_eq!(again.value, decoded.value);
    }
    decoded
}

#[track_caller]
fn check(kind: &str, body: Value, expected: Value) {
    let decoded = decode(kind, &body.to_string(), Strictness::Strict).expect("the body decodes");
    assert_eq!(decoded.value, expected);
}

#[track_caller]
fn check_error(kind: &str, body: &str, expected: &str) {
    let error = decode(kind, body, Strictness::Strict).expect_err("the body does not decode");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_deployment_comes_out_as_a_server_writes_it() {
    check(
        "apps.v1.Deployment",
        json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d", "creationTimestamp": null, "labels": {}},
            "spec": {"replicas": 0, "paused": false, "selector": {"matchLabels": {"a": "b"}}, "strategy": {},
                "template": {"spec": {"containers": [{"name": "c", "image": "", "args": [], "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}]}}}}),
        json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "strategy": {},
                "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}}},
            "status": {}}),
    );
}

#[test]
fn structs_without_pointers_are_written_though_nothing_was_given() {
    check(
        "core.v1.Service",
        json!({"spec": {"ports": [{"port": 80, "targetPort": 0}]}}),
        json!({"metadata": {}, "spec": {"ports": [{"port": 80}]}, "status": {"loadBalancer": {}}}),
    );
    check(
        "core.v1.Pod",
        json!({"spec": {"securityContext": {}, "containers": null}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        json!({"metadata": {}, "spec": {"securityContext": {}, "containers": null},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null}]}}),
    );
    check(
        "core.v1.ConfigMap",
        json!({"data": {"a": null, "b": ""}}),
        json!({"metadata": {}, "data": {"a": "", "b": ""}}),
    );
}

#[test]
fn times_quantities_and_bytes_are_made_canonical() {
    check(
        "coordination.v1.Lease",
        json!({"metadata": {"creationTimestamp": "2026-11-22T11:31:34.9+01:00"}, "spec": {"renewTime": "2026-11-22T10:31:34.123456Z"}}),
        json!({"metadata": {"creationTimestamp": "2026-11-22T10:31:34Z"}, "spec": {"renewTime": "2026-11-22T10:31:34.123456Z"}}),
    );
    check("core.v1.Secret", json!({"data": {"a": "aGVs\nbG8="}}), json!({"metadata": {}, "data": {"a": "aGVsbG8="}}));
    check(
        "core.v1.ResourceRequirements",
        json!({"requests": {"cpu": "1000m", "memory": 0.5, "pods": " 1e3 "}}),
        json!({"requests": {"cpu": "1", "memory": "500m", "pods": "1e3"}}),
    );
}

#[test]
fn unknown_and_duplicate_fields_are_reported_in_their_order() {
    let body = r#"{"metadata":{"name":"w"},"data":{"a":"1","a":"2"},"foo":1}"#;
    let decoded = decode("core.v1.ConfigMap", body, Strictness::Warn).unwrap();
    assert_eq!(decoded.warnings, [r#"duplicate field "data.a""#, r#"unknown field "foo""#]);
    assert_eq!(decoded.value, json!({"metadata": {"name": "w"}, "data": {"a": "2"}}));
    assert!(decode("core.v1.ConfigMap", body, Strictness::Ignore).unwrap().warnings.is_empty());
    check_error("core.v1.ConfigMap", body, r#"strict decoding error: duplicate field "data.a", unknown field "foo""#);
    check_error(
        "apps.v1.Deployment",
        r#"{"spec":{"foo":1,"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"name":"c"},{"foo":{"x":[1]}}]}}}}"#,
        r#"strict decoding error: unknown field "spec.foo", duplicate field "spec.replicas", unknown field "spec.template.spec.containers[1].foo""#,
    );
}

#[test]
fn at_most_a_hundred_problems_are_reported() {
    let fields: Vec<String> = (0..150).map(|n| format!("\"f{n}\":1")).collect();
    let decoded = decode("core.v1.ConfigMap", &format!("{{{}}}", fields.join(",")), Strictness::Warn).unwrap();
    assert_eq!(decoded.warnings.len(), 100);
}

#[test]
fn a_value_of_another_type_is_named_as_go_names_it() {
    let unmarshal = |rest: &str| format!("json: cannot unmarshal {rest}");
    for (kind, body, rest) in [
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":"2"}}"#,
            "string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":1.5}}"#,
            "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps.v1.Deployment",
            r#"{"spec":{"replicas":3000000000}}"#,
            "number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps.v1.Deployment",
            r#"{"spec":[]}"#,
            "array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            "apps.v1.Deployment",
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "apps.v1.Deployment",
            r#"{"metadata":{"labels":["a"]}}"#,
            "array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":[{"name":true}]}}"#,
            "bool into Go struct field Container.spec.containers.name of type string",
        ),
        (
            "core.v1.Pod",
            r#"{"spec":{"containers":{}}}"#,
            "object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "core.v1.Pod",
            r#"{"metadata":{"creationTimestamp":1}}"#,
            "number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            "core.v1.Service",
            r#"{"spec":{"ports":[{"targetPort":[]}]}}"#,
            "array into Go struct field ServicePort.spec.ports.targetPort of type int32",
        ),
        ("core.v1.Secret", r#"{"data":{"a":1}}"#, "number into Go struct field Secret.data of type []uint8"),
        ("core.v1.Secret", "[]", "array into Go value of type v1.Secret"),
    ] {
        check_error(kind, body, &unmarshal(rest));
    }
}

#[test]
fn the_struct_of_an_error_is_the_one_around_the_field_also_behind_a_child() {
    check_error(
        "apps.v1.Deployment",
        r#"{"spec":{"selector":{"matchLabels":{}},"paused":1}}"#,
        "json: cannot unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool",
    );
}

#[test]
fn texts_with_rules_fail_with_their_rules_words() {
    let regex = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    for (quantity, expected) in [
        (r#""1x""#, regex),
        ("true", regex),
        ("{}", regex),
        (r#""1.2.3""#, "unable to parse numeric part of quantity"),
        (r#""1KiB""#, regex),
        (r#""1Kii""#, "unable to parse quantity's suffix"),
    ] {
        check_error("core.v1.ResourceRequirements", &format!(r#"{{"limits":{{"cpu":{quantity}}}}}"#), expected);
    }
    for (time, expected) in [
        ("yesterday", r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#),
        ("2026-11-22", r#"parsing time "2026-11-22" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#),
        ("2026-13-22T00:00:00Z", r#"parsing time "2026-13-22T00:00:00Z": month out of range"#),
        ("2026-02-30T00:00:00Z", r#"parsing time "2026-02-30T00:00:00Z": day out of range"#),
        ("2026-11-22T00:00:00Zé", r#"parsing time "2026-11-22T00:00:00Zé": extra text: "é""#),
    ] {
        check_error("core.v1.Pod", &format!(r#"{{"metadata":{{"deletionTimestamp":"{time}"}}}}"#), expected);
    }
    check_error(
        "coordination.v1.Lease",
        r#"{"spec":{"renewTime":"2026-11-22T10:31:34Z"}}"#,
        r#"parsing time "2026-11-22T10:31:34Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
    );
    for (text, byte) in [("a", 0), ("aGVs!", 4), ("aGVsbG8", 4), ("aGVs=", 4)] {
        check_error(
            "core.v1.Secret",
            &format!(r#"{{"data":{{"a":"{text}"}}}}"#),
            &format!("illegal base64 data at input byte {byte}"),
        );
    }
}

#[test]
fn a_text_that_is_no_json_fails_before_its_types_are_looked_at() {
    check_error("core.v1.ConfigMap", r#"{"metadata":"#, "unexpected end of JSON input");
    check_error(
        "apps.v1.Deployment",
        r#"{"spec":{"replicas":"2"},}"#,
        "invalid character '}' looking for beginning of object key string",
    );
    check_error("core.v1.ConfigMap", "{} {}", "invalid character '{' after top-level value");
}

#[test]
fn embedded_json_is_kept_as_it_is() {
    let fields = json!({"f:data": {".": {}, "f:a": {}}, "x": null, "y": 0});
    let body = json!({"metadata": {"managedFields": [{"manager": "m", "fieldsV1": fields}]}});
    let decoded = decode("core.v1.ConfigMap", &body.to_string(), Strictness::Strict).unwrap();
    assert_eq!(decoded.value, body);
    let data = json!({"metadata": {}, "data": {"spec": null}, "revision": 0});
    check("apps.v1.ControllerRevision", data.clone(), data);
}

#[test]
fn kind_and_version_are_read_without_a_type() {
    let meta = TypeMeta::of_json(br#"{"spec":{"kind":"x"},"kind":"Pod","apiVersion":"v1"}"#).unwrap();
    assert_eq!(meta, TypeMeta { api_version: "v1".into(), kind: "Pod".into() });
    assert_eq!(TypeMeta::of_json(b"{}"), Ok(TypeMeta::default()));
    let error = |text: &str| TypeMeta::of_json(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(error(r#"{"metadata":"#), "unexpected end of JSON input");
    assert_eq!(error(r#"{"kind":1}"#), "json: cannot unmarshal number into Go struct field .kind of type string");
    assert!(error("[]").starts_with("json: cannot unmarshal array into Go value of type struct {"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let schema = Schema::builtin();
        let id = schema.find("io.k8s.api.core.v1.Pod").unwrap();
        let _ = decode_json(&schema, id, &bytes, Strictness::Strict);
    }

    #[test]
    fn no_time_makes_it_panic(text in "[0-9]{4}-?.{0,30}") {
        let _ = scalar::time(&text);
        let _ = scalar::micro_time(&text);
        let _ = scalar::base64(&text);
        let _ = scalar::quantity(&text);
    }
}
