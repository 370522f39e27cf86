//! Several members in one process, through the addresses of each.

use crate::harness::{Cluster, Options, eventually};

#[test]
fn any_member_answers_and_any_of_them_may_lead() {
    let options = Options { arguments: &["--members", "3"], ..Options::default() };
    let Some(cluster) = Cluster::with(&options) else { return };
    let servers = servers(&cluster);
    for (id, server) in (1..).zip(&servers) {
        let moved = cluster.coracle(&["members", "transfer-leader", &id.to_string()]).ok();
        assert_eq!(moved, format!("Member {id} leads.\n"));
        let row = row(&cluster, id);
        assert_eq!((row[2].as_str(), &row[7]), ("leader", server), "{row:?}");
        cluster.kubectl(&format!("create configmap through-{id} --from-literal=a=b --server=https://{server}"));
    }
    for server in &servers {
        let maps = cluster.kubectl(&format!("get configmaps -o name --server=https://{server}"));
        let through = maps.lines().filter(|line| line.starts_with("configmap/through-")).count();
        assert_eq!(through, 3, "every member knows what each was told: {maps}");
    }
    eventually("every member has a node that is Ready", || {
        let nodes = cluster.kubectl("get nodes --no-headers");
        if nodes.lines().filter(|line| line.contains(" Ready ")).count() == 3 { Ok(()) } else { Err(nodes) }
    });
    let stopped = if row(&cluster, 3)[2] == "leader" { 2 } else { 3 };
    assert_eq!(
        cluster.coracle(&["members", "stop", &stopped.to_string()]).ok(),
        format!("Member {stopped} is stopped.\n")
    );
    cluster.kubectl("create configmap without-one --from-literal=a=b");
    assert_eq!(cluster.coracle(&["members", "start", &stopped.to_string()]).ok(), format!("Member {stopped} runs.\n"));
    let maps = cluster.kubectl(&format!("get configmaps -o name --server=https://{}", servers[stopped - 1]));
    assert!(maps.contains("configmap/without-one"), "{maps}");
    let unknown = cluster.coracle(&["members", "transfer-leader", "9"]).fails();
    assert_eq!(unknown, "error: there is no such member; `coracle members` shows those that there are\n");
}

/// The address of each member, as `coracle up` says.
fn servers(cluster: &Cluster) -> Vec<String> {
    let output = cluster.output();
    let address = |line: &str| {
        let (_, address) = line.split_once(" at https://")?;
        Some(address.trim_end_matches('.').to_owned())
    };
    let servers: Vec<String> = output.lines().filter_map(address).collect();
    assert_eq!(servers.len(), 3, "{output}");
    servers
}

/// The cells of a member's line in `coracle members`.
fn row(cluster: &Cluster, id: usize) -> Vec<String> {
    let table = cluster.coracle(&["members"]).ok();
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let found = table.lines().skip(1).map(cells).find(|cells| cells[0] == id.to_string());
    found.unwrap_or_else(|| panic!("member {id} is not in the list:\n{table}"))
}
