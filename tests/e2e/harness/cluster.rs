//! A cluster in a process of its own, in a temporary directory, on a free port.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::http::Token;
use super::{Http, Ran, eventually, is_installed, kubectl};

/// How a cluster is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options<'a> {
    /// More arguments of `coracle up`.
    pub(crate) arguments: &'a [&'a str],
    /// Nothing on the disk.
    pub(crate) memory: bool,
    /// What the kubeconfig holds before.
    pub(crate) kubeconfig: Option<&'a str>,
}

/// A running cluster, stopped with the value.
pub(crate) struct Cluster {
    directory: TempDir,
    process: Option<Child>,
    memory: bool,
    http: OnceCell<Http>,
}

/// The program under test, with nothing of the user's around it.
pub(crate) fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coracle-under-test"));
    command.env("HOME", home).env_remove("KUBECONFIG").env_remove("XDG_DATA_HOME");
    command
}

impl Cluster {
    /// A cluster that keeps its state on the disk; `None` when there is no kubectl to use it with.
    #[track_caller]
    pub(crate) fn up() -> Option<Self> {
        Self::with(&Options::default())
    }

    #[track_caller]
    pub(crate) fn with(options: &Options<'_>) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let directory = tempfile::tempdir().expect("there is room for a temporary directory");
        let mut cluster = Self { directory, process: None, memory: options.memory, http: OnceCell::new() };
        if let Some(kubeconfig) = options.kubeconfig {
            cluster.write("kubeconfig", kubeconfig);
        }
        let mut arguments = vec!["--listen", "127.0.0.1:0"];
        arguments.extend(options.arguments);
        cluster.start(&arguments);
        Some(cluster)
    }

    /// A place for a cluster's or a member's files; its process is started by the test.
    pub(crate) fn elsewhere() -> Self {
        let directory = tempfile::tempdir().expect("there is room for a temporary directory");
        Self { directory, process: None, memory: false, http: OnceCell::new() }
    }

    /// A process of its own that joins the cluster of this one.
    #[track_caller]
    pub(crate) fn joined(&self, token: &str, arguments: &[&str]) -> Self {
        let mut member = Self::elsewhere();
        let address = self.address();
        let mut all = vec!["join", &address, "--token", token];
        all.extend(arguments);
        if !arguments.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        member.run_program(program(member.directory()), &all);
        member
    }

    /// Starts the process (again), and waits until it says that all is up.
    #[track_caller]
    pub(crate) fn start(&mut self, arguments: &[&str]) {
        let program = program(self.directory());
        self.run_program(program, &[&["up"], arguments].concat());
    }

    /// Starts a program with these arguments and this cluster's files, and waits until it says that all is up.
    #[track_caller]
    pub(crate) fn run_program(&mut self, program: Command, arguments: &[&str]) {
        self.begin(program, arguments);
        self.until_up();
    }

    /// The same without waiting.
    #[track_caller]
    pub(crate) fn begin(&mut self, mut command: Command, arguments: &[&str]) {
        assert!(self.process.is_none(), "the cluster runs already");
        command.args(arguments);
        // What a machine happens to have does not change what a test sees.
        if matches!(arguments.first(), Some(&("up" | "join"))) && !arguments.contains(&"--docker") {
            command.args(["--docker", "off"]);
        }
        if matches!(arguments.first(), Some(&("up" | "join"))) && !arguments.contains(&"--host-network") {
            command.args(["--host-network", "off"]);
        }
        command.arg("--kubeconfig").arg(self.kubeconfig());
        if self.memory {
            command.arg("--memory");
        } else {
            command.arg("--data-dir").arg(self.data_dir());
        }
        let file = |name: &str| File::create(self.path(name)).expect("a file for the output is made");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        self.process = Some(command.spawn().expect("the program starts"));
        self.http = OnceCell::new();
    }

