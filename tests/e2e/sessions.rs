//! `kubectl exec`, `attach` and `cp`, and probes and hooks that are commands.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::harness::{Cluster, eventually};

/// A program that stays when it has no arguments of its own, prints them when it has, copies its input when it is called `cat`, and ends with 3 when
/// it is called `fail`.
const PROGRAM: &str = r#"
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 1024) "it stays\n")
  (func $write (param $fd i32) (param $at i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 16))))
  (func $copy (local $read i32)
    (loop $again
      (i32.store (i32.const 0) (i32.const 65536))
      (i32.store (i32.const 4) (i32.const 32768))
      (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)) (then (call $exit (i32.const 9))))
      (local.set $read (i32.load (i32.const 16)))
      (if (i32.eqz (local.get $read)) (then (return)))
      (call $write (i32.const 1) (i32.const 65536) (local.get $read))
      (br $again)))
  (func $stay
    (call $write (i32.const 1) (i32.const 1024) (i32.const 9))
    (i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 100000000))
    (loop $again
      (drop (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 160)))
      (call $write (i32.const 1) (i32.const 1024) (i32.const 9))
      (br $again)))
  (func (export "_start") (local $count i32) (local $size i32) (local $at i32)
    (drop (call $args_sizes_get (i32.const 16) (i32.const 20)))
    (local.set $count (i32.load (i32.const 16)))
    (local.set $size (i32.load (i32.const 20)))
    (drop (call $args_get (i32.const 8192) (i32.const 16384)))
    (if (i32.eq (i32.load (i32.const 16384)) (i32.const 0x00746163)) (then (call $copy) (return)))
    (if (i32.eq (i32.load (i32.const 16384)) (i32.const 0x6c696166))
      (then
        (call $write (i32.const 2) (i32.const 16384) (i32.const 4))
        (call $exit (i32.const 3))))
    (if (i32.eq (local.get $count) (i32.const 1)) (then (call $stay)))
    (local.set $at (i32.const 16384))
    (loop $next
      (if (i32.eqz (i32.load8_u (local.get $at))) (then (i32.store8 (local.get $at) (i32.const 10))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (i32.add (i32.const 16384) (local.get $size)))))
    (call $write (i32.const 1) (i32.const 16384) (local.get $size))))
"#;

fn pod() -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "data", "emptyDir": {}}],
        "containers": [{"name": "web", "image": "example.com/program:1", "imagePullPolicy": "IfNotPresent",
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}})
    .to_string()
}

fn running() -> Option<Cluster> {
    let cluster = Cluster::up()?;
    cluster.import("example.com/program:1", PROGRAM);
    cluster.apply(&pod());
    cluster.kubectl("wait pod/web --for=condition=Ready --timeout=60s");
    Some(cluster)
}

#[test]
fn a_command_runs_in_a_container_with_its_input_its_output_and_its_exit_code() {
    let Some(cluster) = running() else { return };
    assert_eq!(cluster.kubectl("exec web -- say hello world"), "say\nhello\nworld\n");
    let input = "line\n".repeat(40_000);
    let copied = cluster.run_with(&["exec", "-i", "web", "--", "cat"], &[], Some(&input)).ok();
    assert!(copied == input, "{} of {} bytes came back", copied.len(), input.len());
    let failed = cluster.run(&["exec", "web", "--", "fail"]);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert!(failed.stderr.contains("fail") && failed.stderr.contains("exit code 3"), "{failed:?}");
    let shell = cluster.run(&["exec", "web", "--", "sh", "-c", "ls"]);
    assert_eq!(shell.code, Some(127), "{shell:?}");
    assert!(shell.stderr.contains("no shell"), "{shell:?}");
    let missing = cluster.kubectl_fails("exec web -c other -- say");
    assert!(missing.contains("container other is not valid for pod web"), "{missing}");
    over_spdy(&cluster);
    cluster.kubectl("create clusterrolebinding viewers --clusterrole=view --user=viewer");
    let refused = cluster.kubectl_fails("exec web --as=viewer -- say");
    assert!(refused.contains("resource \"pods/exec\""), "{refused}");
}

