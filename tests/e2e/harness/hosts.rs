//! Several hosts on this one: network namespaces with an address each, wired to a hub. Cables can be pulled, packets lost, and hosts moved.
//!
//! It needs `ip` and `iptables`, and root. Where they are missing the tests say so and pass; where `CI` is set the programs must be there.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Cluster, Ran, finish, is_installed};

/// Networks that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// The hosts; they are gone with the value.
pub(crate) struct Hosts {
    hub: String,
    names: Vec<String>,
}

impl Hosts {
    /// So many hosts; `None` where there can be none.
    #[track_caller]
    pub(crate) fn new(count: usize) -> Option<Self> {
        if !is_installed() || !may_have_namespaces() {
            return None;
        }
        let id = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let hosts = Self {
            hub: format!("coracle-hub-{id}"),
            names: (1..=count).map(|host| format!("coracle-{host}-{id}")).collect(),
        };
        let hub = hosts.hub.as_str();
        ip(&["netns", "add", hub]);
        ip(&["-n", hub, "link", "add", "hub", "type", "bridge"]);
        ip(&["-n", hub, "link", "set", "hub", "up"]);
        ip(&["-n", hub, "link", "set", "lo", "up"]);
        ip(&["-n", hub, "addr", "add", &format!("{}/24", Self::HUB), "dev", "hub"]);
        for (host, name) in hosts.names.iter().enumerate() {
            let cable = cable(host);
            ip(&["netns", "add", name]);
            ip(&["-n", hub, "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", name]);
            ip(&["-n", hub, "link", "set", &cable, "master", "hub", "up"]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
            ip(&["-n", name, "addr", "add", &format!("{}/24", Self::address(host)), "dev", "eth0"]);
        }
        Some(hosts)
    }

    /// The address of what joins the hosts.
    pub(crate) const HUB: &str = "10.77.0.254";

    /// A web server with an empty page on what joins the hosts; it ends with the value.
    #[track_caller]
    pub(crate) fn serve_on_hub(&self, port: u16) -> Server {
        let folder = tempfile::tempdir().expect("there is room for a temporary directory");
        std::fs::write(folder.path().join("index.html"), "outside\n").expect("a file is written");
        let mut httpd = Command::new("busybox");
        httpd.args(["httpd", "-f", "-p", &port.to_string(), "-h"]).arg(folder.path());
        let process = within(&self.hub, &httpd).stdin(Stdio::null()).spawn().expect("it starts");
        Server { process, _folder: folder }
    }

    /// The address that a host has at first.
    pub(crate) fn address(host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }

    /// A program on a host.
    pub(crate) fn on(&self, host: usize, program: &Command) -> Command {
        within(&self.names[host], program)
    }

    /// Runs kubectl or another command with a cluster's kubeconfig, on the hub, from where every host is reached.
    pub(crate) fn run(&self, cluster: &Cluster, command: &[&str]) -> Ran {
        finish(within(&self.hub, &tool(cluster, command)))
    }

    /// The same on a host.
    pub(crate) fn run_on(&self, host: usize, cluster: &Cluster, command: &[&str]) -> Ran {
        finish(within(&self.names[host], &tool(cluster, command)))
    }

    /// Runs any program on a host.
    pub(crate) fn exec(&self, host: usize, arguments: &[&str]) -> Ran {
        let mut command = Command::new(arguments[0]);
        command.args(&arguments[1..]);
        finish(within(&self.names[host], &command))
    }

    /// The name of a host's namespace.
    pub(crate) fn name(&self, host: usize) -> &str {
        &self.names[host]
    }

    /// Pulls a host's cable, or plugs it in again.
    #[track_caller]
    pub(crate) fn plug(&self, host: usize, plugged: bool) {
        ip(&["-n", &self.hub, "link", "set", &cable(host), if plugged { "up" } else { "down" }]);
    }

    /// Gives a host another address, and takes its own away.
    #[track_caller]
    pub(crate) fn move_to(&self, host: usize, address: &str) {
        let name = &self.names[host];
        ip(&["-n", name, "addr", "flush", "dev", "eth0"]);
        ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
    }

    /// Lets a host lose a share of the packets that come to it.
    #[track_caller]
    pub(crate) fn lose(&self, host: usize, probability: &str) {
        let mut rule = Command::new("iptables");
        rule.args(["-A", "INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", probability]);
        rule.args(["-j", "DROP"]);
        finish(within(&self.names[host], &rule)).ok();
    }

    /// Lets a host hear nothing from another one, which still hears it.
    #[track_caller]
    pub(crate) fn deafen(&self, host: usize, to: usize) {
        let mut rule = Command::new("iptables");
        rule.args(["-A", "INPUT", "-s", &Self::address(to), "-j", "DROP"]);
        finish(within(&self.names[host], &rule)).ok();
    }
}

/// A server that a test has started.
pub(crate) struct Server {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.hub]) {
            let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
        }
    }
}

/// kubectl, or the program under test for any other command.
fn tool(cluster: &Cluster, command: &[&str]) -> Command {
    if let ["kubectl", arguments @ ..] = command {
        return cluster.kubectl_command(arguments);
    }
    let mut program = super::program(cluster.directory());
    program.args(command).env("KUBECONFIG", cluster.kubeconfig()).current_dir(cluster.directory());
    program
}

/// A command in a namespace.
fn within(namespace: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", namespace]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        inside.current_dir(directory);
    }
    inside
}

fn cable(host: usize) -> String {
    format!("cable-{host}")
}

#[track_caller]
fn ip<A: AsRef<OsStr>>(arguments: &[A]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    finish(command).ok();
}

fn may_have_namespaces() -> bool {
    let quiet = |program: &str, arguments: &[&str]| {
        let ran = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        ran.map(|status| status.success())
    };
    let installed = quiet("iptables", &["--version"]).is_ok() && quiet("ip", &["-V"]).is_ok();
    assert!(installed || std::env::var_os("CI").is_none(), "`ip` or `iptables` is not installed, and CI is set");
    let probe = format!("coracle-probe-{}", std::process::id());
    let permitted = installed && quiet("ip", &["netns", "add", &probe]).is_ok_and(|made| made);
    let _ = quiet("ip", &["netns", "delete", &probe]);
    if !permitted {
        let _ = writeln!(std::io::stderr(), "skipped: network namespaces need root, `ip` and `iptables`");
    }
    permitted
}
