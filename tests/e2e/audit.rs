//! The audit log of a cluster that a user and a stranger talk to.

use serde_json::Value;

use crate::harness::{Cluster, Http, Options, Token, eventually};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ["/api*", "/openapi*", "/version", "/readyz"]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}]}
- {level: RequestResponse, resources: [{group: "", resources: [configmaps]}], omitManagedFields: true}
- {level: Metadata}
"#;

#[test]
fn requests_are_written_down_as_the_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let (log, policy) = (folder.path().join("audit.log"), folder.path().join("policy.yaml"));
    std::fs::write(&policy, POLICY).unwrap();
    let arguments = ["--nodes", "0", "--audit-log", log.to_str().unwrap(), "--audit-policy", policy.to_str().unwrap()];
    let Some(cluster) = Cluster::with(&Options { arguments: &arguments, memory: true, ..Options::default() }) else {
        return;
    };
    cluster.kubectl("create configmap a --from-literal=k=v");
    cluster.kubectl("create secret generic s --from-literal=k=hush");
    cluster.kubectl("get secrets --as jane --as-group system:masters");
    let stranger = Http::new(&cluster.kubeconfig(), Token::Other("wrong"));
    assert_eq!(stranger.get("/api/v1/pods").code, 401);
    cluster.kubectl("get --raw /api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1");
    let events = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect()
    };
    let find = |what: &str, holds: &dyn Fn(&Value) -> bool| {
        eventually(what, || events().into_iter().find(|event| holds(event)).ok_or("not there"))
    };
    let created = find("the ConfigMap's creation", &|event| {
        event["objectRef"]["resource"] == "configmaps" && event["verb"] == "create"
    });
    assert_eq!((created["kind"].as_str(), created["stage"].as_str()), (Some("Event"), Some("ResponseComplete")));
    assert_eq!((&created["objectRef"]["name"], &created["requestObject"]["data"]["k"]), (&"a".into(), &"v".into()));
    assert_eq!(created["responseObject"]["metadata"]["managedFields"], Value::Null);
    assert_eq!((&created["responseStatus"]["code"], &created["user"]["username"]), (&201.into(), &"admin".into()));
    assert!(created["userAgent"].as_str().unwrap().starts_with("kubectl/"), "{created}");
    assert_eq!(created["sourceIPs"][0], "127.0.0.1");
    let listed = find("jane's list", &|event| event["impersonatedUser"]["username"] == "jane");
    assert_eq!(listed["annotations"]["authorization.k8s.io/decision"], "allow");
    let stranger = find("the stranger", &|event| event["responseStatus"]["code"] == 401);
    assert_eq!(stranger["user"], serde_json::json!({}));
    let watch = |stage: &'static str| move |event: &Value| event["verb"] == "watch" && event["stage"] == stage;
    let begun = find("the begin of the watch", &watch("ResponseStarted"));
    let ended = find("the end of the watch", &watch("ResponseComplete"));
    assert_eq!(begun["auditID"], ended["auditID"]);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("aHVzaA==") && !text.contains("hush"), "Secrets have no bodies here");
    assert!(!text.contains("RequestReceived\"") && !text.contains("/openapi"), "{text}");
}

#[test]
fn a_policy_that_cannot_be_used_stops_the_start_with_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Loud}]}").unwrap();
    let mut command = crate::harness::program(folder.path());
    command.args(["up", "--memory", "--nodes", "0", "--listen", "127.0.0.1:0", "--audit-log", "log", "--audit-policy"]);
    let ran = command.arg(&policy).current_dir(folder.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{errors}");
    assert!(errors.starts_with("error: the audit policy cannot be used: ") && errors.contains("Loud"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