/// As kubectl did before 1.31.
fn over_spdy(cluster: &Cluster) {
    let environment = [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")];
    let said = cluster.run_with(&["exec", "-i", "web", "--", "cat"], &environment, Some("hello"));
    assert_eq!(said.ok(), "hello");
    let failed = cluster.run_with(&["exec", "web", "--", "fail"], &environment, None);
    assert_eq!(failed.code, Some(3), "{failed:?}");
}

#[test]
fn who_is_attached_reads_what_the_container_writes() {
    let Some(cluster) = running() else { return };
    let mut attached = cluster.kubectl_command(&["attach", "web"]);
    let out = cluster.directory().join("attached");
    attached.stdout(std::fs::File::create(&out).expect("a file is made")).stderr(std::process::Stdio::null());
    let mut attached = attached.spawn().expect("kubectl starts");
    eventually("the output comes", || {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        if text.contains("it stays\nit stays\n") { Ok(()) } else { Err(text) }
    });
    let _ = attached.kill();
    let _ = attached.wait();
}

#[test]
fn who_is_attached_writes_what_the_container_reads() {
    let Some(cluster) = running() else { return };
    for (name, once) in [("once", true), ("open", false)] {
        let main = json!({"name": "main", "image": "example.com/program:1", "imagePullPolicy": "IfNotPresent",
            "command": ["cat"], "stdin": true, "stdinOnce": once});
        let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [main]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        cluster.apply(&pod.to_string());
        cluster.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=30s"));
    }
    // The first who is attached to this one is the last: the program's input ends with theirs.
    let attached = cluster.run_with(&["attach", "-i", "once"], &[], Some("hello\n"));
    assert!(attached.ok().contains("hello"));
    cluster.wait("the program has ended", "/api/v1/namespaces/default/pods/once", |pod| {
        pod["status"]["phase"] == "Succeeded"
    });
    // This one waits for the next.
    for (said, all) in [("one\n", "one\n"), ("two\n", "one\ntwo\n")] {
        let mut attached = cluster.kubectl_command(&["attach", "-i", "open"]);
        attached.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut attached = attached.spawn().expect("kubectl starts");
        attached.stdin.take().expect("it is piped").write_all(said.as_bytes()).expect("kubectl reads");
        eventually("the program has read it", || {
            let log = cluster.kubectl("logs open");
            if log == all { Ok(()) } else { Err(log) }
        });
        let _ = attached.kill();
        let _ = attached.wait();
    }
    assert_eq!(cluster.get("/api/v1/namespaces/default/pods/open")["status"]["phase"], "Running");
}

#[test]
fn files_are_copied_into_a_volume_and_out_of_it() {
    let Some(cluster) = running() else { return };
    std::fs::create_dir_all(cluster.directory().join("site/css")).expect("a folder is made");
    let large = "0123456789".repeat(100_000);
    cluster.write("site/index.html", &large);
    cluster.write("site/css/a.css", "a {}");
    cluster.kubectl("cp site web:/data/site");
    cluster.kubectl("cp web:/data/site back");
    let back = |name: &str| std::fs::read_to_string(cluster.directory().join("back").join(name)).unwrap_or_default();
    assert!(back("index.html") == large);
    assert_eq!(back("css/a.css"), "a {}");
    let outside = cluster.run(&["cp", "web:/etc/passwd", "passwd"]);
    assert_ne!(outside.code, Some(0), "{outside:?}");
}

#[test]
fn probes_and_hooks_may_be_commands() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.import("example.com/program:1", PROGRAM);
    let pod = |name: &str, command: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "example.com/program:1",
                "lifecycle": {"postStart": {"exec": {"command": ["say", "hello"]}}},
                "readinessProbe": {"exec": {"command": [command, "it"]}, "periodSeconds": 1}}]}})
        .to_string()
    };
    cluster.apply(&pod("well", "say"));
    cluster.kubectl("wait pod/well --for=condition=Ready --timeout=60s");
    cluster.apply(&pod("ill", "fail"));
    eventually("the probe fails with what the command printed", || {
        let events = cluster.kubectl("get events --field-selector reason=Unhealthy -o jsonpath={.items[*].message}");
        if events.contains("Readiness probe failed: fail") { Ok(()) } else { Err(events) }
    });
}
