//! What no recording shows: conflicts, pages, deletions, representations.

use std::time::Duration;

use coracle_api::resources::CONFIG_MAPS;
use coracle_api::{Body, Method, Object, ObjectKey, Revision};
use coracle_store::{Transaction, Write};
use serde_json::{Value, json};

use crate::harness::{MAPS, Server, bytes, config_map, names, request};

/// What another client writes in the middle of a request.
fn other_write(server: &Server, name: &str, value: &str) -> Transaction {
    let key = ObjectKey::new(CONFIG_MAPS, "default", name);
    let mut object = server.view().object(&key).map_or_else(|| config_map(name, ""), |object| object.value(None));
    object["data"]["k"] = value.into();
    let object = Object::new(key.clone(), Revision(0), object, std::collections::BTreeMap::new());
    let write = Write::Put { key, body: object.body().clone(), attributes: object.attributes().clone() };
    Transaction { writes: vec![write], ..Transaction::default() }
}

#[test]
fn a_generated_name_has_five_random_characters() {
    let mut server = Server::new();
    let created = server.ok(Method::Post, MAPS, json!({"metadata": {"generateName": "gn-"}}));
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gn-") && name.len() == 8, "{name}");
}

#[test]
fn a_patch_is_made_again_when_another_write_came_between() {
    let mut server = Server::new();
    server.ok(Method::Post, MAPS, config_map("a", "1"));
    let other = other_write(&server, "a", "2");
    server.meanwhile(other);
    let patched = server.merge(&format!("{MAPS}/a"), json!({"data": {"mine": "yes"}})).value();
    assert_eq!(patched["data"], json!({"k": "2", "mine": "yes"}));
}

#[test]
fn an_update_of_a_stated_revision_fails_when_another_write_came_between() {
    let mut server = Server::new();
    let mut read = server.ok(Method::Post, MAPS, config_map("a", "1"));
    read["data"]["k"] = "3".into();
    let other = other_write(&server, "a", "2");
    server.meanwhile(other);
    let (code, message) = server.fails(Method::Put, &format!("{MAPS}/a"), read);
    assert_eq!(code, 409);
    assert!(message.ends_with("please apply your changes to the latest version and try again"), "{message}");
}

#[test]
fn a_create_that_loses_the_race_is_told_that_the_name_is_taken() {
    let mut server = Server::new();
    let other = other_write(&server, "a", "theirs");
    server.meanwhile(other);
    let (code, message) = server.fails(Method::Post, MAPS, config_map("a", "mine"));
    assert_eq!((code, message.as_str()), (409, "configmaps \"a\" already exists"));
}

#[test]
fn a_write_that_changes_nothing_is_not_proposed() {
    let mut server = Server::new();
    let created = server.ok(Method::Post, MAPS, config_map("a", "1"));
    server.advance(Duration::from_secs(5));
    let before = server.applied;
    let patched = server.merge(&format!("{MAPS}/a"), json!({"data": {"k": "1"}})).value();
    let put = server.ok(Method::Put, &format!("{MAPS}/a"), created.clone());
    assert_eq!((patched, put, server.applied), (created.clone(), created, before));
}

#[test]
fn a_dry_run_answers_and_stores_nothing() {
    let mut server = Server::new();
    let before = server.view().revision();
    let created = server.ok(Method::Post, &format!("{MAPS}?dryRun=All"), config_map("a", "1"));
    assert!(created["metadata"]["uid"].is_string() && created["metadata"]["resourceVersion"].is_null());
    assert_eq!(server.fails(Method::Get, &format!("{MAPS}/a"), Value::Null).0, 404);
    assert_eq!(server.view().revision(), before);
}

