//! What is wrong is answered with the code, the reason and the message that Kubernetes gives, and changes nothing.

use expect_test::{Expect, expect};
use serde_json::json;

use crate::harness::{Cluster, Http, Options, Token};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[test]
fn bad_input_is_refused_in_kubernetes_words() {
    let options = Options { arguments: &["--nodes", "0"], memory: true, ..Options::default() };
    let Some(cluster) = Cluster::with(&options) else { return };
    let before = cluster.get(CONFIG_MAPS);
    bodies_that_cannot_be_read(&cluster);
    objects_that_cannot_be(&cluster);
    paths_and_users(&cluster);
    kubectl_shows_it_in_one_line(&cluster);
    assert_eq!(cluster.get(CONFIG_MAPS)["items"], before["items"], "nothing was written");
    assert_eq!(cluster.get(DEPLOYMENTS)["items"], json!([]), "nothing was written");
    assert!(!cluster.output().contains("panicked"), "{}", cluster.output());
}

fn post(cluster: &Cluster, path: &str, kind: &str, body: impl Into<Vec<u8>>, expected: Expect) {
    let answer = cluster.http().send("POST", path, kind, body.into()).expect("the server answers");
    expected.assert_eq(&answer.status());
}

fn bodies_that_cannot_be_read(cluster: &Cluster) {
    let json = "application/json";
    post(
        cluster,
        CONFIG_MAPS,
        json,
        "{",
        expect![
            "400 BadRequest: the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({)"
        ],
    );
    post(
        cluster,
        CONFIG_MAPS,
        json,
        r#"{"kind": "ConfigMap" "apiVersion": "v1"}"#,
        expect![[
            r#"400 BadRequest: the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character '"' after object key:value pair ({"kind": "ConfigMap" "apiVersi ...)"#
        ]],
    );
    post(
        cluster,
        CONFIG_MAPS,
        "application/yaml",
        "a: [",
        expect!["400 BadRequest: error decoding YAML: yaml: line 1, column 4: unclosed bracket '['"],
    );
    post(
        cluster,
        CONFIG_MAPS,
        json,
        r#"{"data": {}}"#,
        expect![[
            r#"422 Invalid: ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#
        ]],
    );
    post(
        cluster,
        CONFIG_MAPS,
        json,
        r#"{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}}"#,
        expect![[
            r#"400 BadRequest: Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion"#
        ]],
    );
    post(
        cluster,
        CONFIG_MAPS,
        "text/plain",
        "x",
        expect![
            "415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        ],
    );
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let unknown = r#"{"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "dta": {}}"#;
    post(
        cluster,
        &strict,
        json,
        unknown,
        expect![[
            r#"400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dta""#
        ]],
    );
    let large =
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "x".repeat(3 << 20)}});
    post(
        cluster,
        CONFIG_MAPS,
        json,
        large.to_string(),
        expect!["413 RequestEntityTooLarge: Request entity too large: limit is 3145728"],
    );
    let large = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "x".repeat((1 << 20) + 1)}});
    post(
        cluster,
        CONFIG_MAPS,
        json,
        large.to_string(),
        expect![[r#"422 Invalid: ConfigMap "x" is invalid: []: Too long: may not be more than 1048576 bytes"#]],
    );
    let mistyped = json!({
        "kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "x"}, "spec": {"replicas": "three"},
    });
    post(
        cluster,
        DEPLOYMENTS,
        json,
        mistyped.to_string(),
        expect![[
            r#"400 BadRequest: Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#
        ]],
    );
}

fn objects_that_cannot_be(cluster: &Cluster) {
    let refused = |path: &str, body: serde_json::Value, expected: Expect| {
        expected.assert_eq(&cluster.http().json("POST", path, &body).status());
    };
    let template = |app: &str| json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = |spec: serde_json::Value| json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "x"}, "spec": spec});
    let mismatch = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template("b")});
    refused(
        DEPLOYMENTS,
        deployment(mismatch),
        expect![[
            r#"422 Invalid: Deployment.apps "x" is invalid: spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not match template `labels`"#
        ]],
    );
    let negative = json!({"replicas": -1, "selector": {"matchLabels": {"app": "a"}}, "template": template("a")});
    refused(
        DEPLOYMENTS,
        deployment(negative),
        expect![[
            r#"422 Invalid: Deployment.apps "x" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"#
        ]],
    );
    let config_map = |name: &str| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}});
    refused(
        CONFIG_MAPS,
        config_map("Under_score"),
        expect![[
            r#"422 Invalid: ConfigMap "Under_score" is invalid: metadata.name: Invalid value: "Under_score": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#
        ]],
    );
    refused(
        CONFIG_MAPS,
        config_map("kube-root-ca.crt"),
        expect![[r#"409 AlreadyExists: configmaps "kube-root-ca.crt" already exists"#]],
    );
    refused(
        "/api/v1/namespaces/nowhere/configmaps",
        config_map("x"),
        expect![[r#"404 NotFound: namespaces "nowhere" not found"#]],
    );
}

fn paths_and_users(cluster: &Cluster) {
    let get = |path: &str| cluster.http().get(path);
    expect!["404 NotFound: the server could not find the requested resource"]
        .assert_eq(&get("/api/v1/namespaces/default/gadgets").status());
    expect![[r#"404 NotFound: pods "nobody" not found"#]]
        .assert_eq(&get("/api/v1/namespaces/default/pods/nobody").status());
    expect!["400 BadRequest: unable to parse requirement: found '==', expected: identifier"]
        .assert_eq(&get("/api/v1/pods?labelSelector=%3D%3D").status());
    expect!["400 BadRequest: field label not supported: spec.color"]
        .assert_eq(&get("/api/v1/pods?fieldSelector=spec.color%3Dred").status());
    assert_eq!(get("/nowhere").code, 404);
    let post = cluster.http().json("POST", "/version", &json!({}));
    assert_eq!(post.code, 405, "{post:?}");
    let stranger = Http::new(&cluster.kubeconfig(), Token::Other("wrong"));
    expect!["401 Unauthorized: Unauthorized"].assert_eq(&stranger.get("/api/v1/pods").status());
    let nobody = Http::new(&cluster.kubeconfig(), Token::None);
    expect![[r#"403 Forbidden: pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" at the cluster scope"#]].assert_eq(&nobody.get("/api/v1/pods").status());
    expect![[r#"403 Forbidden: forbidden: User "system:anonymous" cannot get path "/metrics""#]]
        .assert_eq(&nobody.get("/metrics").status());
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(nobody.get(open).code, 200, "{open}");
    }
}

fn kubectl_shows_it_in_one_line(cluster: &Cluster) {
    let refused = |manifest: &str, expected: Expect| {
        cluster.write("bad.yaml", manifest);
        expected.assert_eq(&cluster.kubectl_fails("apply -f bad.yaml"));
    };
    refused(
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\ndta: {}\n",
        expect![[r#"
        Error from server (BadRequest): error when creating "bad.yaml": ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dta"
    "#]],
    );
    refused(
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\ndata: {a: 1}\n",
        expect![[r#"
        Error from server (BadRequest): error when creating "bad.yaml": ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string
    "#]],
    );
    refused(
        "kind: Gadget\napiVersion: v1\nmetadata: {name: x}\n",
        expect![[r#"
        error: resource mapping not found for name: "x" namespace: "" from "bad.yaml": no matches for kind "Gadget" in version "v1"
        ensure CRDs are installed first
    "#]],
    );
    refused(
        "kind: ConfigMap\n  apiVersion: v1\n",
        expect![[r"
        error: error parsing bad.yaml: error converting YAML to JSON: yaml: line 2: mapping values are not allowed in this context
    "]],
    );
    let pod = "kind: Pod\napiVersion: v1\nmetadata: {name: x}\nspec: {containers: [{name: a, image: i, imagePullPolicy: Sometimes}]}\n";
    refused(
        pod,
        expect![[r#"
        The Pod "x" is invalid: spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"
    "#]],
    );
}
