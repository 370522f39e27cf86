//! What the program does for its user: starting, finding, stopping, and saying in a line why not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::expect;
use serde_json::Value;

use crate::harness::{Cluster, Guest, Mask, Options, Ran, eventually, finish, http_get, program};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/web").to_string_lossy().into_owned()
}

#[test]
fn one_command_brings_the_example_up_and_another_down_and_all_comes_back() {
    let example = example();
    let options = Options { arguments: &["-f", &example], ..Options::default() };
    let Some(mut cluster) = Cluster::with(&options) else { return };
    says_what_it_does(&cluster);
    let before = names(&cluster);
    a_second_up_applies_and_leaves(&cluster);
    what_is_taken_is_said_in_a_line(&cluster);
    cluster.write("note.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note}\ndata: {a: b}\n");
    cluster.kubectl("apply -f note.yaml");
    assert_eq!(cluster.signal("INT").code(), Some(0), "Ctrl-C is no failure: {}", cluster.output());
    images_can_be_managed_without_a_cluster(&cluster);
    let rotated = cluster.coracle(&["keys", "rotate", "--data-dir", "data"]).ok();
    assert_eq!(rotated, "The data in data is sealed with a new key.\n");
    cluster.start(&["--listen", "127.0.0.1:0"]);
    comes_back(&cluster, &before);
    let down = cluster.coracle(&["down", "--data-dir", "data", "--kubeconfig", "kubeconfig"]).ok();
    assert_eq!(down, "The cluster is stopped.\n");
    assert_eq!(cluster.ended().code(), Some(0));
    let kubeconfig = fs::read_to_string(cluster.kubeconfig()).expect("the kubeconfig stays");
    assert!(!kubeconfig.contains("coracle"), "{kubeconfig}");
    cluster.start(&["--listen", "127.0.0.1:0"]);
    comes_back(&cluster, &before);
    assert_eq!(cluster.signal("TERM").code(), Some(0));
    let refused = cluster.coracle(&["down", "--data-dir", "data", "--delete-data"]).fails();
    assert_eq!(refused, "error: nothing was done; say --yes to delete data without being asked\n");
    cluster.coracle(&["down", "--data-dir", "data", "--delete-data", "--yes"]).ok();
    assert!(!cluster.data_dir().exists());
}

fn names(cluster: &Cluster) -> Vec<String> {
    let list = cluster.get(PODS);
    let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a pod has a name").to_owned();
    let mut names: Vec<String> = list["items"].as_array().expect("a list has items").iter().map(name).collect();
    names.sort();
    names
}

