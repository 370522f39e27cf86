//! Every command that the guides of Kubernetes use, each at least once, against one cluster.

use std::process::Stdio;

use expect_test::expect;

use crate::harness::{Cluster, Guest, Mask, Options, eventually};

const NAMESPACE: &str = "shop";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: 'shop/web:v1'}]
";

#[test]
fn the_commands_of_the_guides_work() {
    let Some(cluster) = Cluster::with(&Options { memory: true, ..Options::default() }) else { return };
    for version in ["v1", "v2"] {
        let guest = Guest::new().print(&format!("web {version}\n")).sleep(60_000);
        cluster.import(&format!("shop/web:{version}"), &guest.wat());
    }
    creating(&cluster);
    reading(&cluster);
    describing(&cluster);
    logs(&cluster);
    changing(&cluster);
    rolling(&cluster);
    server_side_apply(&cluster);
    asking_about_the_server(&cluster);
    watching(&cluster);
    deleting(&cluster);
}

fn creating(cluster: &Cluster) {
    let done = |arguments: &str, said: &str| assert_eq!(cluster.kubectl(arguments), format!("{said}\n"));
    done("create namespace shop", "namespace/shop created");
    cluster.kubectl("config set-context coracle --namespace shop");
    done("create configmap settings --from-literal=a=1 --from-literal=b=2", "configmap/settings created");
    done("create secret generic keys --from-literal=key=hush", "secret/keys created");
    done("create deployment idle --image=shop/web:v1 --replicas=0", "deployment.apps/idle created");
    done("run single --image=shop/web:v1 --port=8080 --labels=app=single", "pod/single created");
    done("expose pod single --port=80 --target-port=8080", "service/single exposed");
    assert_eq!(cluster.apply(WEB), "deployment.apps/web created\n");
    assert_eq!(cluster.apply(WEB), "deployment.apps/web unchanged\n");
    done("wait --for=condition=Available deployment/web --timeout=60s", "deployment.apps/web condition met");
    done("wait --for=condition=Ready pod/single --timeout=60s", "pod/single condition met");
    done("wait --for=jsonpath={.status.phase}=Running pod/single --timeout=60s", "pod/single condition met");
}

