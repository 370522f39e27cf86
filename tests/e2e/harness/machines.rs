//! Three processes that are one cluster, as three machines would be, each at a loopback address of its own.

use super::{Cluster, Options, eventually};

/// Where each of them listens.
pub(crate) const ADDRESSES: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

/// A cluster of three processes with these arguments, all of them voters; `None` when there is no kubectl to use it with.
#[track_caller]
pub(crate) fn three(arguments: [&[&str]; 3]) -> Option<[Cluster; 3]> {
    let first = Cluster::with(&Options { arguments: arguments[0], ..Options::default() })?;
    let token = token(&first);
    let listen = ADDRESSES.map(|address| format!("{address}:0"));
    let with = |member: usize| [&["--listen", listen[member].as_str()][..], arguments[member]].concat();
    let second = first.joined(&token, &with(1));
    assert_eq!(row(&first, 2)[2], "learner", "two voters would be worse than one");
    let third = second.joined(&token, &with(2));
    let machines = [first, second, third];
    eventually("all three vote", || {
        let table = table(&machines[0]);
        let voting = table.iter().filter(|row| matches!(row[2].as_str(), "leader" | "follower")).count();
        if voting == 3 { Ok(()) } else { Err(table) }
    });
    Some(machines)
}

/// A token that lets machines in.
#[track_caller]
pub(crate) fn token(cluster: &Cluster) -> String {
    cluster.coracle(&["token", "create"]).ok().trim().to_owned()
}

/// The cells of `coracle members`, a line a member.
#[track_caller]
pub(crate) fn table(cluster: &Cluster) -> Vec<Vec<String>> {
    let table = cluster.coracle(&["members"]).ok();
    table.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// The line of one member.
#[track_caller]
pub(crate) fn row(cluster: &Cluster, id: u64) -> Vec<String> {
    let table = table(cluster);
    let found = table.iter().find(|row| row[0] == id.to_string()).cloned();
    found.unwrap_or_else(|| panic!("member {id} is not in the list: {table:?}"))
}

/// The place of the leader among the members, as one that runs knows.
#[track_caller]
pub(crate) fn leader(members: &[Cluster], asked: usize) -> usize {
    eventually("somebody leads", || {
        let table = table(&members[asked]);
        let leader = table.iter().find(|row| row[2] == "leader").and_then(|row| row[0].parse::<usize>().ok());
        leader.map(|id| id - 1).ok_or(table)
    })
}
