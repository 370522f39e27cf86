//! A cluster that begins again: from a backup, or from the one survivor that is left.

use std::path::Path;

use coracle::api::{Method, Request, Response, UserInfo};
use coracle::{BackupKey, Cluster, ClusterBuilder, ErrorKind, inspect_backup, recover, restore_backup};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JUMP: u64 = 1_000_000_000;

fn without_nodes() -> ClusterBuilder {
    Cluster::builder().nodes(0)
}

async fn ask(cluster: &Cluster, path: &str) -> Response {
    cluster.request(Request::new(Method::Get, path, UserInfo::default())).await
}

async fn create(cluster: &Cluster, name: &str) {
    cluster
        .apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}).to_string())
        .await
        .unwrap();
}

/// The names of ConfigMaps, and the revision of the list.
async fn maps(cluster: &Cluster) -> (Vec<String>, u64) {
    let list = ask(cluster, MAPS).await.value();
    let name = |item: &serde_json::Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    let names = list["items"].as_array().unwrap().iter().map(name).collect();
    (names, list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
}

/// A client that saw the cluster at a revision is told to list again.
async fn check_expired(cluster: &Cluster, revision: u64) {
    let exactly = Request::new(Method::Get, MAPS, UserInfo::default())
        .query("resourceVersion", revision.to_string())
        .query("resourceVersionMatch", "Exact");
    let exactly = cluster.request(exactly).await;
    assert_eq!(exactly.status, 410, "{:?}", exactly.failure());
    let (_, now) = maps(cluster).await;
    assert!(now > revision + JUMP / 2, "{now} after {revision}");
}

async fn three_of_which_the_last_misses_something(data: &Path) -> Cluster {
    let cluster = without_nodes().members(3).data_dir(data).start().await.unwrap();
    create(&cluster, "everywhere").await;
    cluster.member(1).lead().await.unwrap();
    cluster.member(3).stop().await;
    create(&cluster, "without-3").await;
    cluster
}

#[tokio::test]
async fn a_restored_cluster_has_every_object_and_no_client_sees_time_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("a.backup"));
    let cluster = without_nodes().data_dir(&data).start().await.unwrap();
    create(&cluster, "before").await;
    cluster.save_backup(&file, None).await.unwrap();
    let again = cluster.save_backup(&file, None).await.unwrap_err();
    assert_eq!(again.to_string(), format!("{} is there already", file.display()));
    create(&cluster, "after").await;
    let (_, seen) = maps(&cluster).await;
    let (token, authority) = (cluster.token().to_owned(), cluster.ca_certificate().to_owned());
    cluster.shutdown().await;

    let (new, keys) = (folder.path().join("new"), folder.path().join("keys"));
    let summary = restore_backup(&file, &BackupKey::File(data.join("data.key")), &new, Some(&keys)).unwrap();
    assert_eq!(
        (summary.objects["configmaps"], summary.incarnation.as_str()),
        (5, ""),
        "the cluster's authority is in four"
    );
    let cluster = without_nodes().data_dir(&new).start().await.unwrap();
    assert_eq!((cluster.token(), cluster.ca_certificate()), (token.as_str(), authority.as_str()));
    assert_eq!(maps(&cluster).await.0, ["before", "kube-root-ca.crt"]);
    check_expired(&cluster, seen).await;
    create(&cluster, "later").await;

    // And once more, from the restored one.
    let second = folder.path().join("b.backup");
    cluster.save_backup(&second, None).await.unwrap();
    let (_, seen) = maps(&cluster).await;
    cluster.shutdown().await;
    let again = restore_backup(&second, &BackupKey::Found, &folder.path().join("newer"), None).unwrap();
    assert!(!again.incarnation.is_empty(), "another life than the first");
    let cluster = without_nodes().data_dir(folder.path().join("newer")).start().await.unwrap();
    assert_eq!(maps(&cluster).await.0, ["before", "kube-root-ca.crt", "later"]);
    check_expired(&cluster, seen).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_cluster_in_memory_is_saved_with_a_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.backup");
    let cluster = without_nodes().members(3).start().await.unwrap();
    create(&cluster, "a").await;
    let refused = cluster.save_backup(&file, None).await.unwrap_err();
    assert!(refused.to_string().contains("give a passphrase"), "{refused}");
    cluster.save_backup(&file, Some("correct horse")).await.unwrap();
    cluster.shutdown().await;
    let key = BackupKey::Passphrase("correct horse".into());
    let summary = inspect_backup(&file, &key).unwrap();
    assert_eq!(summary.objects["members.coracle.dev"], 3);
    restore_backup(&file, &key, &folder.path().join("data"), None).unwrap();
    let cluster = without_nodes().data_dir(folder.path().join("data")).start().await.unwrap();
    assert_eq!(maps(&cluster).await.0, ["a", "kube-root-ca.crt"]);
    cluster.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_restored_leaves_nothing_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.backup");
    let key = BackupKey::Passphrase("correct horse".into());
    let cluster = without_nodes().start().await.unwrap();
    cluster.save_backup(&file, Some("correct horse")).await.unwrap();
    cluster.shutdown().await;
    let target = folder.path().join("target");
    let names = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names(folder.path());
    let wrong = BackupKey::Passphrase("wrong horse".into());
    assert_eq!(restore_backup(&file, &wrong, &target, None).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(names(folder.path()), before);
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("mine"), "x").unwrap();
    let occupied = restore_backup(&file, &key, &target, None).unwrap_err();
    assert!(occupied.to_string().contains("is not empty"), "{occupied}");
    assert_eq!(names(&target), ["mine"]);
    std::fs::remove_file(target.join("mine")).unwrap();
    restore_backup(&file, &key, &target, None).unwrap();
}

