//! Backing up, restoring and recovering a cluster, as who lost a machine does it.

use std::fs;

use crate::harness::{Cluster, Options};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn a_cluster_is_restored_from_its_backup_and_every_watch_begins_anew() {
    let Some(mut cluster) = Cluster::with(&Options { arguments: &["--nodes", "0"], ..Options::default() }) else {
        return;
    };
    cluster.kubectl("create configmap kept --from-literal=a=b");
    let saved = cluster.coracle(&["snapshot", "save", "a.backup"]).ok();
    assert!(saved.contains("objects at revision") && saved.contains("coracle/keys/"), "{saved}");
    cluster.kubectl("create configmap lost --from-literal=a=b");
    let seen = revision(&cluster);
    let address = cluster.address();
    cluster.signal("KILL");
    fs::rename(cluster.data_dir(), cluster.directory().join("burnt")).unwrap();

    let inspected = cluster.coracle(&["snapshot", "inspect", "a.backup"]).ok();
    for line in ["Revision:", "Index:", "Term:", "Saved at:", "Cluster:", "configmaps", "Every checksum is right."] {
        assert!(inspected.contains(line), "{line}: {inspected}");
    }
    let restored = cluster.coracle(&["snapshot", "restore", "a.backup", "--data-dir", "data"]).ok();
    assert!(restored.ends_with("Start it: coracle up --data-dir data\n"), "{restored}");
    let occupied = cluster.coracle(&["snapshot", "restore", "a.backup", "--data-dir", "data"]).fails();
    assert_eq!(occupied, "error: data is not empty: restore into a directory that is not there yet\n");

    cluster.start(&["--nodes", "0", "--listen", &address]);
    assert_eq!(cluster.kubectl("get configmaps -o name"), "configmap/kept\nconfigmap/kube-root-ca.crt\n");
    check_watches_begin_anew(&cluster, seen);
    cluster.kubectl("create configmap lost --from-literal=a=c");
}

#[test]
fn a_survivor_is_made_a_cluster_and_the_others_are_told_of() {
    let Some(mut cluster) =
        Cluster::with(&Options { arguments: &["--nodes", "0", "--members", "3"], ..Options::default() })
    else {
        return;
    };
    cluster.kubectl("create configmap kept --from-literal=a=b");
    let seen = revision(&cluster);
    let recover = ["recover", "--force-new-cluster", "--data-dir", "data"];
    let in_use = cluster.coracle(&recover).fails();
    assert!(in_use.ends_with("is in use by another process\n"), "{in_use}");
    let address = cluster.address();
    cluster.signal("KILL");
    for lost in ["member-1", "member-3"] {
        fs::remove_dir_all(cluster.data_dir().join(lost)).unwrap();
    }
    let unforced = cluster.coracle(&["recover", "--data-dir", "data"]).fails();
    assert!(unforced.contains("--force-new-cluster"), "{unforced}");
    let recovered = cluster.coracle(&recover).ok();
    assert!(recovered.starts_with("Member 2 goes on alone, with everything up to entry "), "{recovered}");
    cluster.start(&["--nodes", "0", "--listen", &address]);
    assert_eq!(cluster.kubectl("get configmaps -o name"), "configmap/kept\nconfigmap/kube-root-ca.crt\n");
    check_watches_begin_anew(&cluster, seen);
    let members = cluster.coracle(&["members"]).ok();
    assert_eq!(members.matches("leader").count(), 1, "{members}");
}

fn revision(cluster: &Cluster) -> u64 {
    cluster.get(MAPS)["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a number")
}

/// A watch from a revision before gets 410, as an ERROR event of a stream that ends; revisions have risen by far.
#[track_caller]
fn check_watches_begin_anew(cluster: &Cluster, seen: u64) {
    let watch = cluster.http().get(&format!("{MAPS}?watch=1&resourceVersion={seen}&timeoutSeconds=30"));
    assert!(watch.text.contains(r#""code":410"#) && watch.text.contains("Expired"), "{watch:?}");
    let now = revision(cluster);
    assert!(now > seen + 500_000_000, "{now} after {seen}");
    let kubectl = cluster.kubectl_fails(&format!("get --raw {MAPS}?resourceVersion={seen}&resourceVersionMatch=Exact"));
    assert!(kubectl.contains("too old resource version"), "{kubectl}");
}