#[test]
fn pages_show_the_state_of_the_first_one() {
    let mut server = Server::new();
    for name in ["a", "b", "c", "d"] {
        server.ok(Method::Post, MAPS, config_map(name, "1"));
    }
    let first = server.get(&format!("{MAPS}?limit=3"));
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".into(), "b".into(), "c".into()], &json!(1))
    );
    server.ok(Method::Delete, &format!("{MAPS}/d"), Value::Null);
    server.ok(Method::Post, MAPS, config_map("e", "1"));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{MAPS}?limit=3&continue={token}"));
    assert_eq!(names(&second), ["d"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"]["continue"].is_null());
}

#[test]
fn a_collection_is_deleted_by_its_selector_one_by_one() {
    let mut server = Server::new();
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        server.ok(Method::Post, MAPS, json!({"metadata": {"name": name, "labels": {"app": app}}}));
    }
    let before = server.applied;
    let deleted = server.ok(Method::Delete, &format!("{MAPS}?labelSelector=app%3Dx"), Value::Null);
    assert_eq!((deleted["kind"].as_str(), names(&deleted)), (Some("ConfigMapList"), vec!["a".into(), "c".into()]));
    assert_eq!(server.applied - before, 2);
    let left = server.get(MAPS);
    assert_eq!(names(&left), ["b"]);
}

#[test]
fn what_is_written_while_its_collection_is_deleted_is_deleted_all_the_same() {
    let mut server = Server::new();
    for name in ["a", "b", "c"] {
        server.ok(Method::Post, MAPS, config_map(name, "1"));
    }
    let before = server.applied;
    server.meanwhile(other_write(&server, "b", "2"));
    server.ok(Method::Delete, MAPS, Value::Null);
    // Three that are proposed together, the other client's, and the one that it made stale once more.
    assert_eq!((server.applied - before, names(&server.get(MAPS)).len()), (5, 0));
}

#[test]
fn a_collection_larger_than_a_round_is_deleted_whole() {
    let mut server = Server::new();
    for number in 0..600 {
        server.ok(Method::Post, MAPS, config_map(&format!("map-{number}"), "1"));
    }
    let before = server.applied;
    server.ok(Method::Delete, MAPS, Value::Null);
    assert_eq!((server.applied - before, names(&server.get(MAPS)).len()), (600, 0));
}

#[test]
fn a_finalizer_holds_an_object_until_it_is_removed() {
    let mut server = Server::new();
    server.ok(Method::Post, MAPS, json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}}));
    let held = server.ok(Method::Delete, &format!("{MAPS}/a"), Value::Null);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let path = format!("{MAPS}/a");
    let more = server.merge(&path, json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}));
    assert_eq!(more.status, 422);
    let freed = server.merge(&path, json!({"metadata": {"finalizers": null}}));
    assert_eq!((freed.status, freed.value()["kind"].as_str()), (200, Some("ConfigMap")));
    assert_eq!(server.fails(Method::Get, &path, Value::Null).0, 404);
}

#[test]
fn nothing_is_created_in_a_namespace_that_is_going_away() {
    let mut server = Server::new();
    server.ok(Method::Post, "/api/v1/namespaces", json!({"metadata": {"name": "a"}}));
    let going = server.ok(Method::Delete, "/api/v1/namespaces/a", Value::Null);
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, message) = server.fails(Method::Post, "/api/v1/namespaces/a/configmaps", config_map("x", "1"));
    assert_eq!(code, 403);
    assert!(message.ends_with("namespace a because it is being terminated"), "{message}");
    let mut empty = server.get("/api/v1/namespaces/a");
    empty["spec"]["finalizers"] = json!([]);
    server.ok(Method::Put, "/api/v1/namespaces/a/finalize", empty);
    assert_eq!(server.fails(Method::Get, "/api/v1/namespaces/a", Value::Null).0, 404);
}

#[test]
fn answers_come_as_yaml_where_that_is_asked_for() {
    let mut server = Server::new();
    let mut create = request(Method::Post, MAPS).content_type("application/yaml");
    create.body = bytes("metadata:\n  name: a\ndata: {k: \"1\"}\n");
    create.accept = Some("application/yaml".into());
    let response = server.response(create);
    let text = String::from_utf8(response.bytes().to_vec()).unwrap();
    assert_eq!(response.status, 201);
    assert!(text.contains("kind: ConfigMap") && text.contains("name: a"), "{text}");
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let mut server = Server::new();
    let mut create = request(Method::Post, MAPS);
    create.body = Body::Bytes(vec![b' '; (3 << 20) + 1].into());
    let status = server.response(create).failure().unwrap();
    assert_eq!((status.code, status.message.as_str()), (413, "Request entity too large: limit is 3145728"));
}

