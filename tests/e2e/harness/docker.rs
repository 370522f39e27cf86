//! Docker Engine: images made from scratch for tests, and a look at what a cluster has left there.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::eventually;
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
    host: String,
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
        Some(Self::at(HOST, ""))
    }

    /// An Engine for a node with this at the end of its name.
    #[track_caller]
    pub(crate) fn at(host: &str, suffix: &str) -> Self {
        let docker = Self { node: format!("docker-{}{suffix}", std::process::id()), host: host.to_owned() };
        docker.image(IMAGE, "exec sleep 1000000");
        docker
    }

    /// The same Engine for another node.
    #[track_caller]
    pub(crate) fn beside(&self, suffix: &str) -> Self {
        Self::at(&self.host, suffix)
    }

    /// The Engine's socket.
    pub(crate) fn socket(&self) -> &str {
        self.host.trim_start_matches("unix://")
    }

    /// Makes an image of the tests' file system with a program of this workspace, which it runs.
    #[track_caller]
    pub(crate) fn tool(&self, name: &str, program: &str) {
        import(&self.host, name, "exit 0", Some(Path::new(program)));
    }

    /// The Engine for three machines, each with a node of its own there.
    #[track_caller]
    pub(crate) fn three() -> Option<[Self; 3]> {
        let first = Self::new()?;
        let process = std::process::id();
        let of = |machine: u32| Self { node: format!("docker-{process}-{machine}"), host: first.host.clone() };
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
        pack(&self.host, folder.path(), name, &["CMD [\"/bin/program\"]", &format!("ENV {variable}")]);
    }

    /// Makes an image of the tests' file system that runs a script, unless there is one of this name.
    #[track_caller]
    pub(crate) fn image(&self, name: &str, script: &str) {
        if self.run(&["image", "inspect", name]).code != Some(0) {
            import(&self.host, name, script, None);
        }
    }

    /// Runs the Docker client.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("docker");
        command.args(["-H", &self.host]).args(arguments);
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
fn import(engine: &str, name: &str, script: &str, program: Option<&Path>) {
    let folder = tempfile::tempdir().expect("there is room for a temporary directory");
    let bin = folder.path().join("bin");
    for made in ["bin", "tmp", "etc"] {
        std::fs::create_dir(folder.path().join(made)).expect("a folder is made");
    }
    std::fs::copy(busybox().expect("it was looked for"), bin.join("busybox")).expect("the program is copied");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a link is made");
    }
    if let Some(program) = program {
        add(folder.path(), program);
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

/// Adds a program with its libraries to a file system, away from where busybox would find them: it is linked with others.
#[track_caller]
fn add(root: &Path, program: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    let opt = root.join("opt");
    std::fs::create_dir(&opt).expect("a folder is made");
    let name = program.file_name().expect("it has a name").to_string_lossy();
    std::fs::copy(program, opt.join(&*name)).expect("the program is copied");
    let mut loader = String::new();
    for library in libraries(program) {
        let (_, file) = library.rsplit_once('/').expect("it is a path");
        std::fs::copy(&library, opt.join(file)).expect("a library is copied");
        if file.starts_with("ld-") {
            file.clone_into(&mut loader);
        }
    }
    let starter = root.join("bin").join(&*name);
    let script = format!("#!/bin/sh\nexec /opt/{loader} --library-path /opt /opt/{name} \"$@\"\n");
    std::fs::write(&starter, script).expect("a script is written");
    std::fs::set_permissions(&starter, std::fs::Permissions::from_mode(0o755)).expect("it may run");
}

/// The libraries that a program is loaded with, its loader among them.
#[track_caller]
fn libraries(program: &Path) -> Vec<String> {
    let mut command = Command::new("ldd");
    command.arg(program);
    let printed = finish(command).ok();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    printed.lines().filter_map(path).collect()
}

/// A Docker Engine of the test's own, apart from the machine's in all it has; it ends with the value.
pub(crate) struct Engine {
    folder: tempfile::TempDir,
    namespace: Option<String>,
    process: Option<Child>,
}

impl Engine {
    /// In a network namespace, or in one of its own, where only it reaches its containers; `None`, and a word about it, where none can run.
    #[track_caller]
    pub(crate) fn new(namespace: Option<&str>) -> Option<Self> {
        let root = finish(command("id", &["-u"])).stdout.trim() == "0";
        if missing().is_some() || !root || finish(command("dockerd", &["--version"])).code != Some(0) {
            assert!(
                std::env::var_os("CI").is_none() || !root,
                "there can be no Docker Engine of a test's own, and CI is set"
            );
            let _ = writeln!(std::io::stderr(), "skipped: a Docker Engine of the test's own needs root and dockerd");
            return None;
        }
        let folder = tempfile::tempdir().expect("there is room for a temporary directory");
        std::fs::write(folder.path().join("daemon.json"), "{}").expect("a file is written");
        let mut engine = Self { folder, namespace: namespace.map(str::to_owned), process: None };
        engine.start();
        Some(engine)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// Its address, as `docker -H` takes it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock"))
    }

    fn answers(&self) -> bool {
        finish(command("docker", &["-H", &self.host(), "version"])).code == Some(0)
    }

    /// Starts it (again), and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        let driver = finish(command("docker", &["-H", HOST, "info", "--format", "{{.Driver}}"])).ok();
        let mut dockerd = match &self.namespace {
            // Not `ip netns exec`: that hides the control groups.
            Some(name) => command("nsenter", &[&format!("--net=/run/netns/{name}"), "dockerd"]),
            // Not this machine's: an Engine without a bridge of its own removes the one that it finds.
            None => command("unshare", &["--net", "dockerd"]),
        };
        for (option, value) in [
            ("--config-file", self.path("daemon.json")),
            ("--data-root", self.path("data")),
            ("--exec-root", self.path("exec")),
            ("--pidfile", self.path("pid")),
            ("--host", self.host()),
            ("--storage-driver", driver.trim().to_owned()),
            ("--bridge", "none".to_owned()),
            ("--shutdown-timeout", "3".to_owned()),
        ] {
            dockerd.args([option, &value]);
        }
        let log = std::fs::File::create(self.path("log")).expect("a file for the log is made");
        let errors = log.try_clone().expect("a file can be shared");
        self.process = Some(dockerd.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("it starts"));
        eventually("the test's own Engine answers", || {
            if self.answers() { Ok(()) } else { Err(std::fs::read_to_string(self.path("log")).unwrap_or_default()) }
        });
    }

    /// Ends it with this signal and waits until it has ended: `TERM` ends its containers, too, `KILL` leaves them running.
    #[track_caller]
    pub(crate) fn stop(&mut self, signal: &str) {
        let mut process = self.process.take().expect("it runs");
        finish(command("kill", &[&format!("-{signal}"), &process.id().to_string()])).ok();
        eventually("the test's own Engine has ended", || match process.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(other),
        });
        self.end_containerd();
    }

    /// A killed Engine leaves its containerd, or the file that says that it is there, which the next would wait for.
    fn end_containerd(&self) {
        let file = self.path("exec/containerd/containerd.pid");
        if let Ok(pid) = std::fs::read_to_string(&file) {
            finish(command("kill", &["-KILL", pid.trim()]));
            let _ = std::fs::remove_file(&file);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // What a killed one has left ends in order only with one that runs.
        if self.process.is_none() && !std::thread::panicking() {
            self.start();
        }
        if self.process.is_some() {
            self.stop("TERM");
        }
        self.end_containerd();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let own = self.folder.path().to_string_lossy().into_owned();
        for mounted in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&own)) {
            finish(command("umount", &["-l", mounted]));
        }
    }
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
