//! Docker Engine: images made from scratch for tests, and a look at what a cluster has left there.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::kubectl::{Ran, finish};

/// The image of the tests: busybox with its applets. Nothing can be pulled.
pub(crate) const IMAGE: &str = "coracle.test/busybox:1";
/// Where Debian and others put a busybox that needs no library.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/local/bin/busybox"];
/// What tests use of it.
const APPLETS: [&str; 16] = [
    "sh", "sleep", "echo", "cat", "ls", "httpd", "tail", "id", "hostname", "wget", "kill", "nslookup", "ps", "touch",
    "mkdir", "test",
];

/// The Engine, for the nodes of one test; what they leave there is removed with it.
#[derive(Debug)]
pub(crate) struct Docker {
    /// The name that the test's node has to have.
    pub(crate) node: String,
    host: &'static str,
}

/// The machine's Engine.
const HOST: &str = "unix:///var/run/docker.sock";

impl Docker {
    /// The Engine with the image of the tests; `None`, and a word about it, where there is none. In CI that is a failure.
    pub(crate) fn new() -> Option<Self> {
        let missing = missing();
        if let Some(missing) = missing {
            assert!(std::env::var_os("CI").is_none(), "{missing}, and CI is set");
            let _ = writeln!(std::io::stderr(), "skipped: {missing}");
            return None;
        }
        let docker = Self { node: format!("docker-{}", std::process::id()), host: HOST };
        docker.image(IMAGE, "exec sleep 1000000");
        Some(docker)
    }

    /// The Engine for three machines, each with a node of its own there.
    #[track_caller]
    pub(crate) fn three() -> Option<[Self; 3]> {
        let first = Self::new()?;
        let (host, process) = (first.host, std::process::id());
        let of = |machine: u32| Self { node: format!("docker-{process}-{machine}"), host };
        Some([1, 2, 3].map(of))
    }

    /// Makes an image of a program of this machine, with the libraries that it needs, and a variable.
    #[track_caller]
    pub(crate) fn program(&self, name: &str, program: &str, variable: &str) {
        let folder = tempfile::tempdir().expect("there is room for a temporary directory");
        let copy = |from: &Path, to: &str| {
            let to = folder.path().join(to.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().expect("it is in a folder")).expect("a folder is made");
            std::fs::copy(from, to).expect("a file is copied");
        };
        copy(Path::new(program), "/bin/program");
        let needed = Command::new("ldd").arg(program).output().expect("there is a program `ldd`");
        let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
        // Where each is: a program finds it by the same path in the container.
        for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(library), library);
        }
        std::fs::create_dir_all(folder.path().join("etc")).expect("a folder is made");
        pack(self.host, folder.path(), name, &["CMD [\"/bin/program\"]", &format!("ENV {variable}")]);
    }

    /// Makes an image of the tests' file system that runs a script, unless there is one of this name.
    #[track_caller]
    pub(crate) fn image(&self, name: &str, script: &str) {
        if self.run(&["image", "inspect", name]).code != Some(0) {
            import(self.host, name, script);
        }
    }

    /// Runs the Docker client.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("docker");
        command.args(["-H", self.host]).args(arguments);
        finish(command)
    }

    /// The ids of the node's containers, sandboxes among them, of which each has this label, too (`coracle.dev/...=...`, or none).
    #[track_caller]
    pub(crate) fn containers(&self, label: &str) -> Vec<String> {
        let node = format!("label=coracle.dev/node={}", self.node);
        let label = format!("label={label}");
        let mut arguments = vec!["ps", "-aq", "--no-trunc", "--filter", &node];
        if label != "label=" {
            arguments.extend(["--filter", &label]);
        }
        self.run(&arguments).ok().lines().map(str::to_owned).collect()
    }

    /// Everything that the Engine has of the node.
    #[track_caller]
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let node = format!("label=coracle.dev/node={}", self.node);
        let mut found = self.containers("");
        for kind in ["network", "volume"] {
            found.extend(self.run(&[kind, "ls", "-q", "--filter", &node]).ok().lines().map(str::to_owned));
        }
        found
    }

    /// A field of `docker inspect`, by a Go template.
    #[track_caller]
    pub(crate) fn inspect(&self, container: &str, template: &str) -> String {
        self.run(&["inspect", "--format", template, container]).ok().trim().to_owned()
    }
}

impl Docker {
    /// Removes everything that the Engine has of the node.
    pub(crate) fn clear(&self) {
        let node = format!("label=coracle.dev/node={}", self.node);
        for (list, remove) in [
            (["ps", "-aq"], ["rm", "-fv"]),
            (["network", "ls"], ["network", "rm"]),
            (["volume", "ls"], ["volume", "rm"]),
        ] {
            let mut arguments = list.to_vec();
            arguments.extend(["--filter", &node]);
            if list[1] == "ls" {
                arguments.push("-q");
            }
            let found = self.run(&arguments).stdout;
            let found: Vec<&str> = found.lines().collect();
            if !found.is_empty() {
                self.run(&[&remove[..], &found].concat());
            }
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.clear();
    }
}

fn missing() -> Option<String> {
    let answers = Command::new("docker").args(["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !answers.is_ok_and(|status| status.success()) {
        return Some("Docker Engine does not answer here".into());
    }
    busybox().is_none().then(|| "there is no static busybox (Debian: busybox-static)".into())
}

fn busybox() -> Option<&'static str> {
    BUSYBOX.into_iter().find(|path| Path::new(path).exists())
}

/// Makes the image: a folder with the program and its names, taken in as a file system.
#[track_caller]
fn import(engine: &str, name: &str, script: &str) {
    let folder = tempfile::tempdir().expect("there is room for a temporary directory");
    let bin = folder.path().join("bin");
    for made in ["bin", "tmp", "etc"] {
        std::fs::create_dir(folder.path().join(made)).expect("a folder is made");
    }
    std::fs::copy(busybox().expect("it was looked for"), bin.join("busybox")).expect("the program is copied");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a link is made");
    }
    pack(engine, folder.path(), name, &[&format!("CMD [\"/bin/sh\", \"-c\", \"{script}\"]"), "ENV PATH=/bin"]);
}

/// Has a folder taken in as the file system of an image.
#[track_caller]
fn pack(engine: &str, folder: &Path, name: &str, changes: &[&str]) {
    let mut tar = Command::new("tar")
        .args(["-C", &folder.to_string_lossy(), "-c", "."])
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a program `tar`");
    let archive = tar.stdout.take().expect("it is piped");
    let imported = Command::new("docker")
        .args(["-H", engine, "import"])
        .args(changes.iter().flat_map(|change| ["--change", change]))
        .args(["-", name])
        .stdin(archive)
        .stdout(Stdio::null())
        .status();
    assert!(imported.is_ok_and(|status| status.success()), "the image of the tests is imported");
    assert!(tar.wait().is_ok_and(|status| status.success()), "the image of the tests is packed");
}