#[test]
fn people_get_indented_json() {
    let mut server = Server::new();
    let mut get = request(Method::Get, "/api/v1/namespaces/default");
    get.user_agent = Some("curl/8.5".into());
    let text = String::from_utf8(server.response(get).bytes().to_vec()).unwrap();
    assert!(text.starts_with("{\n  \"kind\": \"Namespace\",\n  \"apiVersion\": \"v1\",\n"), "{text}");
}

#[test]
fn discovery_is_not_sent_again_while_it_stays_the_same() {
    let mut server = Server::new();
    let mut get = request(Method::Get, "/apis");
    get.accept = Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList".into());
    let first = server.response(get.clone());
    let etag = first.headers.iter().find(|(name, _)| *name == "etag").unwrap().1.clone();
    get.headers.push(("if-none-match".into(), etag));
    let second = server.response(get);
    assert_eq!((first.status, second.status, second.bytes().len()), (200, 304, 0));
}

#[test]
fn documents_may_be_kept_for_ever_under_their_hash() {
    let mut server = Server::new();
    let index = server.get("/openapi/v3");
    let address = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = server.response(request(Method::Get, &address));
    let cache = document.headers.iter().find(|(name, _)| *name == "cache-control").unwrap();
    assert!(document.status == 200 && cache.1.contains("immutable"), "{cache:?}");
    assert!(document.value()["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"].is_object());
}

#[test]
fn an_event_is_the_same_object_in_both_groups() {
    let mut server = Server::new();
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "Started container c", "type": "Normal", "source": {"component": "kubelet"}});
    server.ok(Method::Post, "/api/v1/namespaces/default/events", event);
    let shown = server.get("/apis/events.k8s.io/v1/namespaces/default/events/e");
    assert_eq!((&shown["apiVersion"], &shown["note"]), (&json!("events.k8s.io/v1"), &json!("Started container c")));
    assert_eq!(shown["regarding"]["name"], "p");
    let selected = |name: &str| format!("/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3D{name}");
    assert_eq!(names(&server.get(&selected("p"))), ["e"]);
    assert!(names(&server.get(&selected("q"))).is_empty());
}

#[test]
fn a_protobuf_body_is_read() {
    let mut server = Server::new();
    // Unknown { typeMeta { "v1", "Namespace" }, raw: Namespace { metadata { name: "proto" } } }
    let meta = [&[0x0a, 2][..], b"v1", &[0x12, 9], b"Namespace"].concat();
    let raw = [&[0x0a, 7, 0x0a, 5][..], b"proto"].concat();
    let message = [b"k8s\0", &[0x0a, meta.len() as u8][..], &meta, &[0x12, raw.len() as u8], &raw].concat();
    let mut create = request(Method::Post, "/api/v1/namespaces").content_type("application/vnd.kubernetes.protobuf");
    create.accept = Some("application/vnd.kubernetes.protobuf,application/json".into());
    create.body = Body::Bytes(message.into());
    let response = server.response(create);
    assert_eq!((response.status, &response.value()["metadata"]["name"]), (201, &json!("proto")));
}

#[test]
fn a_service_address_is_given_once_even_to_two_at_a_time() {
    let mut server = Server::new();
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str| {
        let spec = json!({"clusterIP": "10.43.0.77", "ports": [{"port": 80}]});
        request(Method::Post, path).json(json!({"metadata": {"name": name}, "spec": spec}))
    };
    let other = server.proposed(service("a"));
    server.meanwhile(other);
    let expected = |name: &str| {
        format!(
            "Service \"{name}\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.77\"]: \
             failed to allocate IP 10.43.0.77: provided IP is already allocated"
        )
    };
    // The first finds it taken when its transaction is applied, the second already in the view.
    for name in ["b", "c"] {
        let status = server.response(service(name)).failure().unwrap();
        assert_eq!((status.code, status.message), (422, expected(name)));
    }
    server.ok(Method::Delete, &format!("{path}/a"), Value::Null);
    assert_eq!(server.response(service("b")).status, 201);
}

#[test]
fn a_generated_name_that_is_taken_is_replaced_by_another() {
    let mut server = Server::new();
    let generate = request(Method::Post, MAPS).json(json!({"metadata": {"generateName": "gn-"}}));
    // Both machines draw from the same seed, so the other takes the very name that comes first.
    let seed = server.rng.clone();
    let other = server.proposed(generate.clone());
    server.rng = seed;
    server.meanwhile(other);
    assert_eq!(server.response(generate).status, 201);
    assert_eq!(names(&server.get(MAPS)).len(), 2);
}