#[tokio::test]
async fn the_survivor_of_several_goes_on_alone_with_everything_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let cluster = three_of_which_the_last_misses_something(data).await;
    let (_, seen) = maps(&cluster).await;
    let in_use = recover(data, None).unwrap_err();
    assert!(in_use.to_string().ends_with("is in use by another process"), "{in_use}");
    cluster.shutdown().await;

    let unknown = recover(data, Some(9)).unwrap_err();
    assert!(unknown.to_string().ends_with("has no member that could go on"), "{unknown}");
    std::fs::remove_dir_all(data.join("member-1")).unwrap();
    let recovered = recover(data, None).unwrap();
    assert_eq!(recovered.member, 2, "3 has missed something");
    assert!(recovered.commit <= recovered.index && recovered.revision > JUMP, "{recovered:?}");
    assert!(recovered.aside.unwrap().join("member-3/raft.log").exists());
    let several = without_nodes().members(3).data_dir(data).start().await.unwrap_err();
    assert!(several.to_string().ends_with("holds a cluster of another number of members"), "{several}");
    let cluster = without_nodes().data_dir(data).start().await.unwrap();
    assert_eq!(maps(&cluster).await.0, ["everywhere", "kube-root-ca.crt", "without-3"]);
    check_expired(&cluster, seen).await;
    create(&cluster, "alone").await;
    assert!(cluster.member(1).is_leader());
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_member_that_is_chosen_goes_on_with_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let cluster = three_of_which_the_last_misses_something(data).await;
    cluster.shutdown().await;
    let recovered = recover(data, Some(3)).unwrap();
    assert_eq!(recovered.member, 3);
    let cluster = without_nodes().data_dir(data).start().await.unwrap();
    assert_eq!(maps(&cluster).await.0, ["everywhere", "kube-root-ca.crt"]);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_cluster_of_one_can_be_recovered_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for round in 0..3 {
        let cluster = without_nodes().data_dir(folder.path()).start().await.unwrap();
        create(&cluster, &format!("round-{round}")).await;
        assert_eq!(maps(&cluster).await.0.len(), 2 + round);
        if round > 0 {
            check_expired(&cluster, seen).await;
        }
        (_, seen) = maps(&cluster).await;
        cluster.shutdown().await;
        recover(folder.path(), None).unwrap();
    }
    let nothing = recover(&folder.path().join("elsewhere"), None).unwrap_err();
    assert!(nothing.to_string().ends_with("is no data directory of a cluster"), "{nothing}");
}