    /// Waits until the process says that all is up.
    #[track_caller]
    pub(crate) fn until_up(&mut self) {
        eventually("the cluster is up", || {
            let child = self.process.as_mut().expect("it was started");
            let ended = child.try_wait().expect("a child can be waited for");
            if let Some(status) = ended {
                panic!("the cluster stopped at once ({status}):\n{}", self.output());
            }
            if self.output().contains("Press Ctrl-C to stop.") { Ok(()) } else { Err(self.output()) }
        });
    }

    /// What the process printed so far, standard output first.
    pub(crate) fn output(&self) -> String {
        ["stdout", "stderr"].map(|name| fs::read_to_string(self.path(name)).unwrap_or_default()).concat()
    }

    /// Where the test can put files; home of the programs it starts.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// `127.0.0.1:PORT`, as the kubeconfig says.
    pub(crate) fn address(&self) -> String {
        let text = fs::read_to_string(self.kubeconfig()).expect("the kubeconfig can be read");
        let (_, server) = text.rsplit_once("https://127.").expect("the kubeconfig names a server");
        format!("127.{}", server.split(['"', '\n']).next().expect("a split has a first part"))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the cluster runs").id()
    }

    /// Bytes of the process that are in memory, where the system says so.
    pub(crate) fn resident_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kibibytes << 10)
    }

    /// Sends the process a signal (`INT`, `KILL`) and waits for its end.
    #[track_caller]
    pub(crate) fn signal(&mut self, signal: &str) -> ExitStatus {
        self.tell(signal);
        self.ended()
    }

    /// Sends the process a signal that does not end it (`STOP`, `CONT`).
    #[track_caller]
    pub(crate) fn tell(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("there is a program `kill`").success());
    }

    /// Waits for the end of a process that something else has stopped.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("the cluster runs");
        eventually("the process has ended", || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(other),
        })
    }

    /// Runs `coracle` with these arguments and this cluster's kubeconfig.
    pub(crate) fn coracle(&self, arguments: &[&str]) -> Ran {
        let mut command = program(self.directory());
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).current_dir(self.directory());
        kubectl::run(command, None)
    }

    /// Runs kubectl, in the folder of the test's files.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[], None)
    }

    /// The same with environment variables, and with something on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)], input: Option<&str>) -> Ran {
        let mut command = self.kubectl_command(arguments);
        command.envs(environment.iter().copied());
        kubectl::run(command, input)
    }

    /// A kubectl that the test itself starts.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments).current_dir(self.directory());
        command.env("HOME", self.directory()).env("KUBECONFIG", self.kubeconfig()).env("TZ", "UTC");
        command
    }

    /// What a kubectl that has to succeed prints. The arguments are one text, split at spaces.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &str) -> String {
        self.run(&arguments.split_whitespace().collect::<Vec<_>>()).ok()
    }

    /// What a kubectl that has to fail complains of.
    #[track_caller]
    pub(crate) fn kubectl_fails(&self, arguments: &str) -> String {
        self.run(&arguments.split_whitespace().collect::<Vec<_>>()).fails()
    }

    /// `kubectl apply` of a text.
    #[track_caller]
    pub(crate) fn apply(&self, manifest: &str) -> String {
        self.run_with(&["apply", "-f", "-"], &[], Some(manifest)).ok()
    }

    /// Imports a module's text as an image.
    #[track_caller]
    pub(crate) fn import(&self, name: &str, module: &str) -> String {
        self.write("image.wat", module);
        self.coracle(&["image", "import", name, "image.wat"]).ok()
    }

    /// Writes a file into the folder that kubectl runs in.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file is written");
    }

    /// Requests as the administrator.
    pub(crate) fn http(&self) -> &Http {
        self.http.get_or_init(|| Http::new(&self.kubeconfig(), Token::Admin))
    }

    /// An object or list, read without kubectl.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.http().get(path);
        assert_eq!(answer.code, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// Waits until an object is as `holds` says, and returns it.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let answer = self.http().get(path);
            if answer.code == 200 && holds(&answer.json()) { Ok(answer.json()) } else { Err(answer.text) }
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "the cluster's output:\n{}", self.output());
        }
    }
}