#[test]
fn a_controller_writes_as_itself() {
    let mut server = Server::new();
    let mut create = request(Method::Post, MAPS).json(config_map("a", "1"));
    create.user = coracle_api::UserInfo::controller("root-ca");
    create.user_agent = None;
    let created = server.response(create).value();
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "root-ca");
}

#[test]
fn an_impersonated_user_has_only_his_own_rights() {
    let mut server = Server::new();
    let mut get = request(Method::Get, MAPS);
    get.headers.push(("impersonate-user".into(), "bob".into()));
    assert_eq!(server.response(get.clone()).status, 403);
    get.headers.push(("impersonate-group".into(), "system:masters".into()));
    assert_eq!(server.response(get.clone()).status, 200);
    get.user = coracle_api::UserInfo::anonymous();
    assert_eq!(server.response(get).status, 403);
}

#[test]
fn nobody_grants_rights_that_he_does_not_have() {
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let mut server = Server::new();
    let rule = |verbs: &[&str], group: &str, resource: &str| json!({"verbs": verbs, "apiGroups": [group], "resources": [resource]});
    let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
    let binding = |role: &str, user: &str| {
        json!({
            "metadata": {"name": format!("{role}-to-{user}")},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}],
        })
    };
    let may = json!([rule(&["create", "update"], "rbac.authorization.k8s.io", "*"), rule(&["get"], "", "secrets")]);
    server.ok(Method::Post, CLUSTER_ROLES, role("writer", may));
    server.ok(Method::Post, CLUSTER_ROLES, role("all", json!([rule(&["*"], "*", "*")])));
    server.ok(Method::Post, BINDINGS, binding("writer", "bob"));
    let mut as_bob = |path: &str, object: Value| {
        let mut post = request(Method::Post, path).json(object);
        post.headers.push(("impersonate-user".into(), "bob".into()));
        let response = server.response(post);
        response.failure().map_or_else(|| response.status.to_string(), |status| status.message)
    };
    assert_eq!(as_bob(ROLES, role("held", json!([rule(&["get"], "", "secrets")]))), "201");
    assert_eq!(
        as_bob(ROLES, role("r", json!([rule(&["get"], "", "pods")]))),
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"bob\" (groups=[\"system:authenticated\"]) is attempting to \
         grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}"
    );
    assert_eq!(as_bob(BINDINGS, binding("writer", "ann")), "201");
    assert_eq!(
        as_bob(BINDINGS, binding("all", "bob")),
        "clusterrolebindings.rbac.authorization.k8s.io \"all-to-bob\" is forbidden: user \"bob\" \
         (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"
    );
    assert_eq!(as_bob(BINDINGS, binding("none", "bob")), "clusterroles.rbac.authorization.k8s.io \"none\" not found");
    let mut sum = role("sum", json!([]));
    sum["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    assert_eq!(
        as_bob(CLUSTER_ROLES, sum),
        "clusterroles.rbac.authorization.k8s.io \"sum\" is forbidden: must have cluster-admin privileges to use the \
         aggregationRule"
    );
}

#[test]
fn who_may_read_one_object_may_list_and_watch_it_by_its_name() {
    const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let mut server = Server::new();
    let rule =
        json!({"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"]});
    server.ok(Method::Post, CLUSTER_ROLES, json!({"metadata": {"name": "one"}, "rules": [rule]}));
    let binding = json!({
        "metadata": {"name": "one"},
        "roleRef": {"kind": "ClusterRole", "name": "one"},
        "subjects": [{"kind": "User", "name": "bob"}],
    });
    server.ok(Method::Post, BINDINGS, binding);
    let mut status = |selector: &str| {
        let mut list = request(Method::Get, MAPS).query("fieldSelector", selector);
        list.headers.push(("impersonate-user".into(), "bob".into()));
        server.response(list).status
    };
    assert_eq!(status("metadata.name=a"), 200);
    assert_eq!(status("metadata.name=b"), 403);
    assert_eq!(status("metadata.name!=b"), 403);
    assert_eq!(status(""), 403);
}

