//! Events as kube-apiserver writes them, and what a policy wants of which request.

use coracle_api::Method;
use coracle_store::{Store, StoreOptions};

use super::*;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints, services]}]}
- {level: None, userGroups: ["system:authenticated"], nonResourceURLs: ["/api*", "/version"]}
- {level: Request, resources: [{group: "", resources: [configmaps]}], namespaces: [kube-system]}
- {level: Metadata, resources: [{group: "", resources: [secrets, configmaps, "pods/log", "*/status"]}]}
- {level: RequestResponse, resources: [{group: "", resources: [pods], resourceNames: [web]}], omitManagedFields: true}
- {level: Request, resources: [{group: "apps", resources: ["deployments/*"]}]}
- {level: Metadata, omitStages: [ResponseStarted], resources: [{group: "*"}]}
"#;

fn jane() -> UserInfo {
    UserInfo { name: "jane".into(), groups: vec!["system:authenticated".into()], ..UserInfo::default() }
}

fn arrival() -> Arrival {
    Arrival { id: "id".into(), uri: "/uri".into(), source: "192.0.2.7".into(), received: Timestamp::from_secs(1) }
}

fn level(user: &UserInfo, method: Method, path: &str) -> &'static str {
    let policy = Policy::parse(POLICY.as_bytes()).unwrap();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut request = Request::new(method, path, user.clone());
    if !query.is_empty() {
        request = request.query(query, "1");
    }
    Record::begin(&policy, &request, &arrival()).map_or("-", |record| record.recorded.level.as_str())
}

#[test]
fn the_first_rule_that_fits_says_how_much_is_recorded() {
    let get = |path| level(&jane(), Method::Get, path);
    assert_eq!(get("/api"), "-");
    assert_eq!(get("/version"), "-");
    assert_eq!(get("/healthz"), "-", "no rule fits");
    assert_eq!(get("/api/v1/namespaces/kube-system/configmaps/a"), "Request");
    assert_eq!(get("/api/v1/namespaces/default/configmaps/a"), "Metadata");
    assert_eq!(get("/api/v1/namespaces/default/pods/other/log"), "Metadata");
    assert_eq!(get("/api/v1/nodes/a/status"), "Metadata");
    assert_eq!(get("/api/v1/namespaces/default/pods/web"), "RequestResponse");
    assert_eq!(get("/apis/apps/v1/namespaces/default/deployments/web/scale"), "Request");
    assert_eq!(get("/apis/apps/v1/namespaces/default/deployments/web"), "Request", "as Kubernetes has it");
    assert_eq!(get("/apis/apps/v1/namespaces/default/replicasets"), "Metadata");
    let proxy = UserInfo { name: "system:kube-proxy".into(), ..UserInfo::default() };
    assert_eq!(level(&proxy, Method::Get, "/api/v1/services?watch"), "-");
    assert_eq!(level(&proxy, Method::Get, "/api/v1/services"), "Metadata");
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_with_what_is_wrong() {
    let refused = |text: &str| Policy::parse(text.as_bytes()).unwrap_err();
    let policy =
        |rule: &str| format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{{level: Metadata, {rule}}}]}}");
    assert!(refused("{apiVersion: v1, kind: ConfigMap, rules: []}").contains("not a Policy"));
    assert!(
        refused("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Everything}]}").contains("Everything")
    );
    assert!(refused(&policy("usrs: [a]")).contains("usrs"));
    let both = refused(&policy("namespaces: [a], nonResourceURLs: [/a]"));
    assert_eq!(both, "rules[0]: rules cannot apply to both regular resources and non-resource URLs");
    assert!(refused(&policy("nonResourceURLs: [\"/a*b\"]")).contains("must begin with '/'"));
    assert!(refused(&policy("resources: [{resourceNames: [a]}]")).contains("at least one resource"));
    assert!(refused("{").contains("line 1"));
}

