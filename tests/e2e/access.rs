//! Who may do what, asked with the real kubectl: roles, bindings, impersonation, and what a refusal says.

use expect_test::expect;

use crate::harness::{Cluster, Options, eventually};

#[test]
fn users_have_the_rights_that_their_roles_grant() {
    let Some(cluster) = Cluster::with(&Options { memory: true, ..Options::default() }) else { return };
    default_roles(&cluster);
    granting(&cluster);
    refusing(&cluster);
    not_escalating(&cluster);
    asking(&cluster);
}

fn default_roles(cluster: &Cluster) {
    let roles = cluster.kubectl("get clusterroles -o name");
    for name in ["cluster-admin", "admin", "edit", "view", "system:discovery", "system:node"] {
        assert!(roles.lines().any(|line| line == format!("clusterrole.rbac.authorization.k8s.io/{name}")), "{roles}");
    }
    // They are put together by a controller: view out of one role, edit out of view and another, admin out of all of them.
    eventually("the roles are put together", || {
        let rules = cluster.kubectl("get clusterrole admin -o jsonpath={.rules[*].resources}");
        let all = ["rolebindings", "pods/exec", "pods/log"].iter().all(|resource| rules.contains(resource));
        if all { Ok(()) } else { Err(rules) }
    });
    let bindings = cluster.kubectl("get clusterrolebindings system:public-info-viewer -o wide --no-headers");
    assert!(bindings.contains("ClusterRole/system:public-info-viewer"), "{bindings}");
    assert!(bindings.contains("system:authenticated, system:unauthenticated"), "{bindings}");
}

fn granting(cluster: &Cluster) {
    let done = |arguments: &str, said: &str| assert_eq!(cluster.kubectl(arguments), format!("{said}\n"));
    done("create namespace shop", "namespace/shop created");
    done("create serviceaccount app -n shop", "serviceaccount/app created");
    let role = "role.rbac.authorization.k8s.io/reader created";
    done("create role reader -n shop --verb=get,list --resource=pods,pods/log", role);
    let bound = "rolebinding.rbac.authorization.k8s.io";
    done("create rolebinding readers -n shop --role=reader --user=bob", &format!("{bound}/readers created"));
    let editors = "create rolebinding editors -n shop --clusterrole=edit --serviceaccount=shop:app --group=dev";
    done(editors, &format!("{bound}/editors created"));
    for (question, answer) in [
        ("list pods -n shop --as bob", "yes"),
        ("get pods --subresource=log -n shop --as bob", "yes"),
        ("delete pods -n shop --as bob", "no"),
        ("list pods -n default --as bob", "no"),
        ("create deployments -n shop --as system:serviceaccount:shop:app", "yes"),
        ("create deployments -n shop --as eve --as-group dev", "yes"),
        ("create roles -n shop --as eve --as-group dev", "no"),
        ("get /version --as eve", "yes"),
        ("get /metrics --as eve", "no"),
    ] {
        let arguments: Vec<&str> = ["auth", "can-i"].into_iter().chain(question.split(' ')).collect();
        let ran = cluster.run(&arguments);
        assert_eq!((ran.stdout.trim(), ran.code), (answer, Some(i32::from(answer == "no"))), "{question}: {ran:?}");
    }
    assert_eq!(cluster.kubectl("get pods -n shop --as bob -o name"), "");
}

fn refusing(cluster: &Cluster) {
    let refused = |arguments: &str| cluster.kubectl_fails(arguments);
    expect![[r#"
        Error from server (Forbidden): pods "web" is forbidden: User "bob" cannot delete resource "pods" in API group "" in the namespace "shop"
    "#]]
    .assert_eq(&refused("delete pod web -n shop --as bob"));
    expect![[r#"
        Error from server (Forbidden): nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope
    "#]]
    .assert_eq(&refused("get nodes --as bob"));
}

fn not_escalating(cluster: &Cluster) {
    cluster.kubectl("create rolebinding admins -n shop --clusterrole=admin --user=ann");
    cluster.kubectl("create role mine -n shop --verb=get --resource=pods --as ann");
    expect![[r#"
        Error from server (Forbidden): roles.rbac.authorization.k8s.io "more" is forbidden: user "ann" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:
        {APIGroups:[""], Resources:["nodes"], Verbs:["get"]}
    "#]]
    .assert_eq(&cluster.kubectl_fails("create role more -n shop --verb=get --resource=nodes --as ann"));
    let all = cluster.kubectl_fails("create rolebinding all -n shop --clusterrole=cluster-admin --user=ann --as ann");
    assert!(
        all.contains("\"all\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) is attempting"),
        "{all}"
    );
    assert!(all.contains("{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"), "{all}");
    cluster.kubectl("create role binder -n shop --verb=bind --resource=clusterroles.rbac.authorization.k8s.io");
    cluster.kubectl("create rolebinding binders -n shop --role=binder --user=ann");
    cluster.kubectl("create rolebinding all -n shop --clusterrole=cluster-admin --user=eve --as ann");
    let changed = cluster.kubectl_fails(r#"patch rolebinding all -n shop --type=merge -p {"roleRef":{"name":"view"}}"#);
    assert!(changed.contains("cannot change roleRef"), "{changed}");
}

fn asking(cluster: &Cluster) {
    let whoami = cluster.kubectl("auth whoami --as bob --as-group dev -o jsonpath={.status.userInfo}");
    expect![[r#"{"groups":["dev","system:authenticated"],"username":"bob"}"#]].assert_eq(&whoami);
    let list = cluster.kubectl("auth can-i --list -n shop --as bob --no-headers");
    let pods = list.lines().find(|line| line.starts_with("pods/log")).unwrap_or_default();
    assert_eq!(pods.split_whitespace().collect::<Vec<_>>().join(" "), "pods/log [] [] [get list]", "{list}");
    assert!(list.contains("selfsubjectreviews.authentication.k8s.io"), "{list}");
}
