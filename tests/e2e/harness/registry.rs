//! A registry of Debian's `docker-registry`, in a temporary directory, on a free port of this machine.

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Docker, Ran, eventually, program};

/// The user of a private registry, the password, both as `docker login` keeps them, and their line in a file of htpasswd's.
pub(crate) const USER: &str = "me";
pub(crate) const PASSWORD: &str = "secret";
const AUTH: &str = "bWU6c2VjcmV0";
const HTPASSWD: &str = "me:$2b$05$d64Jq0U1WkrWLBGe42dSZemmk7ttkR.ZTaiBCG7kz06FWBmaXFiL.\n";

/// A running registry, stopped with the value.
pub(crate) struct Registry {
    directory: TempDir,
    process: Child,
    /// The names of images that an Engine may have pulled from here.
    containers: RefCell<Vec<String>>,
    /// `localhost:PORT`, as images name it.
    pub(crate) host: String,
}

impl Registry {
    /// A registry that everybody may use; `None` when there is none to start.
    pub(crate) fn open() -> Option<Self> {
        Self::start("")
    }

    /// A registry for one user.
    pub(crate) fn private() -> Option<Self> {
        Self::start("auth: {htpasswd: {realm: test, path: PASSWORDS}}\n")
    }

    fn start(auth: &str) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let directory = tempfile::tempdir().expect("there is room for a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let passwords = path("passwords");
        fs::write(&passwords, HTPASSWD).expect("a file is written");
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n{}",
            path("storage").display(),
            auth.replace("PASSWORDS", &passwords.display().to_string())
        );
        fs::write(path("config.yml"), config).expect("a file is written");
        let log = fs::File::create(path("log")).expect("a file for the output is made");
        let process = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file is opened twice"))
            .stderr(log)
            .spawn()
            .expect("the registry starts");
        let port = eventually("the registry listens", || {
            let log = fs::read_to_string(path("log")).unwrap_or_default();
            let port = log
                .split_once("listening on 127.0.0.1:")
                .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            port.filter(|port| !port.is_empty()).ok_or(log)
        });
        Some(Self { directory, process, containers: RefCell::default(), host: format!("localhost:{port}") })
    }

    /// `coracle image push` of a module's text, as the registry's user, whom the cluster knows nothing of.
    pub(crate) fn push(&self, name: &str, module: &str) -> Ran {
        self.push_wasm(name, module.as_bytes())
    }

    /// The same of a module or component, binary or text.
    pub(crate) fn push_wasm(&self, name: &str, module: &[u8]) -> Ran {
        let home = self.home();
        fs::write(home.join("pushed"), module).expect("a file is written");
        let mut command = program(&home);
        command.args(["image", "push", &format!("{}/{name}", self.host), "pushed"]);
        command.env_remove("DOCKER_CONFIG").current_dir(&home);
        super::finish(command)
    }

    /// `docker push` of an image that the Engine has by another name, as the registry's user. The Engine forgets the new name.
    #[track_caller]
    pub(crate) fn push_container(&self, docker: &Docker, name: &str, image: &str) {
        let name = format!("{}/{name}", self.host);
        docker.run(&["tag", image, &name]).ok();
        let login = self.home().join(".docker");
        docker.run(&["--config", &login.to_string_lossy(), "push", "-q", &name]).ok();
        docker.run(&["image", "rm", &name]).ok();
        self.containers.borrow_mut().push(name);
    }

    /// The home of the registry's user, who is logged in.
    fn home(&self) -> PathBuf {
        let home = self.directory.path().join("home");
        fs::create_dir_all(home.join(".docker")).expect("a folder is made");
        let login = serde_json::json!({"auths": {&self.host: {"auth": AUTH}}});
        fs::write(home.join(".docker/config.json"), login.to_string()).expect("a file is written");
        home
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for name in self.containers.get_mut() {
            let _ = Command::new("docker").args(["image", "rm", "-f", name]).stdout(Stdio::null()).status();
        }
    }
}

/// Whether there is a registry to start. Says so when there is none; in CI that is a failure.
fn is_installed() -> bool {
    let found = Command::new("docker-registry").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "docker-registry is not installed, and CI is set");
        let _ = writeln!(std::io::stderr(), "skipped: docker-registry is not installed");
    }
    found
}
