use coracle_api::resources;
use serde_json::{Value, json};

use super::PodStrategy;
use crate::kinds::testing::{World, texts};
use crate::strategy::Strategy;

fn account(extra: &Value) -> Value {
    let mut account = json!({"metadata": {"name": "default", "namespace": "default"}});
    account.as_object_mut().unwrap().append(&mut extra.as_object().unwrap().clone());
    account
}

fn world() -> World {
    World::new().with(&resources::SERVICE_ACCOUNTS, account(&json!({})))
}

fn bare() -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p1", "namespace": "default"},
        "spec": {"containers": [{"name": "a", "image": "busybox"}]}})
}

#[track_caller]
fn created(mut world: World, mut pod: Value) -> Value {
    world.create(&PodStrategy, &mut pod).unwrap();
    pod
}

#[track_caller]
fn refused(mut world: World, mut pod: Value) -> String {
    world.create(&PodStrategy, &mut pod).unwrap_err().message
}

#[test]
fn a_new_pod_is_the_recorded_one() {
    let mut pod = created(world(), bare());
    let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!(volume.strip_prefix("kube-api-access-").map(str::len), Some(5));
    // The name's end is random.
    pod["spec"]["volumes"][0]["name"] = "kube-api-access-66fhb".into();
    pod["spec"]["containers"][0]["volumeMounts"][0]["name"] = "kube-api-access-66fhb".into();
    let recorded: Value = serde_json::from_str(
        r#"{"volumes":[{"name":"kube-api-access-66fhb","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}},{"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}],"defaultMode":420}}],"containers":[{"name":"a","image":"busybox","resources":{},"volumeMounts":[{"name":"kube-api-access-66fhb","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"Always"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","securityContext":{},"schedulerName":"default-scheduler","tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"}"#,
    )
    .unwrap();
    assert_eq!(pod["spec"], recorded);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert!(PodStrategy.validate(&pod, None, "").is_empty());
    let again = pod.clone();
    PodStrategy.default(&mut pod);
    assert_eq!(pod, again);
}

#[test]
fn a_pod_needs_its_service_account() {
    assert_eq!(
        refused(World::new(), bare()),
        "pods \"p1\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
}

#[test]
fn the_account_may_keep_its_token_and_give_its_pull_secrets() {
    let extra = json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "registry"}]});
    let world = World::new().with(&resources::SERVICE_ACCOUNTS, account(&extra));
    let spec = &created(world, bare())["spec"];
    assert_eq!(spec.get("volumes"), None);
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
}

#[test]
fn the_priority_comes_from_the_class() {
    let mut pod = bare();
    pod["spec"]["priorityClassName"] = "system-node-critical".into();
    assert_eq!(created(world(), pod.clone())["spec"]["priority"], 2_000_001_000);
    pod["spec"]["priorityClassName"] = "nope".into();
    assert_eq!(refused(world(), pod), "pods \"p1\" is forbidden: no PriorityClass with name nope was found");
    let class = json!({"metadata": {"name": "low"}, "value": 7, "globalDefault": true, "preemptionPolicy": "Never"});
    let spec = &created(world().with(&resources::PRIORITY_CLASSES, class), bare())["spec"];
    assert_eq!((&spec["priorityClassName"], &spec["priority"]), (&json!("low"), &json!(7)));
    assert_eq!(spec["preemptionPolicy"], "Never");
    let mut given = bare();
    given["spec"]["priority"] = 3.into();
    assert_eq!(
        refused(world(), given),
        "pods \"p1\" is forbidden: the integer value of priority (3) must not be provided in pod spec; priority admission \
         controller computed 0 from the given PriorityClass name"
    );
}

