//! The beginner's walk: apply a Deployment, look at it, break it in the two ways everybody meets first, and heal it.

use std::time::Duration;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::harness::{Cluster, Mask, eventually_within};

const DEPLOYMENT: &str = include_str!("../../examples/web/deployment.yaml");
const CONFIG: &str = include_str!("../../examples/web/configmap.yaml");
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: express-api}
spec:
  type: NodePort
  selector: {app: express-api}
  ports: [{port: 80, targetPort: 3000, nodePort: 30981}]
";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[test]
fn a_beginner_deploys_breaks_and_heals_an_application() {
    let Some(cluster) = Cluster::up() else { return };
    deploys(&cluster);
    columns_are_those_of_kubernetes(&cluster);
    events_tell_what_happened(&cluster);
    an_image_that_is_not_there_backs_off_and_its_import_heals(&cluster);
    a_wrong_password_loops_and_the_right_one_heals(&cluster);
}

fn deploys(cluster: &Cluster) {
    expect![[r"
        configmap/express-api-config created
        deployment.apps/express-api-deployment created
        service/express-api created
    "]]
    .assert_eq(&cluster.apply(&format!("{CONFIG}\n---\n{DEPLOYMENT}\n---\n{SERVICE}")));
    let status = cluster.kubectl("rollout status deployment express-api-deployment --timeout=60s");
    assert!(status.ends_with("deployment \"express-api-deployment\" successfully rolled out\n"), "{status}");
}

fn columns_are_those_of_kubernetes(cluster: &Cluster) {
    let mask = mask(cluster);
    let get = |arguments: &str, expected: Expect| {
        expected.assert_eq(&mask.sorted(&cluster.kubectl(&format!("get {arguments}"))));
    };
    get(
        "pods",
        expect![[r"
            NAME  READY  STATUS  RESTARTS  AGE
            POD  1/1  Running  0  AGE
            POD  1/1  Running  0  AGE
            POD  1/1  Running  0  AGE
            POD  1/1  Running  0  AGE
        "]],
    );
    get(
        "pods -o wide -l app=express-api --field-selector status.phase=Running",
        expect![[r"
            NAME  READY  STATUS  RESTARTS  AGE  IP  NODE  NOMINATED NODE  READINESS GATES
            POD  1/1  Running  0  AGE  IP  NODE  <none>  <none>
            POD  1/1  Running  0  AGE  IP  NODE  <none>  <none>
            POD  1/1  Running  0  AGE  IP  NODE  <none>  <none>
            POD  1/1  Running  0  AGE  IP  NODE  <none>  <none>
        "]],
    );
    get(
        "deployments -o wide",
        expect![[r"
            NAME  READY  UP-TO-DATE  AVAILABLE  AGE  CONTAINERS  IMAGES  SELECTOR
            express-api-deployment  4/4  4  4  AGE  express-api-container  coracle.dev/examples/web:v1  app=express-api
        "]],
    );
    get(
        "rs",
        expect![[r"
            NAME  DESIRED  CURRENT  READY  AGE
            REPLICASET  4  4  4  AGE
        "]],
    );
    get(
        "svc",
        expect![[r"
            NAME  TYPE  CLUSTER-IP  EXTERNAL-IP  PORT(S)  AGE
            express-api  NodePort  IP  <none>  80:30981/TCP  AGE
            kubernetes  ClusterIP  IP  <none>  443/TCP  AGE
        "]],
    );
    get(
        "nodes",
        expect![[r"
            NAME  STATUS  ROLES  AGE  VERSION
            NODE  Ready  <none>  AGE  v1.36.0+coracle.0.1.0
        "]],
    );
}

fn events_tell_what_happened(cluster: &Cluster) {
    let pod = pods(cluster)[0].clone();
    expect![[r#"
        Type  Reason  Age  From  Message
        ----  ------  ----  ----  -------
        Normal  Scheduled  AGE  default-scheduler  Successfully assigned default/POD to NODE
        Normal  Pulled  AGE  kubelet  Container image "coracle.dev/examples/web:v1" already present on machine
        Normal  Created  AGE  kubelet  Container created
        Normal  Started  AGE  kubelet  Container started
    "#]]
    .assert_eq(&events(cluster, &format!("pod {}", name(&pod)), "Started"));
    expect![[r"
        Type  Reason  Age  From  Message
        ----  ------  ----  ----  -------
        Normal  ScalingReplicaSet  AGE  deployment-controller  Scaled up replica set REPLICASET from 0 to 4
    "]]
    .assert_eq(&events(cluster, "deployment express-api-deployment", "Scaled up"));
    expect![[r"
        Type  Reason  Age  From  Message
        ----  ------  ----  ----  -------
        Normal  SuccessfulCreate  AGE  replicaset-controller  Created pod: POD
        Normal  SuccessfulCreate  AGE  replicaset-controller  Created pod: POD
        Normal  SuccessfulCreate  AGE  replicaset-controller  Created pod: POD
        Normal  SuccessfulCreate  AGE  replicaset-controller  Created pod: POD
    "]]
    .assert_eq(&events(cluster, "rs", "Created pod"));
}

fn an_image_that_is_not_there_backs_off_and_its_import_heals(cluster: &Cluster) {
    const IMAGE: &str = "localhost:1/express-api:v2.1.1";
    cluster.kubectl(&format!("set image deployment/express-api-deployment express-api-container={IMAGE}"));
    let pod = waiting_pod(cluster, "ImagePullBackOff");
    expect![[r"
        NAME  READY  STATUS  RESTARTS  AGE
        POD  0/1  ImagePullBackOff  0  AGE
    "]]
    .assert_eq(&mask(cluster).apply(&cluster.kubectl(&format!("get pod {pod}"))));
    expect![[r#"
        Type  Reason  Age  From  Message
        ----  ------  ----  ----  -------
        Normal  Scheduled  AGE  default-scheduler  Successfully assigned default/POD to NODE
        Normal  Pulling  AGE  kubelet  Pulling image "localhost:1/express-api:v2.1.1"
        Warning  Failed  AGE  kubelet  Failed to pull image "localhost:1/express-api:v2.1.1": the registry localhost:1 cannot be asked: error sending request for url (http://localhost:1/v2/express-api/manifests/v2.1.1): client error (Connect): tcp connect error: Connection refused (os error 111); an image can be imported as well: `coracle image import localhost:1/express-api:v2.1.1 FILE`
        Warning  Failed  AGE  kubelet  Error: ErrImagePull
        Normal  BackOff  AGE  kubelet  Back-off pulling image "localhost:1/express-api:v2.1.1"
        Warning  Failed  AGE  kubelet  Error: ImagePullBackOff
    "#]]
    .assert_eq(&events(cluster, &format!("pod {pod}"), "Error: ImagePullBackOff"));
    let status = cluster.kubectl_fails("rollout status deployment/express-api-deployment --timeout=1s");
    assert_eq!(status, "error: timed out waiting for the condition\n");
    let (_, bytes) = coracle_cli::BUILTIN_IMAGES[1];
    std::fs::write(cluster.directory().join("hotfix.wasm"), bytes).expect("a file is written");
    cluster.coracle(&["image", "import", IMAGE, "hotfix.wasm"]).ok();
    cluster.kubectl("rollout status deployment/express-api-deployment --timeout=60s");
    expect![[r"
        NAME  READY  UP-TO-DATE  AVAILABLE  AGE  CONTAINERS  IMAGES  SELECTOR
        express-api-deployment  4/4  4  4  AGE  express-api-container  localhost:1/express-api:v2.1.1  app=express-api
    "]]
    .assert_eq(&mask(cluster).apply(&cluster.kubectl("get deployment -o wide")));
}

fn a_wrong_password_loops_and_the_right_one_heals(cluster: &Cluster) {
    cluster.apply(&CONFIG.replace("correct-horse", "wrong-horse"));
    cluster.kubectl("rollout restart deployment express-api-deployment");
    let pod = waiting_pod(cluster, "CrashLoopBackOff");
    expect![[r"
        NAME  READY  STATUS  RESTARTS  AGE
        POD  0/1  CrashLoopBackOff  1 (AGE ago)  AGE
    "]]
    .assert_eq(&mask(cluster).apply(&cluster.kubectl(&format!("get pod {pod}"))));
    let described = cluster.kubectl(&format!("describe pod {pod}"));
    let (_, state) = described.split_once("    State:").expect("it has a state");
    let (state, _) = state.split_once("    Limits:").expect("it has limits");
    expect![[r"
        State:  Waiting
              Reason:  CrashLoopBackOff
            Last State:  Terminated
              Reason:  Error
              Exit Code:  1
              Started:  TIME
              Finished:  TIME
            Ready:  False
            Restart Count:  1
    "]]
    .assert_eq(&mask(cluster).apply(&format!("State:{state}")));
    expect![[r#"
        Type  Reason  Age  From  Message
        ----  ------  ----  ----  -------
        Normal  Scheduled  AGE  default-scheduler  Successfully assigned default/POD to NODE
        Normal  Pulled  AGE (x2 over AGE)  kubelet  Container image "localhost:1/express-api:v2.1.1" already present on machine
        Normal  Created  AGE (x2 over AGE)  kubelet  Container created
        Normal  Started  AGE (x2 over AGE)  kubelet  Container started
        Warning  BackOff  AGE  kubelet  Back-off restarting failed container express-api-container in pod POD_default(UID); what it printed when it first failed: coracle logs POD -c express-api-container --instance first
    "#]]
    .assert_eq(&events(cluster, &format!("pod {pod}"), "BackOff"));
    let log = expect![[r#"
        express-api v2 is starting
        DatabaseConnectionError: db.example.internal: password authentication failed for user "express"
    "#]];
    log.assert_eq(&cluster.kubectl(&format!("logs {pod} --previous")));
    log.assert_eq(&cluster.coracle(&["logs", &pod, "-c", "express-api-container", "--instance", "first"]).ok());
    // The second restart comes ten seconds after the first failed, and the next only after twenty more.
    cluster.wait("it was restarted again", &format!("{PODS}/{pod}"), |pod| restarts(pod) == 2 && is_waiting(pod));
    cluster.apply(CONFIG);
    cluster.kubectl("rollout restart deployment express-api-deployment");
    cluster.kubectl("rollout status deployment express-api-deployment --timeout=60s");
    expect![[r"
        NAME  READY  UP-TO-DATE  AVAILABLE  AGE
        express-api-deployment  4/4  4  4  AGE
    "]]
    .assert_eq(&mask(cluster).apply(&cluster.kubectl("get deployment express-api-deployment")));
    eventually_within(Duration::from_mins(1), "four pods are left, none restarted", || {
        let pods = pods(cluster);
        if pods.len() == 4 && pods.iter().all(|pod| restarts(pod) == 0) { Ok(()) } else { Err(pods.len()) }
    });
}

/// Names that the server draws: pods, ReplicaSets, the node, and the pods' uids.
fn mask(cluster: &Cluster) -> Mask {
    let mut mask = Mask::new();
    for pod in pods(cluster) {
        let uid = pod["metadata"]["uid"].as_str().expect("a pod has a uid");
        mask = mask.name(name(&pod), "POD").name(uid, "UID");
    }
    let sets = cluster.get("/apis/apps/v1/namespaces/default/replicasets");
    for set in sets["items"].as_array().expect("a list has items") {
        mask = mask.name(name(set), "REPLICASET");
    }
    let nodes = cluster.get("/api/v1/nodes");
    mask.word(name(&nodes["items"][0]), "NODE")
}

fn pods(cluster: &Cluster) -> Vec<Value> {
    let list = cluster.get(PODS);
    list["items"].as_array().expect("a list has items").clone()
}

#[track_caller]
fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("an object has a name")
}

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0)
}

fn is_waiting(pod: &Value) -> bool {
    !pod["status"]["containerStatuses"][0]["state"]["waiting"].is_null()
}

/// The pod that comes to wait for this reason.
#[track_caller]
fn waiting_pod(cluster: &Cluster, reason: &str) -> String {
    let waits = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == json!(reason);
    eventually_within(Duration::from_mins(1), &format!("a pod waits: {reason}"), || {
        let pods = pods(cluster);
        pods.iter().find(|pod| waits(pod)).map(|pod| name(pod).to_owned()).ok_or(pods)
    })
}

/// The Events that `describe` shows once `last` is among them, because they are written behind what they tell of. Without
/// the probe's that came before the server listened, and the scheduler's while the old pods had the cores: whether there
/// are any depends on the machine.
fn events(cluster: &Cluster, what: &str, last: &str) -> String {
    eventually_within(Duration::from_mins(1), &format!("the Events of {what} tell of {last}"), || {
        let events = events_now(cluster, what);
        if events.contains(last) { Ok(events) } else { Err(events) }
    })
}

fn events_now(cluster: &Cluster, what: &str) -> String {
    let described = cluster.kubectl(&format!("describe {what}"));
    let (_, events) = described.split_once("Events:\n").unwrap_or_else(|| panic!("no Events: {described}"));
    mask(cluster)
        .apply(events)
        .lines()
        .filter(|line| !line.contains("Unhealthy") && !line.contains("FailedScheduling"))
        .fold(String::new(), |all, line| all + line.trim_start() + "\n")
}