fn says_what_it_does(cluster: &Cluster) {
    let output = cluster.output().replace(&cluster.address(), "ADDRESS");
    let output = output.replace(&cluster.kubeconfig().to_string_lossy().into_owned(), "KUBECONFIG");
    // How it comes up differs from machine to machine; how it ends does not.
    let steps: Vec<&str> =
        output.lines().filter(|line| !line.contains("0/4") && !line.contains("/4 ready (")).collect();
    let steps = steps.into_iter().filter(|line| !["1/4", "2/4", "3/4"].iter().any(|part| line.contains(part)));
    expect![[r"
        Coracle 0.1.0 serves Kubernetes at https://ADDRESS.
        configmap/express-api-config created
        deployment.apps/express-api-deployment created
        service/express-api created
        deployment/express-api-deployment: 4/4 ready
        Service express-api: http://127.0.0.1:30080
        Use it: kubectl --kubeconfig KUBECONFIG get pods
        Press Ctrl-C to stop."]]
    .assert_eq(&steps.collect::<Vec<_>>().join("\n"));
    assert!(!output.contains('\u{1b}'), "no colours where there is no terminal: {output:?}");
    let page = eventually("the node port answers", || http_get("127.0.0.1:30080", "/"));
    assert!(page.contains("Hello from express-api v1, served by express-api-deployment-"), "{page}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        for secret in [cluster.kubeconfig(), cluster.data_dir().join("admin.token"), cluster.data_dir().join("ca.key")]
        {
            let mode = fs::metadata(&secret).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "only the user may read {}", secret.display());
        }
    }
}

fn a_second_up_applies_and_leaves(cluster: &Cluster) {
    cluster.write("more.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {a: b}\n");
    let up = || cluster.coracle(&["up", "--data-dir", "data", "-f", "more.yaml"]).ok();
    let mask = Mask::new().name(&cluster.address(), "ADDRESS");
    expect![[r"
        The cluster runs already, at https://ADDRESS.
        configmap/more created
        Service express-api: http://127.0.0.1:30080
    "]]
    .assert_eq(&mask.apply(&up()));
    assert!(up().contains("configmap/more unchanged\n"));
}

fn what_is_taken_is_said_in_a_line(cluster: &Cluster) {
    let refused = |arguments: &[&str]| {
        let ran = cluster.coracle(arguments);
        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{ran:?}");
        ran.stderr.replace(&cluster.address(), "ADDRESS")
    };
    expect![[r"
        error: cannot listen on ADDRESS: another program listens there; choose another with --listen ADDR:PORT: Address already in use (os error 98)
    "]]
    .assert_eq(&refused(&["up", "--data-dir", "other", "--listen", &cluster.address()]));
    assert!(!cluster.directory().join("other").exists(), "nothing is left of what did not start");
    let server = cluster.data_dir().join("server.json");
    let aside = cluster.directory().join("server.json");
    fs::rename(&server, &aside).expect("the file is moved");
    assert_eq!(
        refused(&["up", "--data-dir", "data", "--listen", "127.0.0.1:0", "--kubeconfig", "other-kubeconfig"]),
        "error: data is in use by another process\n"
    );
    fs::rename(&aside, &server).expect("the file is moved back");
    let unreadable = |name: &str, text: &str| {
        cluster.write(name, text);
        refused(&["up", "--memory", "--listen", "127.0.0.1:0", "--kubeconfig", "other-kubeconfig", "-f", name])
    };
    assert_eq!(
        unreadable("bad.yaml", "a: ["),
        "error: cannot read bad.yaml: yaml: line 1, column 4: unclosed bracket '['\n"
    );
    assert_eq!(
        unreadable("nameless.yaml", "kind: ConfigMap\napiVersion: v1\n"),
        "error: cannot read nameless.yaml: an object of the manifest has no apiVersion, no kind or no metadata.name\n"
    );
    let missing = refused(&["up", "--memory", "--listen", "127.0.0.1:0", "-f", "nothing.yaml"]);
    assert_eq!(missing, "error: cannot read nothing.yaml: No such file or directory (os error 2)\n");
    assert!(!cluster.directory().join("other-kubeconfig").exists(), "nothing was started");
}

fn images_can_be_managed_without_a_cluster(cluster: &Cluster) {
    cluster.write("job.wat", &Guest::new().exit(0).wat());
    let image = |arguments: &[&str]| cluster.coracle(&[&["image"], arguments, &["--data-dir", "data"]].concat());
    let listed = |ran: Ran| {
        ran.ok()
            .lines()
            .skip(1)
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned() + " ")
            .collect::<String>()
    };
    assert!(image(&["import", "job:v1", "job.wat"]).ok().starts_with("image job:v1 imported (sha256:"));
    assert!(listed(image(&["ls"])).contains("job:v1 "));
    assert_eq!(image(&["rm", "job:v1"]).ok(), "image job:v1 removed\n");
    assert!(!listed(image(&["ls"])).contains("job:v1 "));
    assert_eq!(image(&["rm", "job:v1"]).fails(), "error: image \"job:v1\" not found\n");
}

/// The same pods run again, and what was written is there.
fn comes_back(cluster: &Cluster, before: &[String]) {
    cluster.kubectl("wait --for=condition=Available deployment/express-api-deployment --timeout=60s");
    cluster.wait(
        "all four are available",
        "/apis/apps/v1/namespaces/default/deployments/express-api-deployment",
        |it| it["status"]["availableReplicas"] == 4,
    );
    assert_eq!(names(cluster), before, "the same pods as before");
    assert_eq!(cluster.kubectl("get configmap note -o jsonpath={.data.a}"), "b");
}

#[test]
fn a_kubeconfig_keeps_what_else_is_in_it() {
    const OTHER: &str = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: https://work.example}\ncontexts:\n- name: work\n  context: {cluster: work, user: me}\nusers:\n- name: me\n  user: {token: secret}\n";
    let options = Options { arguments: &["--nodes", "0", "--fake-nodes", "2"], memory: true, kubeconfig: Some(OTHER) };
    let Some(mut cluster) = Cluster::with(&options) else { return };
    let output = cluster.output();
    assert!(output.contains("The current context is still \"work\"; switch with: kubectl --kubeconfig"), "{output}");
    assert_eq!(cluster.kubectl("config current-context"), "work\n");
    assert_eq!(cluster.kubectl("config get-contexts -o name"), "coracle\nwork\n");
    cluster.kubectl("config use-context coracle");
    fake_nodes_run_pods(&cluster);
    let down = cluster.coracle(&["down"]).ok();
    assert_eq!(down, "The cluster is stopped.\n");
    assert_eq!(cluster.ended().code(), Some(0));
    assert_eq!(cluster.kubectl("config get-contexts -o name"), "work\n");
}

/// `--nodes 0 --fake-nodes 2`: nothing is run, and everything looks as if it were.
fn fake_nodes_run_pods(cluster: &Cluster) {
    expect![[r"
        fake-0  Ready
        fake-1  Ready
    "]]
    .assert_eq(&Mask::new().apply(&columns(&cluster.kubectl("get nodes --no-headers"), 2)));
    cluster.kubectl("create deployment web --image=anything:v1 --replicas=3");
    cluster.kubectl("rollout status deployment/web --timeout=30s");
    let statuses = columns(&cluster.kubectl("get pods --no-headers"), 3);
    assert_eq!(statuses.lines().filter(|line| line.ends_with("1/1  Running")).count(), 3, "{statuses}");
}

/// The first columns of each line.
fn columns(table: &str, count: usize) -> String {
    let line = |line: &str| line.split_whitespace().take(count).collect::<Vec<_>>().join("  ") + "\n";
    table.lines().map(line).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_terminal_no_color_leaves_colours_and_spinners_out() {
    if Command::new("script").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "there is no program `script` to make a terminal with");
        return;
    }
    let escapes = |no_color: &str| {
        let home = tempfile::tempdir().expect("there is room for a temporary directory");
        let program = program(home.path());
        let run = format!(
            "{} up --memory --nodes 0 --fake-nodes 1 --listen 127.0.0.1:0 --kubeconfig config -f web.yaml",
            program.get_program().to_string_lossy()
        );
        fs::write(home.path().join("web.yaml"), FAKE_POD).expect("a file is written");
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--flush", "--command", &run, "typescript"]);
        terminal.env("HOME", home.path()).env("NO_COLOR", no_color).env("TERM", "xterm").current_dir(home.path());
        let mut child = terminal.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        let printed = eventually("it is up", || {
            let text = fs::read_to_string(home.path().join("typescript")).unwrap_or_default();
            if text.contains("Press Ctrl-C to stop.") { Ok(text) } else { Err(text) }
        });
        let mut down = crate::harness::program(home.path());
        down.args(["down", "--kubeconfig", "config"]).current_dir(home.path());
        finish(down).ok();
        assert!(child.wait().expect("it ends").success());
        printed.contains('\u{1b}')
    };
    assert!(escapes(""), "a terminal shows the progress in place");
    assert!(!escapes("1"), "unless it is asked not to");
}

const FAKE_POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: web, image: 'anything:v1'}]}
";

#[test]
fn what_is_not_running_is_said_in_a_line() {
    let home = tempfile::tempdir().expect("there is room for a temporary directory");
    let refused = |arguments: &[&str]| {
        let mut command: Command = program(home.path());
        command.args(arguments).current_dir(home.path());
        let ran = finish(command);
        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{ran:?}");
        ran.stderr
    };
    assert_eq!(
        refused(&["logs", "web", "--data-dir", "data"]),
        "error: no cluster runs on data; start it with `coracle up --data-dir`\n"
    );
    assert_eq!(
        refused(&["logs", "web", "--kubeconfig", "config"]),
        "error: config has no context \"coracle\"; start a cluster with `coracle up`\n"
    );
    fs::create_dir(home.path().join("precious")).expect("a folder is made");
    assert_eq!(
        refused(&["down", "--data-dir", "precious", "--delete-data", "--yes"]),
        "error: precious is not deleted: it is no data directory of a cluster\n"
    );
}