#[test]
fn the_runtime_class_is_there_and_adds_what_it_says() {
    let mut pod = bare();
    pod["spec"]["runtimeClassName"] = "wasmtime".into();
    assert_eq!(
        refused(world(), pod.clone()),
        "pods \"p1\" is forbidden: pod rejected: RuntimeClass \"wasmtime\" not found"
    );
    let class = json!({"metadata": {"name": "wasmtime"}, "handler": "wasmtime", "overhead": {"podFixed": {"memory": "8Mi"}},
        "scheduling": {"nodeSelector": {"wasm": "yes"}, "tolerations": [{"key": "wasm", "operator": "Exists"}]}});
    let with_class = || world().with(&resources::RUNTIME_CLASSES, class.clone());
    let spec = &created(with_class(), pod.clone())["spec"];
    assert_eq!(spec["overhead"], json!({"memory": "8Mi"}));
    assert_eq!(spec["nodeSelector"], json!({"wasm": "yes"}));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 3);
    pod["spec"]["nodeSelector"] = json!({"wasm": "no"});
    assert!(
        refused(with_class(), pod)
            .ends_with("conflict: runtimeClass.scheduling.nodeSelector[wasm] = yes; pod.spec.nodeSelector[wasm] = no")
    );
    let mut overhead = bare();
    overhead["spec"]["overhead"] = json!({"cpu": "1"});
    assert!(
        refused(world(), overhead).ends_with("Pod Overhead set without corresponding RuntimeClass defined Overhead")
    );
}

#[test]
fn a_gated_pod_waits_and_says_why() {
    let mut pod = bare();
    pod["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
    let pod = created(world(), pod);
    assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
}

#[test]
fn only_a_few_fields_of_a_pod_may_change() {
    let old = created(world(), bare());
    let change = |edit: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        edit(&mut new);
        world().update(&PodStrategy, "", &mut new, &old).unwrap();
        texts(PodStrategy.validate(&new, Some(&old), ""))
    };
    let wrong = change(&|pod| pod["spec"]["hostNetwork"] = true.into());
    let start = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
        tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n@@ -";
    assert!(wrong[0].starts_with(start), "{}", wrong[0]);
    assert!(wrong[0].contains("\n+  \"hostNetwork\": true,\n"), "{}", wrong[0]);
    assert!(change(&|pod| pod["spec"]["containers"][0]["image"] = "busybox:2".into()).is_empty());
    assert!(change(&|pod| pod["spec"]["activeDeadlineSeconds"] = 5.into()).is_empty());
    assert_eq!(
        change(&|pod| pod["spec"]["containers"][0]["image"] = " b".into()),
        ["spec.containers[0].image: Invalid value: \" b\": must not have leading or trailing whitespace"]
    );
    assert_eq!(
        change(&|pod| pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "b", "image": "b"}))),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    assert_eq!(
        change(&|pod| pod["spec"]["tolerations"] = json!([])),
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    );
    assert_eq!(
        change(&|pod| pod["spec"]["schedulingGates"] = json!([{"name": "g"}])),
        ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"]
    );
}

#[test]
fn a_status_keeps_the_spec_and_the_class() {
    let old = created(world(), bare());
    let mut new = old.clone();
    new["spec"] = json!({});
    new["status"] = json!({"phase": "Running"});
    world().update(&PodStrategy, "status", &mut new, &old).unwrap();
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["status"], json!({"phase": "Running", "qosClass": "BestEffort"}));
    assert!(PodStrategy.validate(&new, Some(&old), "status").is_empty());
    let mut other = new.clone();
    other["status"]["qosClass"] = "Burstable".into();
    assert_eq!(
        texts(PodStrategy.validate(&other, Some(&old), "status")),
        ["status.qosClass: Invalid value: \"Burstable\": field is immutable"]
    );
}

#[test]
fn a_container_that_is_not_restarted_stays_ended() {
    let status = |state: Value| json!({"containerStatuses": [{"name": "a", "state": state}]});
    let pod = |state: Value| json!({"spec": {"restartPolicy": "Never"}, "status": status(state)});
    let (old, new) = (pod(json!({"terminated": {"exitCode": 1}})), pod(json!({"running": {}})));
    assert_eq!(
        texts(PodStrategy.validate(&new, Some(&old), "status")),
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
}

#[test]
fn binding_changes_no_generation_and_a_new_image_does() {
    let old = created(world(), bare());
    let mut bound = old.clone();
    bound["spec"]["nodeName"] = "n".into();
    assert!(!PodStrategy.generation_changed(&bound, &old));
    bound["spec"]["containers"][0]["image"] = "other".into();
    assert!(PodStrategy.generation_changed(&bound, &old));
}

#[test]
fn every_selectable_field_has_a_value() {
    let attributes = PodStrategy.attributes(&created(world(), bare()));
    let names: Vec<&str> = attributes.keys().map(String::as_str).collect();
    assert_eq!(names, PodStrategy.selectable_fields());
    assert_eq!((&*attributes["status.phase"], &*attributes["spec.hostNetwork"]), ("Pending", "false"));
}