fn reading(cluster: &Cluster) {
    let mask = mask(cluster);
    expect![[r"
        NAME  READY  STATUS  RESTARTS  AGE
        pod/single  1/1  Running  0  AGE
        pod/POD  1/1  Running  0  AGE
        pod/POD  1/1  Running  0  AGE
        NAME  TYPE  CLUSTER-IP  EXTERNAL-IP  PORT(S)  AGE
        service/single  ClusterIP  IP  <none>  80/TCP  AGE
        NAME  READY  UP-TO-DATE  AVAILABLE  AGE
        deployment.apps/idle  0/0  0  0  AGE
        deployment.apps/web  2/2  2  2  AGE
        NAME  DESIRED  CURRENT  READY  AGE
        replicaset.apps/IDLE  0  0  0  AGE
        replicaset.apps/SET  2  2  2  AGE
    "]]
    .assert_eq(&mask.apply(&cluster.kubectl("get all")).replace("\n\n", "\n"));
    let first = |arguments: &str| cluster.kubectl(arguments).lines().next().unwrap_or_default().to_owned();
    let headings = [
        "namespaces",
        "nodes",
        "pods",
        "services",
        "endpoints",
        "endpointslices",
        "configmaps",
        "secrets",
        "serviceaccounts",
        "events",
        "deployments",
        "replicasets",
        "priorityclasses",
        "leases -n kube-system",
        "controllerrevisions",
        "runtimeclasses",
    ]
    .map(|kind| {
        let table = mask.apply(&cluster.kubectl(&format!("get {kind}")));
        format!("{kind}: {}", table.lines().next().unwrap_or("nothing"))
    });
    expect![[r"
        namespaces: NAME  STATUS  AGE
        nodes: NAME  STATUS  ROLES  AGE  VERSION
        pods: NAME  READY  STATUS  RESTARTS  AGE
        services: NAME  TYPE  CLUSTER-IP  EXTERNAL-IP  PORT(S)  AGE
        endpoints: NAME  ENDPOINTS  AGE
        endpointslices: NAME  ADDRESSTYPE  PORTS  ENDPOINTS  AGE
        configmaps: NAME  DATA  AGE
        secrets: NAME  TYPE  DATA  AGE
        serviceaccounts: NAME  AGE
        events: LAST SEEN  TYPE  REASON  OBJECT  MESSAGE
        deployments: NAME  READY  UP-TO-DATE  AVAILABLE  AGE
        replicasets: NAME  DESIRED  CURRENT  READY  AGE
        priorityclasses: NAME  VALUE  GLOBAL-DEFAULT  AGE  PREEMPTIONPOLICY
        leases -n kube-system: nothing
        controllerrevisions: nothing
        runtimeclasses: NAME  HANDLER  AGE"]]
    .assert_eq(&headings.join("\n"));
    assert!(first("get pods -o wide").contains("NOMINATED NODE"));
    assert!(first("get pods -A").starts_with("NAMESPACE"));
    assert_eq!(cluster.kubectl("get pods -l app=single -o name"), "pod/single\n");
    assert_eq!(cluster.kubectl("get pods -l app!=single,app -o name").lines().count(), 2);
    assert_eq!(cluster.kubectl("get pods --field-selector metadata.name=single -o name"), "pod/single\n");
    assert_eq!(cluster.kubectl("get pods --field-selector status.phase!=Running -o name"), "");
    assert_eq!(cluster.kubectl("get configmap settings -o jsonpath={.data.b}"), "2");
    assert_eq!(cluster.kubectl("get secret keys -o go-template={{.data.key}}"), "aHVzaA==");
    assert!(cluster.kubectl("get deployment web -o yaml").contains("\n  replicas: 2\n"));
    assert!(cluster.kubectl("get deployment web -o json").contains("\"replicas\": 2"));
    assert!(first("get pods --show-labels").ends_with("LABELS"));
    assert!(first("get pods -L app").ends_with("APP"));
    assert_eq!(
        cluster
            .kubectl("get pods --sort-by=.metadata.name -o custom-columns=N:.metadata.name --no-headers")
            .lines()
            .count(),
        3
    );
    assert_eq!(cluster.kubectl_fails("get pod nobody"), "Error from server (NotFound): pods \"nobody\" not found\n");
    assert_eq!(cluster.kubectl_fails("get gadgets"), "error: the server doesn't have a resource type \"gadgets\"\n");
}

fn mask(cluster: &Cluster) -> Mask {
    let mut mask = Mask::new();
    let list = |path: &str| cluster.get(path)["items"].as_array().cloned().unwrap_or_default();
    let name = |object: &serde_json::Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    for pod in list("/api/v1/namespaces/shop/pods").iter().map(name).filter(|pod| pod != "single") {
        mask = mask.name(&pod, "POD");
    }
    for set in list("/apis/apps/v1/namespaces/shop/replicasets").iter().map(name) {
        mask = mask.name(&set, if set.starts_with("idle") { "IDLE" } else { "SET" });
    }
    mask
}

fn describing(cluster: &Cluster) {
    for (what, text) in [
        ("pod single", "Status:           Running|IP:               10.42."),
        (
            "deployment web",
            "StrategyType:           RollingUpdate|Replicas:               2 desired | 2 updated | 2 total",
        ),
        ("replicaset", "Controlled By:  Deployment/web"),
        ("service single", "TargetPort:               8080/TCP|Endpoints:                10.42."),
        ("configmap settings", "a:\n----\n1"),
        ("secret keys", "key:  4 bytes"),
        ("serviceaccount default", "Image pull secrets:  <none>"),
        ("namespace shop", "Status:       Active"),
        ("node", "Non-terminated Pods:          (3 in total)"),
        ("endpoints single", "NotReadyAddresses:  <none>"),
        ("endpointslice", "AddressType:  IPv4"),
    ] {
        let described = cluster.kubectl(&format!("describe {what}"));
        let missing: Vec<&str> = text.split('|').filter(|part| !described.contains(part)).collect();
        assert!(missing.is_empty(), "{missing:?} is not in\n{described}");
    }
}

fn logs(cluster: &Cluster) {
    assert_eq!(cluster.kubectl("logs single"), "web v1\n");
    assert_eq!(cluster.kubectl("logs single -c single --tail=1 --since=1h"), "web v1\n");
    assert_eq!(cluster.kubectl("logs single --tail=0"), "");
    let stamped = cluster.kubectl("logs single --timestamps");
    assert!(stamped.starts_with("20") && stamped.ends_with("Z web v1\n"), "{stamped}");
    assert!(cluster.kubectl("logs deployment/web").ends_with("web v1\n"));
    assert_eq!(cluster.kubectl("logs -l app=web --prefix").lines().count(), 2);
    assert_eq!(cluster.kubectl_fails("logs single -c other"), "error: container other is not valid for pod single\n");
    assert_eq!(
        cluster.kubectl_fails("logs single --previous"),
        "Error from server (BadRequest): previous terminated container \"single\" in pod \"single\" not found\n"
    );
    cluster.import("shop/counter:v1", &Guest::new().print("tick\n").sleep(200).for_ever().wat());
    cluster.kubectl("run counter --image=shop/counter:v1 --restart=Never");
    cluster.kubectl("wait --for=condition=Ready pod/counter --timeout=60s");
    let mut follow =
        cluster.kubectl_command(&["logs", "-f", "counter"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().expect("it is piped")));
    for _ in 0..3 {
        assert_eq!(lines.next().expect("it goes on").expect("it can be read"), "tick");
    }
    let _ = follow.kill();
    let _ = follow.wait();
    cluster.kubectl("delete pod counter --grace-period=0 --force");
}

fn changing(cluster: &Cluster) {
    let done = |arguments: &str, said: &str| assert_eq!(cluster.kubectl(arguments), format!("{said}\n"));
    done("label pod single tier=front", "pod/single labeled");
    assert_eq!(
        cluster.kubectl_fails("label pod single tier=back"),
        "error: 'tier' already has a value (front), and --overwrite is false\n"
    );
    done("label pod single tier-", "pod/single unlabeled");
    done("annotate pod single note=x", "pod/single annotated");
    done(r#"patch configmap settings -p {"data":{"a":"3"}}"#, "configmap/settings patched");
    done(r#"patch configmap settings --type=merge -p {"data":{"b":null}}"#, "configmap/settings patched");
    done(
        r#"patch configmap settings --type=json -p [{"op":"add","path":"/data/c","value":"4"}]"#,
        "configmap/settings patched",
    );
    assert_eq!(cluster.kubectl("get configmap settings -o jsonpath={.data}"), r#"{"a":"3","c":"4"}"#);
    let editor = [("KUBE_EDITOR", r#"sed -i 's/a: "3"/a: "5"/'"#)];
    let edit = cluster.run_with(&["edit", "configmap", "settings"], &editor, None);
    assert_eq!(edit.ok(), "configmap/settings edited\n");
    assert_eq!(cluster.kubectl("get configmap settings -o jsonpath={.data.a}"), "5");
    cluster.write("settings.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: '6'}\n");
    let diff = cluster.run(&["diff", "-f", "settings.yaml"]);
    assert_eq!(diff.code, Some(1), "there is a difference: {diff:?}");
    assert!(diff.stdout.contains("\n+  a: \"6\"\n"), "{diff:?}");
    done("replace -f settings.yaml", "configmap/settings replaced");
    assert_eq!(cluster.kubectl("get configmap settings -o jsonpath={.data}"), r#"{"a":"6"}"#);
    done("apply -f settings.yaml --dry-run=server", "configmap/settings configured (server dry run)");
    done("scale deployment web --replicas=3", "deployment.apps/web scaled");
    done(
        "wait --for=jsonpath={.status.readyReplicas}=3 deployment/web --timeout=60s",
        "deployment.apps/web condition met",
    );
    done("scale deployment web --replicas=1 --current-replicas=3", "deployment.apps/web scaled");
    assert!(
        cluster
            .kubectl_fails("scale deployment web --replicas=1 --current-replicas=7")
            .contains("Expected replicas to be 7, was 1")
    );
}

fn rolling(cluster: &Cluster) {
    let done = |arguments: &str, said: &str| assert_eq!(cluster.kubectl(arguments), format!("{said}\n"));
    let image = || cluster.kubectl("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}");
    let rolled_out = || {
        let said = cluster.kubectl("rollout status deployment/web --timeout=60s");
        assert!(said.ends_with("deployment \"web\" successfully rolled out\n"), "{said}");
    };
    done("set image deployment/web web=shop/web:v2", "deployment.apps/web image updated");
    rolled_out();
    done("annotate deployment web kubernetes.io/change-cause=two", "deployment.apps/web annotated");
    eventually("the revisions are listed", || {
        let history = cluster.kubectl("rollout history deployment/web");
        let lines: Vec<String> =
            history.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = ["deployment.apps/web", "REVISION CHANGE-CAUSE", "1 <none>", "2 two", ""];
        if lines == expected { Ok(()) } else { Err(history) }
    });
    assert!(cluster.kubectl("rollout history deployment/web --revision=1").contains("shop/web:v1"));
    done("rollout undo deployment/web", "deployment.apps/web rolled back");
    assert_eq!(image(), "shop/web:v1");
    rolled_out();
    done("rollout undo deployment/web --to-revision=2", "deployment.apps/web rolled back");
    assert_eq!(image(), "shop/web:v2");
    rolled_out();
    let generation = |number: &str| cluster.get(&format!("{DEPLOYMENTS}/web"))["status"][number].clone();
    done("rollout pause deployment/web", "deployment.apps/web paused");
    done("set env deployment/web COLOR=blue", "deployment.apps/web env updated");
    cluster.wait("a paused one is looked at", &format!("{DEPLOYMENTS}/web"), |it| {
        it["status"]["observedGeneration"] == it["metadata"]["generation"]
    });
    assert!(generation("updatedReplicas").is_null(), "and nothing is rolled out");
    done("rollout resume deployment/web", "deployment.apps/web resumed");
    rolled_out();
    done("rollout restart deployment/web", "deployment.apps/web restarted");
    rolled_out();
}

fn server_side_apply(cluster: &Cluster) {
    let manifest =
        |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: shared}}\ndata: {{a: '{value}'}}\n");
    cluster.write("shared.yaml", &manifest("1"));
    let applied = "configmap/shared serverside-applied\n";
    assert_eq!(cluster.kubectl("apply --server-side -f shared.yaml"), applied);
    assert_eq!(cluster.kubectl("apply --server-side -f shared.yaml --field-manager=other"), applied);
    cluster.write("shared.yaml", &manifest("2"));
    let conflict = cluster.kubectl_fails("apply --server-side -f shared.yaml --field-manager=other");
    assert!(
        conflict.starts_with("error: Apply failed with 1 conflict: conflict with \"kubectl\": .data.a\n"),
        "{conflict}"
    );
    assert_eq!(cluster.kubectl("apply --server-side -f shared.yaml --field-manager=other --force-conflicts"), applied);
    let managers = "get configmap shared --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}";
    assert_eq!(cluster.kubectl(managers), "other");
}

fn asking_about_the_server(cluster: &Cluster) {
    assert!(cluster.kubectl("version").contains("Server Version: v1.36."));
    assert!(cluster.kubectl("cluster-info").contains("Kubernetes control plane"));
    let resources = cluster.kubectl("api-resources --no-headers");
    let names: Vec<&str> = resources.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for name in ["pods", "deployments", "endpointslices", "leases", "runtimeclasses", "priorityclasses"] {
        assert!(names.contains(&name), "{resources}");
    }
    assert!(cluster.kubectl("api-versions").contains("\nv1\n"));
    let explained = cluster.kubectl("explain deployment.spec.replicas");
    assert!(explained.contains("GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n"), "{explained}");
    assert!(explained.contains("FIELD: replicas <integer>"), "{explained}");
    assert!(explained.contains("Number of desired pods."), "{explained}");
    let explained = cluster.kubectl("explain deployment --recursive");
    assert!(explained.contains("Deployment enables declarative updates for Pods and ReplicaSets."), "{explained}");
    assert_eq!(cluster.kubectl("auth can-i delete nodes"), "yes\n");
    assert!(cluster.kubectl("auth whoami").contains("system:masters"));
    let token = cluster.kubectl("create token default --duration=10m");
    let account = format!(
        "auth whoami --kubeconfig /dev/null --server https://{} --token {token} --insecure-skip-tls-verify",
        cluster.address()
    );
    assert!(cluster.kubectl(&account).contains("system:serviceaccount:shop:default"), "{token}");
    assert!(cluster.kubectl("get --raw /readyz").starts_with("ok"));
    teammates(cluster);
    images(cluster);
}

fn images(cluster: &Cluster) {
    let images = cluster.coracle(&["image", "ls"]).ok();
    let line =
        |name: &str| images.lines().find(|line| line.starts_with(name)).unwrap_or_default().trim_end().to_owned();
    assert!(line("coracle.dev/examples/web:v1 ").ends_with(" built in"), "{images}");
    assert!(line("shop/web:v1 ").ends_with('Z'), "{images}");
    let refused = cluster.coracle(&["image", "rm", "coracle.dev/examples/web:v1"]).fails();
    assert_eq!(refused, "error: image \"coracle.dev/examples/web:v1\" is built into the program\n");
}

fn teammates(cluster: &Cluster) {
    let said = cluster.coracle(&["user", "add", "jane", "--group", "team"]).ok();
    assert!(said.starts_with("jane.kubeconfig lets jane use the cluster until 2"), "{said}");
    let whoami = cluster.kubectl("auth whoami --kubeconfig jane.kubeconfig");
    assert!(whoami.contains("jane") && whoami.contains("team"), "{whoami}");
    assert_eq!(
        cluster.kubectl_fails("get nodes --kubeconfig jane.kubeconfig"),
        "Error from server (Forbidden): nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope\n"
    );
    let again = cluster.coracle(&["user", "add", "jane"]).fails();
    assert_eq!(again, "error: jane.kubeconfig is there already; name another file with --output\n");
}

fn watching(cluster: &Cluster) {
    let mut watch = cluster.kubectl_command(&["get", "configmaps", "-w", "--output-watch-events", "-o", "name"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().expect("it is piped")));
    let mut until = |text: &str| lines.by_ref().map_while(Result::ok).any(|line| line.contains(text));
    assert!(until("configmap/settings"), "what is there comes first");
    cluster.kubectl("create configmap watched --from-literal=a=b");
    assert!(until("configmap/watched"), "then what is new");
    let _ = watch.kill();
    let _ = watch.wait();
}

fn deleting(cluster: &Cluster) {
    assert_eq!(cluster.kubectl("delete deployment web --cascade=orphan"), "deployment.apps \"web\" deleted\n");
    let sets = || cluster.kubectl("get replicasets -l app=web -o name").lines().count();
    assert!(sets() > 0, "the orphans stay");
    cluster.kubectl("delete replicasets -l app=web --cascade=foreground --timeout=30s");
    assert_eq!(cluster.kubectl("get pods -l app=web -o name"), "", "the pods went before their owners");
    cluster.kubectl("scale deployment idle --replicas=1");
    cluster.kubectl("wait --for=condition=Available deployment/idle --timeout=60s");
    cluster.kubectl("delete deployment idle --cascade=background");
    eventually("its pods go, too", || {
        let left = cluster.kubectl("get pods -l app=idle -o name");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    assert_eq!(cluster.kubectl("delete pod single --grace-period=1"), "pod \"single\" deleted\n");
    assert_eq!(cluster.kubectl("delete configmap --all").lines().count(), 4);
    assert_eq!(cluster.kubectl(&format!("delete namespace {NAMESPACE} --timeout=30s")), "namespace \"shop\" deleted\n");
    assert_eq!(
        cluster.kubectl_fails("get namespace shop"),
        "Error from server (NotFound): namespaces \"shop\" not found\n"
    );
}
