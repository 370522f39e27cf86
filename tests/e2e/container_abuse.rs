//! Containers that take more than their share, and commands that cannot run in them: each is held within its bounds and told of, and a
//! neighbour on the same node notices nothing.

use serde_json::{Value, json};

use crate::containers::{PODS, container, create, event, is_ready, logs, phase, pod, wait};
use crate::harness::{Cluster, Docker, Options, eventually};

/// What a container's log may take in Docker's folder: two files of 10 MiB, and what is written before the next one is begun.
const DOCKER_LOG_MAX: u64 = 24 << 20;
/// What the process may grow by while a container floods its log.
const MEMORY_MAX: u64 = 64 << 20;

struct Setting {
    docker: Docker,
    cluster: Cluster,
}

impl Setting {
    /// A node with a neighbour that serves.
    fn new() -> Option<Self> {
        let docker = Docker::new()?;
        let arguments = ["--name", &docker.node, "--docker", docker.socket()];
        let cluster = Cluster::with(&Options { arguments: &arguments, memory: true, ..Options::default() })?;
        let probe = json!({"livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 5}});
        create(&cluster, &pod("neighbour", "exec httpd -f -p 8080 -h /tmp", &json!({}), &probe));
        wait(&cluster, "neighbour", "is ready", is_ready);
        Some(Self { docker, cluster })
    }

    fn neighbour_is_well(&self) {
        let neighbour = self.cluster.get(&format!("{PODS}/neighbour"));
        assert!(is_ready(&neighbour["status"]), "{neighbour}");
        assert_eq!(container(&neighbour["status"])["restartCount"], 0, "{neighbour}");
    }

    /// Docker's id of a pod's container.
    fn id(&self, name: &str) -> String {
        self.docker
            .containers(&format!("coracle.dev/pod={name}"))
            .into_iter()
            .find(|id| self.is_main(id))
            .expect("it runs")
    }

    fn is_main(&self, id: &str) -> bool {
        self.docker.inspect(id, "{{index .Config.Labels \"coracle.dev/container\"}}") == "main"
    }
}

#[test]
fn a_flood_of_log_stays_within_its_bounds() {
    let Some(setting) = Setting::new() else { return };
    let Setting { docker, cluster } = &setting;
    let before = cluster.resident_memory();
    let script = "line=$(head -c 8000 /dev/zero | tr '\\0' x); echo begins; yes $line | head -c 268435456; echo; echo over; \
                  exec sleep 100000";
    create(cluster, &pod("loud", script, &json!({}), &json!({})));
    let id = eventually("it has begun", || {
        docker.containers("coracle.dev/pod=loud").into_iter().find(|id| setting.is_main(id)).ok_or(())
    });
    let path = docker.inspect(&id, "{{.LogPath}}");
    let mut largest = 0;
    let text = crate::harness::eventually_within(std::time::Duration::from_mins(5), "all of it was written", || {
        largest = largest.max(size_of_log(&path));
        let answer = cluster.http().get(&format!("{PODS}/loud/log?tailLines=3"));
        if answer.text.ends_with("over\n") { Ok(answer.text) } else { Err(answer.text.len()) }
    });
    assert!(text.len() < 64 << 10, "three lines are cut into pieces of 16 KiB at most");
    assert!(largest > 0 || !can_read(&path), "the log is where Docker says");
    assert!(largest <= DOCKER_LOG_MAX, "Docker kept {largest} bytes of log");
    let whole = cluster.http().get(&format!("{PODS}/loud/log"));
    assert!(whole.text.len() <= 1 << 20, "{} bytes are kept", whole.text.len());
    if let (Some(before), Some(after)) = (before, cluster.resident_memory()) {
        assert!(after < before + MEMORY_MAX, "the process grew from {before} to {after} bytes");
    }
    setting.neighbour_is_well();
}

fn can_read(path: &str) -> bool {
    std::fs::metadata(path).is_ok()
}

/// What Docker has on the disk of a container's log.
fn size_of_log(path: &str) -> u64 {
    let folder = std::path::Path::new(path).parent().expect("it is in a folder");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = entries.filter(|entry| entry.file_name().to_string_lossy().contains("-json.log"));
    logs.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}

#[test]
fn a_container_that_fills_the_disk_is_evicted_wherever_it_writes() {
    let Some(setting) = Setting::new() else { return };
    let cluster = &setting.cluster;
    let fill = |path: &str| format!("echo up; dd if=/dev/zero of={path} bs=1M count=32; exec sleep 100000");
    let volume = json!({"volumes": [{"name": "own", "emptyDir": {"sizeLimit": "16Mi"}}]});
    let mount = json!({"volumeMounts": [{"name": "own", "mountPath": "/own"}]});
    create(cluster, &pod("volume", &fill("/own/file"), &volume, &mount));
    let limits = json!({"resources": {"limits": {"ephemeral-storage": "16Mi"}}});
    create(cluster, &pod("root", &fill("/file"), &json!({}), &limits));
    let in_memory = json!({"restartPolicy": "Never", "volumes": [{"name": "own", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}]});
    create(cluster, &pod("memory", "dd if=/dev/zero of=/own/file bs=1M count=32", &in_memory, &mount));

    for (name, why) in [
        ("volume", "Usage of EmptyDir volume \"own\" exceeds the limit \"16Mi\". "),
        ("root", "Pod ephemeral local storage usage exceeds the total limit of containers 16Mi. "),
    ] {
        let evicted = wait(cluster, name, "was evicted", |status| phase(status, "Failed"));
        assert_eq!((&evicted["status"]["reason"], &evicted["status"]["message"]), (&json!("Evicted"), &json!(why)));
        event(cluster, name, why);
    }
    let full = wait(cluster, "memory", "has failed", |status| phase(status, "Failed"));
    assert_eq!(
        container(&full["status"])["state"]["terminated"]["exitCode"],
        1,
        "memory volumes are full at their limit"
    );
    logs(cluster, "memory", |text| text.contains("No space left on device"));
    setting.neighbour_is_well();
}

#[test]
fn commands_that_cannot_run_or_die_say_so_and_leave_the_container_alone() {
    let Some(setting) = Setting::new() else { return };
    let Setting { cluster, .. } = &setting;
    let exec = |command: &[&str]| cluster.run(&[&["exec", "neighbour", "--"], command].concat());
    let absent = exec(&["/bin/nothing"]);
    assert!(!matches!(absent.code, None | Some(0)), "{absent:?}");
    let told = format!("{}{}", absent.stdout, absent.stderr);
    assert!(told.contains("no such file or directory") || told.contains("not found"), "{absent:?}");
    let forbidden = exec(&["/tmp"]);
    assert!(!matches!(forbidden.code, None | Some(0)), "{forbidden:?}");
    let killed = exec(&["sh", "-c", "echo about to; kill -9 $$"]);
    assert_eq!((killed.code, killed.stdout.as_str()), (Some(137), "about to\n"), "{killed:?}");
    let failed = exec(&["sh", "-c", "exit 7"]);
    assert_eq!(failed.code, Some(7), "{failed:?}");
    let loud = exec(&["sh", "-c", "yes | head -c 3000000"]);
    assert_eq!((loud.code, loud.stdout.len()), (Some(0), 3_000_000));

    let probe = |command: Value| json!({"readinessProbe": {"exec": {"command": command}, "periodSeconds": 1, "timeoutSeconds": 1}});
    for (name, command, why) in [
        ("absent", json!(["/bin/nothing"]), "/bin/nothing"),
        ("slow", json!(["sleep", "100"]), "timed out after 1s"),
        ("dies", json!(["sh", "-c", "echo dying; kill -9 $$"]), "Readiness probe failed: dying"),
        ("closes", json!(["sh", "-c", "exec >&- 2>&-; sleep 100"]), "timed out after 1s"),
    ] {
        create(cluster, &pod(name, "exec sleep 100000", &json!({}), &probe(command)));
        event(cluster, name, why);
        let found = cluster.get(&format!("{PODS}/{name}"));
        assert!(!is_ready(&found["status"]), "{found}");
        assert_eq!(container(&found["status"])["restartCount"], 0, "{found}");
    }
    // Docker ends no command: those of probes that hang are not begun for ever.
    event(cluster, "slow", "commands of probes before have timed out and still run");
    let listed = setting.docker.run(&["top", &setting.id("slow")]).ok();
    assert!(listed.lines().filter(|line| line.ends_with("sleep 100")).count() <= 5, "{listed}");
    // A session ends with its container, and says so.
    create(cluster, &pod("short", "sleep 3; exit 1", &json!({"restartPolicy": "Never"}), &json!({})));
    wait(cluster, "short", "runs", |status| container(status)["state"]["running"].is_object());
    let ended = cluster.run(&["exec", "short", "--", "sleep", "100"]);
    assert!(!matches!(ended.code, None | Some(0)), "{ended:?}");
    setting.neighbour_is_well();
}

#[test]
fn a_fork_bomb_meets_the_limit_of_processes_and_its_pod_can_be_deleted() {
    let Some(setting) = Setting::new() else { return };
    let cluster = &setting.cluster;
    create(cluster, &pod("bomb", "echo up; b() { b | b & }; b; exec sleep 100000", &json!({}), &json!({})));
    logs(cluster, "bomb", |text| text.contains("can't fork"));
    let id = setting.id("bomb");
    let limit: i64 = setting.docker.inspect(&id, "{{.HostConfig.PidsLimit}}").parse().expect("a number");
    assert!((1..=4_096).contains(&limit), "{limit}");
    setting.neighbour_is_well();
    cluster.kubectl("delete pod bomb --timeout=60s");
    setting.neighbour_is_well();
}

#[test]
fn volumes_in_memory_outlive_containers_and_have_parts() {
    let Some(setting) = Setting::new() else { return };
    let Setting { docker, cluster } = &setting;
    let spec = json!({
        "volumes": [{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}],
        "initContainers": [{"name": "first", "image": crate::harness::IMAGE,
            "command": ["sh", "-c", "mkdir /m/a; echo made > /m/a/file"],
            "volumeMounts": [{"name": "m", "mountPath": "/m"}]}],
    });
    let main = json!({"volumeMounts": [
        {"name": "m", "mountPath": "/part", "subPath": "a"},
        {"name": "m", "mountPath": "/new", "subPath": "b/c"},
    ]});
    let script = "cat /part/file; cat /new/count 2>/dev/null || echo fresh; echo x >> /new/count; df /part | tail -n 1; exec sleep 2";
    create(cluster, &pod("parts", script, &spec, &main));
    let first = logs(cluster, "parts", |text| text.contains("tmpfs"));
    assert!(first.starts_with("made\nfresh\ntmpfs"), "{first}");
    wait(cluster, "parts", "was restarted", |status| container(status)["restartCount"].as_u64() >= Some(1));
    // What is in it is there after a restart.
    logs(cluster, "parts", |text| text.starts_with("made\nx\n"));
    cluster.kubectl("delete pod parts --timeout=30s");
    eventually("nothing of the pod is left", || {
        let volumes =
            docker.run(&["volume", "ls", "-q", "--filter", &format!("label=coracle.dev/node={}", docker.node)]).ok();
        let containers = docker.containers("coracle.dev/pod=parts");
        if volumes.is_empty() && containers.is_empty() { Ok(()) } else { Err((volumes, containers)) }
    });
}

#[test]
fn limits_of_a_whole_pod_are_refused_with_their_name() {
    let Some(setting) = Setting::new() else { return };
    let cluster = &setting.cluster;
    let spec = json!({"resources": {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}});
    create(cluster, &pod("whole", "exec sleep 100000", &spec, &json!({})));
    let waiting = wait(cluster, "whole", "waits", |status| {
        container(status)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    assert_eq!(
        container(&waiting["status"])["state"]["waiting"]["message"],
        "spec.resources.limits is not supported by this node: it limits each container by itself"
    );
}
