//! The programs that change the host's network: `nft` for the table, `ip` for the routes. One of either is ours, and nothing else is named.
//!
//! The programs rather than netlink: the kernel takes a whole file of rules or none of it, and an administrator reads the same text with
//! the same program.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::ruleset::{Range, TABLE};

/// The protocol number that our routes have, by which they are told from others' (none of `/etc/iproute2/rt_protos`).
const ROUTE_PROTOCOL: &str = "67";
/// What the names of nodes' bridges begin with; their first address follows in eight hexadecimal digits (`runtime-docker`).
const BRIDGE: &str = "coracle";
/// Where system tools are.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];
/// The capability to change the network (`CAP_NET_ADMIN` of `capability.h`).
const CAP_NET_ADMIN: u32 = 12;

/// Whether this process may change the host's network.
pub(super) fn is_privileged() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    bits & (1 << CAP_NET_ADMIN) != 0
}

/// Where a program is. System tools are often not in a user's path.
fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    let mut found = folders.map(|folder| folder.join(program));
    found.find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(program))
}

async fn run(program: &str, arguments: &[&str], input: Option<&str>) -> io::Result<String> {
    // By its path: to look for it in another `PATH` the standard library forks this process, which is large, instead of spawning.
    let mut command = Command::new(find(program));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot run {program}, which the host's network needs: {error}"))
    })?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), why.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Replaces the table.
pub(super) async fn apply(rules: &str) -> io::Result<()> {
    run("nft", &["-f", "-"], Some(rules)).await.map(drop)
}

/// The table as the kernel has it; an error when it is not there.
pub(super) async fn listed() -> io::Result<String> {
    run("nft", &["list", "table", "inet", TABLE], None).await
}

/// Removes the table.
pub(super) async fn remove() -> io::Result<()> {
    run("nft", &["delete", "table", "inet", TABLE], None).await.map(drop)
}

/// Leads a range to this host, so that what it sends there has a way; it sends as itself, not as the address that it asks for.
pub(super) async fn add_route(range: Range) -> io::Result<()> {
    change_route("replace", range, &["src", "127.0.0.1"]).await
}

/// Removes that.
pub(super) async fn remove_route(range: Range) -> io::Result<()> {
    change_route("del", range, &[]).await
}

async fn change_route(change: &str, range: Range, more: &[&str]) -> io::Result<()> {
    let range = range.to_string();
    let route = ["route", change, "local", &range, "dev", "lo", "table", "main", "proto", ROUTE_PROTOCOL];
    run("ip", &[&route[..], more].concat(), None).await.map(drop)
}

/// The routes of the machine.
pub(super) async fn routes() -> io::Result<Vec<Value>> {
    let text = run("ip", &["-4", "-json", "-details", "route", "show", "table", "main"], None).await?;
    serde_json::from_str(&text).map_err(io::Error::from)
}

/// Whether all ranges are led here.
pub(super) fn are_led(routes: &[Value], ranges: &[Range]) -> bool {
    ranges.iter().all(|range| routes.iter().any(|route| is_ours(route) && to(route) == Some(*range)))
}

/// A route of somebody else's into one of the ranges; those of our own containers do not count.
pub(super) fn foreign_route(routes: &[Value], ranges: &[Range], bridges: &[Range]) -> Option<String> {
    let is_foreign = |route: &&Value| {
        let Some(to) = to(route) else { return false };
        let inside = ranges.iter().any(|range| range.prefix <= to.prefix && range.contains(to.network.into()));
        inside && !is_ours(route) && !bridges.contains(&to)
    };
    let route = routes.iter().find(is_foreign)?;
    Some(format!("{} dev {}", route["dst"].as_str().unwrap_or_default(), route["dev"].as_str().unwrap_or("?")))
}

/// The ranges of bridges on this host that are another cluster's of ours: their names say so, and all their addresses are behind them.
pub(super) fn neighbours(routes: &[Value], own: &[Range]) -> Vec<Range> {
    let is_bridge = |route: &&Value| {
        let name = route["dev"].as_str().and_then(|name| name.strip_prefix(BRIDGE)).unwrap_or_default();
        name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut ranges: Vec<Range> = routes.iter().filter(is_bridge).filter_map(to).collect();
    ranges.retain(|range| !own.contains(range));
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn is_ours(route: &Value) -> bool {
    route["protocol"] == ROUTE_PROTOCOL && route["dev"] == "lo"
}

fn to(route: &Value) -> Option<Range> {
    let text = route["dst"].as_str()?;
    Range::parse(text).or_else(|| Range::parse(&format!("{text}/32")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_of_somebody_elses_into_the_cluster_is_seen() {
        let range = |text: &str| Range::parse(text).unwrap();
        let (ranges, bridges) = ([range("10.42.0.0/16"), range("10.43.0.0/16")], [range("10.42.1.0/25")]);
        let foreign = |routes: &[Value]| foreign_route(routes, &ranges, &bridges);
        let usual = [
            json!({"dst": "default", "dev": "eth0"}),
            json!({"dst": "10.0.0.0/8", "dev": "vpn0"}),
            json!({"dst": "10.42.1.0/25", "dev": "br-1", "protocol": "kernel"}),
            json!({"type": "local", "dst": "10.42.0.0/16", "dev": "lo", "protocol": "67"}),
            json!({"type": "local", "dst": "10.43.0.0/16", "dev": "lo", "protocol": "67"}),
        ];
        assert_eq!(foreign(&usual), None);
        assert!(are_led(&usual, &ranges) && !are_led(&usual[..4], &ranges));
        let other = [json!({"dst": "10.42.0.0/24", "dev": "cni0"})];
        assert_eq!(foreign(&other), Some("10.42.0.0/24 dev cni0".into()));
        assert_eq!(foreign(&[json!({"dst": "10.43.0.7", "dev": "eth1"})]), Some("10.43.0.7 dev eth1".into()));
    }

    #[test]
    fn the_bridges_of_other_clusters_of_this_host_are_known_by_their_names() {
        let range = |text: &str| Range::parse(text).unwrap();
        let route = |range: &str, device: &str| json!({"dst": range, "dev": device, "protocol": "kernel"});
        let routes = [
            route("10.42.1.0/25", "coracle0a2a0100"),
            route("10.42.2.0/25", "coracle0a2a0200"),
            route("10.42.3.0/25", "coracle-veth"),
            route("10.42.4.0/25", "docker0"),
        ];
        assert_eq!(neighbours(&routes, &[range("10.42.1.0/25")]), [range("10.42.2.0/25")]);
        let known = [range("10.42.1.0/25"), range("10.42.2.0/25")];
        let foreign = foreign_route(&routes[..2], &[range("10.42.0.0/16")], &known);
        assert_eq!(foreign, None, "they are in nobody's way");
    }
}
