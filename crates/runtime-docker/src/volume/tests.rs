use coracle_node::runtime::{ContainerId, RuntimeKind};

use super::*;

fn file(path: &str, contents: &'static str) -> VolumeFile {
    VolumeFile { path: path.into(), contents: contents.as_bytes().into(), mode: 0o644 }
}

fn pod() -> (tempfile::TempDir, PodDir) {
    let dir = tempfile::tempdir().unwrap();
    let pod = PodDir(dir.path().join("uid"));
    pod.create(&Sandbox::new(RuntimeKind::Container, "uid".into(), [10, 42, 0, 2].into())).unwrap();
    (dir, pod)
}

fn write(pod: &PodDir, files: Vec<VolumeFile>) -> PathBuf {
    match pod.write_volume("config", &VolumeSource::Files(files), None).unwrap() {
        Place::Given(folder) => folder,
        other => panic!("{other:?}"),
    }
}

fn spec() -> ContainerSpec {
    ContainerSpec::new(ContainerId { pod: "uid".into(), container: "web".into(), instance: 0 }, "web")
}

fn mount(volume: &str, sub_path: Option<&str>) -> Mount {
    Mount {
        volume: volume.into(),
        path: "/mnt".into(),
        sub_path: sub_path.map(str::to_owned),
        read_only: false,
        propagation: Propagation::None,
    }
}

#[test]
fn a_rewritten_volume_shows_exactly_its_new_files_in_the_same_folder() {
    let (_dir, pod) = pod();
    let folder = write(&pod, vec![file("a", "1"), file("sub/b", "2")]);
    assert_eq!(fs::read_to_string(folder.join("sub/b")).unwrap(), "2");
    let open = fs::File::open(&folder).unwrap();
    write(&pod, vec![file("a", "3"), file("c", "4")]);
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "3");
    assert_eq!(fs::read_to_string(folder.join("c")).unwrap(), "4");
    assert!(!folder.join("sub").exists());
    let inode = |folder: fs::Metadata| std::os::unix::fs::MetadataExt::ino(&folder);
    assert_eq!(inode(open.metadata().unwrap()), inode(fs::metadata(&folder).unwrap()));
}

#[test]
fn the_files_of_a_volume_change_together() {
    let (_dir, pod) = pod();
    let folder = write(&pod, vec![file("a", "1"), file("b", "1")]);
    let before = fs::read_link(folder.join(DATA)).unwrap();
    write(&pod, vec![file("a", "1"), file("b", "1")]);
    assert_eq!(fs::read_link(folder.join(DATA)).unwrap(), before, "what is the same stays");
    write(&pod, vec![file("a", "2"), file("b", "2")]);
    assert_ne!(fs::read_link(folder.join(DATA)).unwrap(), before);
    assert!(!folder.join(before).exists());
}

#[test]
fn given_files_are_read_only_and_a_sub_path_is_the_file_itself() {
    let (_dir, pod) = pod();
    let folder = write(&pod, vec![file("a", "1")]);
    let mounted = |sub_path| resolve(&mount("config", sub_path), Place::Given(folder.clone()));
    let Ok(Mounted::Path { read_only: true, host, .. }) = mounted(Some("a")) else { panic!() };
    assert!(host.is_file());
    assert!(mounted(Some("missing")).is_err());
    assert!(mounted(Some("../../hosts")).is_err());
}

#[test]
fn a_link_of_a_container_does_not_lead_out_of_its_volume() {
    let (_dir, pod) = pod();
    let source = VolumeSource::EmptyDir { size_limit: None, in_memory: false };
    let Place::Folder(folder) = pod.write_volume("own", &source, None).unwrap() else { panic!() };
    symlink("/etc", folder.join("out")).unwrap();
    let error = resolve(&mount("own", Some("out/ssh")), Place::Folder(folder.clone())).unwrap_err();
    assert!(error.contains("outside of its volume"), "{error}");
    assert!(resolve(&mount("own", Some("made/here")), Place::Folder(folder.clone())).is_ok());
    assert!(folder.join("made/here").is_dir());
}

#[test]
fn a_container_finds_its_hosts_its_resolver_and_a_place_for_its_last_words() {
    let (_dir, pod) = pod();
    let mounted = pod.prepare(&spec(), |_| None).unwrap();
    let paths: Vec<&str> = mounted
        .iter()
        .map(|mounted| match mounted {
            Mounted::Path { path, .. } | Mounted::Volume { path, .. } => path.as_str(),
        })
        .collect();
    assert_eq!(paths, ["/etc/hosts", "/etc/resolv.conf", "/dev/termination-log"]);
    assert!(fs::read_to_string(pod.0.join("hosts")).unwrap().contains("10.42.0.2\tuid\n"));
    assert_eq!(pod.termination_message("web", 0), None);
    fs::write(pod.0.join("containers/web-0/termination-message"), "goodbye").unwrap();
    assert_eq!(pod.termination_message("web", 0).as_deref(), Some("goodbye"));
    pod.remove_container("web", 0);
    assert_eq!(pod.termination_message("web", 0), None);
}

#[test]
fn a_host_path_has_to_be_what_the_pod_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(host_path(&file, "File").is_ok());
    let error = host_path(&file, "Directory").unwrap_err();
    assert!(error.starts_with("hostPath type check failed"), "{error}");
    assert!(host_path(&dir.path().join("made"), "DirectoryOrCreate").is_ok());
    assert!(dir.path().join("made").is_dir());
}

#[test]
fn a_part_of_a_volume_in_memory_is_found_where_the_engine_has_it_or_left_to_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    let memory = |folder, has_parts| Place::Memory(Memory { name: "v".into(), folder, has_parts });
    let whole = resolve(&mount("m", None), memory(Some(folder.clone()), true)).unwrap();
    let volume = |part: Option<&str>| Mounted::Volume {
        name: "v".into(),
        part: part.map(str::to_owned),
        path: "/mnt".into(),
        read_only: false,
    };
    assert_eq!(whole, volume(None));
    let part = resolve(&mount("m", Some("a/b")), memory(Some(folder.clone()), true)).unwrap();
    let host = folder.join("a/b");
    assert!(host.is_dir());
    let (path, propagation) = ("/mnt".to_owned(), Propagation::HostToContainer);
    assert_eq!(
        part,
        Mounted::Path { host, path, read_only: false, propagation },
        "less is refused in Docker's own folder"
    );
    symlink("/etc", folder.join("out")).unwrap();
    for wrong in ["out", "../x"] {
        assert!(resolve(&mount("m", Some(wrong)), memory(Some(folder.clone()), true)).is_err(), "{wrong}");
    }
    assert_eq!(resolve(&mount("m", Some("a/b")), memory(None, true)).unwrap(), volume(Some("a/b")));
    assert!(resolve(&mount("m", Some("../b")), memory(None, true)).is_err());
    let refused = resolve(&mount("m", Some("a")), memory(None, false)).unwrap_err();
    assert!(refused.contains("\"m\"") && refused.contains("Docker Engine 26"), "{refused}");
}
