//! Guests in other languages than Rust: C, by the compiler in PyPI's ziglang, and Python, by componentize-py.
//!
//! Where python3 has no such module the tests say so and pass, unless `CI` is set: there they fail.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Cluster, Options};

const PODS: &str = "/api/v1/namespaces/default/pods";

const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    printf("C says %s to %s\n", getenv("WORD"), argv[1]);
    return argc == 2 ? 4 : 5;
}
"#;

const PYTHON: &str = r#"
import os
import sys
from wit_world import exports


class Run(exports.Run):
    def run(self):
        print("Python says", os.environ["WORD"], "to", sys.argv[1])
        for line in open("/etc/settings/greeting"):
            print(line.strip())
"#;

/// Whether python3 has a module.
fn has_module(name: &str) -> bool {
    let import = format!("import {name}");
    let found = Command::new("python3").args(["-c", &import]).stderr(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "python3 has no module {name}, and CI is set");
        let _ = writeln!(std::io::stderr(), "skipped: python3 has no module {name}");
    }
    is_there
}

#[track_caller]
fn build(folder: &Path, arguments: &[&str]) {
    let built = Command::new("python3").args(arguments).current_dir(folder).output().expect("python3 runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// WASI's interfaces, from the crate that implements them.
fn interfaces() -> PathBuf {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("cargo answers in JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let wasi =
        packages.iter().find(|package| package["name"] == "wasmtime-wasi").expect("it is built on wasmtime-wasi");
    let manifest = Path::new(wasi["manifest_path"].as_str().expect("a package has a manifest"));
    manifest.with_file_name("src").join("p2/wit")
}

/// Runs an image to its end; its pod.
fn run(cluster: &Cluster, name: &str, phase: &str) -> Value {
    cluster.coracle(&["image", "import", &format!("test/{name}:v1"), &format!("{name}.wasm")]).ok();
    cluster.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": format!("test/{name}:v1"),
                    "args": ["you"], "command": [name],
                    "env": [{"name": "WORD", "value": "hello"}],
                    "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}],
                }],
                "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
            },
        })
        .to_string(),
    );
    cluster.wait(&format!("{name} ends"), &format!("{PODS}/{name}"), |pod| pod["status"]["phase"] == phase)
}

fn cluster() -> Option<Cluster> {
    let cluster = Cluster::with(&Options { memory: true, ..Options::default() })?;
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"greeting": "good morning"}});
    cluster.apply(&settings.to_string());
    Some(cluster)
}

#[test]
fn a_program_in_c_is_a_pod() {
    if !has_module("ziglang") {
        return;
    }
    let Some(cluster) = cluster() else { return };
    cluster.write("c.c", C);
    build(cluster.directory(), &["-m", "ziglang", "cc", "-target", "wasm32-wasi", "-Os", "-o", "c.wasm", "c.c"]);
    let pod = run(&cluster, "c", "Failed");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 4);
    assert_eq!(cluster.kubectl("logs c"), "C says hello to you\n");
}

#[test]
fn a_program_in_python_is_a_pod() {
    if !has_module("componentize_py") {
        return;
    }
    let Some(cluster) = cluster() else { return };
    cluster.write("app.py", PYTHON);
    let interfaces = interfaces();
    let main = "import sys; from componentize_py import script; sys.exit(script())";
    let world = ["-d", interfaces.to_str().expect("a path is UTF-8"), "-w", "wasi:cli/command@0.2.12"];
    let rest = ["componentize", "app", "-o", "python.wasm"];
    build(cluster.directory(), &[&["-c", main][..], &world, &rest].concat());
    run(&cluster, "python", "Succeeded");
    assert_eq!(cluster.kubectl("logs python"), "Python says hello to you\ngood morning\n");
}
