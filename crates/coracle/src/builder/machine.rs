//! What the machine says of itself: its name, size, resolver and system. Nothing here decides anything.

use std::fs;
#[cfg(feature = "docker")]
use std::net::IpAddr;
#[cfg(feature = "wasm")]
use std::path::Path;

#[cfg(feature = "wasm")]
use coracle_node::{Capacity, NodeConfig};

pub(super) fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_lowercase();
    if coracle_api::selector::is_dns_subdomain(&name) { name } else { "coracle".into() }
}

/// The machine's cores and memory.
#[cfg(feature = "wasm")]
pub(super) fn machine_capacity() -> Capacity {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) as u64;
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let kibibytes = text.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(kibibytes << 10)
    });
    Capacity { cpu_millis: cores * 1000, memory: memory.unwrap_or(4 << 30), pods: 110 }
}

/// The machine's own resolver.
#[cfg(feature = "docker")]
pub(super) fn machine_resolver() -> coracle_node::runtime::Resolver {
    let mut resolver = coracle_node::runtime::Resolver::default();
    for line in fs::read_to_string("/etc/resolv.conf").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let (name, rest) = (words.next(), words.map(str::to_owned));
        match name {
            // What listens on the machine's own loopback is not there in a pod.
            Some("nameserver") => {
                let is_own = |server: &String| server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
                resolver.nameservers.extend(rest.filter(|server| !is_own(server)));
            }
            Some("search" | "domain") => resolver.searches = rest.collect(),
            Some("options") => resolver.options.extend(rest),
            _ => {}
        }
    }
    resolver
}

/// What the node says of the machine, and of the disk that the pods' files are on: that of the data directory, or of temporary files.
#[cfg(feature = "wasm")]
pub(super) fn describe_machine(config: &mut NodeConfig, data_dir: Option<&Path>) {
    let disk = disk_capacity(data_dir.unwrap_or(&std::env::temp_dir()));
    config.extended.extend(disk.map(|bytes| ("ephemeral-storage".to_owned(), bytes)));
    config.architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64".into(),
        "aarch64" => "arm64".into(),
        other => other.into(),
    };
    config.operating_system =
        if std::env::consts::OS == "macos" { "darwin".into() } else { std::env::consts::OS.into() };
    if let Ok(version) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        config.kernel_version = version.trim().into();
    }
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    config.machine_id = read("/etc/machine-id");
    config.boot_id = read("/proc/sys/kernel/random/boot_id");
}

/// The bytes of the file system that a folder is on.
#[cfg(all(feature = "wasm", unix))]
fn disk_capacity(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_blocks.saturating_mul(found.f_frsize))
}

/// It is not looked at.
#[cfg(all(feature = "wasm", not(unix)))]
fn disk_capacity(_folder: &Path) -> Option<u64> {
    None
}