#[test]
fn a_revision_that_is_not_there_yet_is_waited_for_and_then_refused() {
    let mut server = Server::new();
    let later = server.view().revision().0 + 1;
    let (code, message) = server.fails(Method::Get, &format!("{MAPS}?resourceVersion={later}"), Value::Null);
    assert_eq!(code, 504);
    assert!(message.starts_with(&format!("Timeout: Too large resource version: {later}")), "{message}");
}

#[test]
fn a_page_whose_state_is_gone_says_how_to_go_on() {
    let mut server = Server::new();
    for name in ["a", "b", "c"] {
        server.ok(Method::Post, MAPS, config_map(name, "1"));
    }
    let first = server.get(&format!("{MAPS}?limit=1"));
    server.ok(Method::Post, MAPS, config_map("d", "1"));
    server.advance(Duration::from_mins(10));
    server.ok(Method::Post, MAPS, config_map("e", "1"));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let gone = server.send(Method::Get, &format!("{MAPS}?limit=1&continue={token}"), Value::Null);
    assert_eq!((gone.status, gone.failure().unwrap().reason), (410, Some(coracle_api::Reason::Expired)));
    let token = gone.value()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = server.get(&format!("{MAPS}?continue={token}"));
    assert_eq!(names(&rest), ["b", "c", "d", "e"]);
}

#[test]
fn a_patch_cannot_rename() {
    let mut server = Server::new();
    server.ok(Method::Post, MAPS, config_map("a", "1"));
    let patch = |name: Value| json!({"metadata": {"name": name}});
    let refused = |response: coracle_api::Response| response.failure().unwrap().message;
    let path = format!("{MAPS}/a");
    let renamed = refused(server.merge(&path, patch(json!("b"))));
    assert_eq!(renamed, "the name of the object (b) does not match the name on the URL (a)");
    let unnamed = refused(server.merge(&path, patch(Value::Null)));
    assert_eq!(unnamed, "the name of the object (a based on URL) was undeterminable: name must be provided");
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

#[test]
fn a_node_that_was_heard_of_has_a_lease_that_nobody_stored() {
    let mut server = Server::new();
    for name in ["n1", "n2"] {
        server.ok(Method::Post, "/api/v1/nodes", json!({"metadata": {"name": name}}));
    }
    let (view, now) = (server.view(), server.now.wall);
    for name in ["n1", "n2", "stranger"] {
        server.heartbeats.note(&view, name, now);
    }
    let stored = json!({"metadata": {"name": "n2"}, "spec": {"holderIdentity": "somebody"}});
    server.ok(Method::Post, LEASES, stored);
    let lease = server.ok(Method::Get, &format!("{LEASES}/n1"), Value::Null);
    let spec = json!({"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": "2026-11-22T10:31:08.000000Z"});
    assert_eq!((&lease["spec"], &lease["kind"]), (&spec, &json!("Lease")));
    assert_eq!(lease["metadata"]["ownerReferences"][0]["kind"], "Node");
    let list = server.ok(Method::Get, &format!("{LEASES}?limit=1"), Value::Null);
    assert_eq!((names(&list), &list["metadata"]["remainingItemCount"]), (vec!["n1".to_owned()], &json!(1)));
    let rest = format!("{LEASES}?limit=1&continue={}", list["metadata"]["continue"].as_str().unwrap());
    let rest = server.ok(Method::Get, &rest, Value::Null);
    assert_eq!(rest["items"][0]["spec"]["holderIdentity"], "somebody");
    let elsewhere = server.ok(Method::Get, "/apis/coordination.k8s.io/v1/namespaces/default/leases", Value::Null);
    assert_eq!(elsewhere["items"], json!([]));
    assert_eq!(server.fails(Method::Delete, &format!("{LEASES}/n1"), Value::Null).0, 404);
}

#[test]
fn what_is_most_likely_not_meant_is_accepted_with_a_warning() {
    let mut server = Server::new();
    let twice = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "env": twice}]}});
    let response = server.send(Method::Post, "/api/v1/namespaces/default/pods", pod);
    let warnings: Vec<&str> =
        response.headers.iter().filter(|(name, _)| *name == "warning").map(|(_, v)| v.as_str()).collect();
    assert_eq!(response.status, 201);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("spec.containers[0].env[1]: hides previous definition of"), "{warnings:?}");
}
