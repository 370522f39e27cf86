//! A disk that is full: the process says so and ends, and with room again everything that was answered is there.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::{Cluster, Options, eventually};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The largest file that the process may write, in the kibibytes of bash's `ulimit`.
const FILE_KIBIBYTES: u32 = 8 << 10;

#[test]
fn a_full_disk_ends_the_process_with_a_line_and_loses_no_answered_write() {
    let Some(mut cluster) = Cluster::with(&Options { arguments: &["--nodes", "0"], ..Options::default() }) else {
        return;
    };
    let address = cluster.address();
    cluster.signal("INT");
    // A file that may not grow fails a write as a full disk does, and needs no disk of its own.
    let script = format!("trap '' XFSZ; ulimit -f {FILE_KIBIBYTES}; exec \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_coracle-under-test"), "up", "--nodes", "0"]);
    command.args(["--listen", &address, "--data-dir", "data", "--kubeconfig", "kubeconfig"]);
    command.current_dir(cluster.directory()).env("HOME", cluster.directory());
    let errors = cluster.directory().join("stderr");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&errors).unwrap());
    let mut child = command.spawn().unwrap();
    eventually("it serves", || cluster.http().send("GET", "/readyz", "", Vec::new()));
    let mut answered = BTreeSet::new();
    for number in 0..200 {
        let name = format!("map-{number}");
        let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "x".repeat(200 << 10)}});
        match cluster.http().send("POST", MAPS, "application/json", body.to_string().into_bytes()) {
            Ok(answer) if answer.code == 201 => drop(answered.insert(name)),
            _ => break,
        }
    }
    let status = eventually("the process has ended", || child.try_wait().ok().flatten().ok_or("it runs"));
    let printed = std::fs::read_to_string(&errors).unwrap();
    assert_eq!(status.code(), Some(1), "{printed}");
    let last = printed.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains("raft.log cannot be written: "), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    assert!(answered.len() > 5, "{answered:?}");

    cluster.start(&["--nodes", "0", "--listen", &address]);
    let list = cluster.get(MAPS);
    let names: BTreeSet<String> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().into())
        .collect();
    let lost: Vec<_> = answered.difference(&names).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
