use bytes::Bytes;
use coracle_node::runtime::{ContainerId, Propagation};

use super::*;

fn file(path: &str, contents: &'static str) -> VolumeFile {
    VolumeFile { path: path.to_owned(), contents: Bytes::from_static(contents.as_bytes()), mode: 0o644 }
}

fn spec(mounts: Vec<Mount>) -> ContainerSpec {
    let id = ContainerId { pod: "uid".into(), container: "web".to_owned(), instance: 0 };
    ContainerSpec { mounts, ..ContainerSpec::new(id, "web") }
}

fn mount(path: &str, sub_path: Option<&str>) -> Mount {
    Mount {
        volume: "config".to_owned(),
        path: path.to_owned(),
        sub_path: sub_path.map(str::to_owned),
        read_only: true,
        propagation: Propagation::None,
    }
}

#[test]
fn rewriting_a_volume_replaces_exactly_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let pod = PodDir(dir.path().into());
    let volume = dir.path().join("files/config");
    pod.write_volume("config", &VolumeSource::Files(vec![file("a", "1"), file("sub/b", "2")])).unwrap();
    assert_eq!(fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
    pod.write_volume("config", &VolumeSource::Files(vec![file("a", "3")])).unwrap();
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
    let left: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["a"]);
}

#[test]
fn paths_that_lead_out_of_a_volume_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pod = PodDir(dir.path().into());
    for path in ["../a", "/etc/passwd", "", "a/../../b"] {
        let error = pod.write_volume("config", &VolumeSource::Files(vec![file(path, "1")])).unwrap_err();
        assert!(error.contains("is no path inside a volume"), "{error}");
    }
    assert!(pod.write_volume("../config", &VolumeSource::EmptyDir { size_limit: None, in_memory: false }).is_err());
    pod.write_volume("config", &VolumeSource::EmptyDir { size_limit: None, in_memory: false }).unwrap();
    assert!(pod.prepare(&spec(vec![mount("/config", Some("../.."))])).is_err());
}

#[test]
fn a_mounted_file_and_the_termination_message_are_seen_in_folders_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let pod = PodDir(dir.path().into());
    pod.write_volume("config", &VolumeSource::Files(vec![file("app.yaml", "1")])).unwrap();
    let prepared = pod.prepare(&spec(vec![mount("/etc/app/config.yaml", Some("app.yaml"))])).unwrap();
    let seen: Vec<_> = prepared.preopens.iter().map(|preopen| preopen.guest.as_str()).collect();
    assert_eq!(seen, ["/dev", "/etc/app"]);
    assert_eq!(fs::read_to_string(prepared.preopens[1].host.join("config.yaml")).unwrap(), "1");
    assert_eq!(termination_message(&prepared.termination_message), None);
    fs::write(&prepared.termination_message, "x".repeat(5_000)).unwrap();
    assert_eq!(termination_message(&prepared.termination_message).unwrap().len(), 4_096);
}

#[test]
fn a_missing_volume_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = PodDir(dir.path().into()).prepare(&spec(vec![mount("/config", None)])).unwrap_err();
    assert_eq!(error, "volume \"config\" is not there");
}

#[test]
fn links_of_a_guest_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let pod = PodDir(dir.path().join("pod"));
    fs::write(dir.path().join("secret"), "secret").unwrap();
    pod.write_volume("config", &VolumeSource::EmptyDir { size_limit: None, in_memory: false }).unwrap();
    std::os::unix::fs::symlink("../../..", dir.path().join("pod/volumes/config/out")).unwrap();
    let error = pod.prepare(&spec(vec![mount("/config", Some("out/made"))])).unwrap_err();
    assert_eq!(error, "subPath \"out/made\" is outside of its volume");
    assert!(!dir.path().join("made").exists());
    let mut spec = spec(vec![mount("/config", None)]);
    spec.termination_message_path = "/config/out/secret".to_owned();
    let prepared = pod.prepare(&spec).unwrap();
    assert!(prepared.termination_message.exists(), "through the link, it is there");
    assert_eq!(termination_message(&prepared.termination_message), None);
}

#[test]
fn files_from_the_cluster_are_read_only_whatever_the_mount_says() {
    let dir = tempfile::tempdir().unwrap();
    let pod = PodDir(dir.path().into());
    pod.write_volume("config", &VolumeSource::Files(vec![file("a", "1")])).unwrap();
    let prepared = pod.prepare(&spec(vec![Mount { read_only: false, ..mount("/config", None) }])).unwrap();
    assert!(prepared.preopens[0].read_only);
}