fn events(policy: &Policy, request: &Request, answered: Answered) -> Vec<Value> {
    let view = Store::new(StoreOptions::default()).view();
    let options = ServerOptions::default();
    let Some(mut record) = Record::begin(policy, request, &arrival()) else { return Vec::new() };
    let now = Timestamp::from_secs(2);
    let mut lines = vec![record.line(Stage::RequestReceived, None, now)];
    record.arrived(&options, &view, request);
    lines.push(record.line(Stage::ResponseComplete, Some(answered), now));
    lines.into_iter().flatten().map(|line| serde_json::from_str(&line).unwrap()).collect()
}

#[test]
fn an_event_says_who_did_what_to_which_object_and_how_it_ended() {
    let object = json!({"metadata": {"name": "a", "uid": "u"}, "data": {"k": "v"}});
    let mut request = Request::new(Method::Post, "/api/v1/namespaces/default/configmaps", UserInfo::admin("admin"));
    request.user_agent = Some("kubectl/v1.36".into());
    let request = request.json(object.clone());
    let found = events(&Policy::metadata(), &request, Answered::Code(201, Some(object.clone())));
    assert_eq!(found[0]["stage"], "RequestReceived");
    let expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "id", "stage": "ResponseComplete",
        "requestURI": "/uri", "verb": "create",
        "user": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "sourceIPs": ["192.0.2.7"], "userAgent": "kubectl/v1.36",
        "objectRef": {"resource": "configmaps", "namespace": "default", "name": "a", "uid": "u", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201},
        "requestReceivedTimestamp": "1970-01-01T00:00:01.000000Z", "stageTimestamp": "1970-01-01T00:00:02.000000Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
    });
    assert_eq!(found[1], expected, "no body at this level");
    let all = Policy::parse(b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: RequestResponse}]}").unwrap();
    let found = events(&all, &request, Answered::Code(201, Some(object.clone())));
    assert_eq!((&found[1]["requestObject"], &found[1]["responseObject"]), (&object, &object));
}

#[test]
fn a_refusal_and_an_impersonation_are_written_down() {
    let request = Request::new(Method::Delete, "/api/v1/namespaces/default/secrets/s", jane());
    let refused = Answered::Failed(Status::failure(403, Some(coracle_api::Reason::Forbidden), "no"));
    let found = events(&Policy::metadata(), &request, refused);
    assert_eq!(found[1]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        found[1]["responseStatus"],
        json!({"metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden", "code": 403})
    );
    let mut request = Request::new(Method::Get, "/api/v1/pods", UserInfo::admin("admin"));
    request.headers.push(("impersonate-user".into(), "jane".into()));
    let found = events(&Policy::metadata(), &request, Answered::Code(200, None));
    assert_eq!(found[1]["user"]["username"], "admin");
    assert_eq!(found[1]["impersonatedUser"]["username"], "jane");
}

#[test]
fn what_is_too_long_is_left_out_and_managed_fields_where_the_policy_says_so() {
    let all = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitManagedFields: true, rules: [{level: RequestResponse}]}";
    let all = Policy::parse(all.as_bytes()).unwrap();
    let path = "/api/v1/namespaces/default/configmaps/a";
    let object = |data: &str| json!({"metadata": {"name": "a", "managedFields": [{}]}, "data": {"k": data}});
    let request = Request::new(Method::Put, path, jane()).json(object("v"));
    let list = json!({"items": [object("v")], "rows": [{"object": object("v")}]});
    let found = events(&all, &request, Answered::Code(200, Some(list)));
    assert!(!found[1].to_string().contains("managedFields"), "{}", found[1]);
    let request = Request::new(Method::Put, path, jane()).json(object(&"x".repeat(EVENT_BYTES_MAX)));
    let found = events(&all, &request, Answered::Code(200, None));
    assert_eq!(found[1]["requestObject"], Value::Null);
    assert_eq!(found[1]["annotations"]["audit.k8s.io/truncated"], "true");
    assert!(shortened(&"é".repeat(1000)).ends_with("é...TRUNCATED"));
}
