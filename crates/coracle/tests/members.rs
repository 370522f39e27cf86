//! Several members in one process: what one is told the others know, and what is left when some are killed.

use std::time::Duration;

use coracle::api::{Method, Request, Response, UserInfo};
use coracle::{Cluster, ClusterBuilder, ClusterClock, ErrorKind};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn three() -> ClusterBuilder {
    Cluster::builder().members(3).nodes(0).seed(1)
}

fn create(name: &str) -> Request {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    Request::new(Method::Post, MAPS, UserInfo::default()).json(map)
}

fn read(name: &str) -> Request {
    Request::new(Method::Get, format!("{MAPS}/{name}"), UserInfo::default())
}

#[track_caller]
fn succeeded(response: &Response) {
    assert!(response.is_success(), "{:?}", response.failure());
}

/// Creates through a member, again and again while nobody leads; a create whose outcome was not known may be there already.
async fn create_at_last(cluster: &Cluster, member: u64, name: &str) {
    let created = async {
        loop {
            let response = cluster.member(member).request(create(name)).await.unwrap();
            if response.is_success() || response.status == 409 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), created).await.expect("somebody leads again");
}

/// A member that does not lead.
fn follower(cluster: &Cluster) -> u64 {
    cluster
        .members()
        .into_iter()
        .find(|id| cluster.member(*id).is_running() && !cluster.member(*id).is_leader())
        .unwrap()
}

#[tokio::test]
async fn what_is_written_through_one_member_is_read_through_every_other_at_once() {
    let cluster = three().start().await.unwrap();
    for round in 0..20 {
        for member in cluster.members() {
            let name = format!("from-{member}-{round}");
            succeeded(&cluster.member(member).request(create(&name)).await.unwrap());
            for other in cluster.members() {
                succeeded(&cluster.member(other).request(read(&name)).await.unwrap());
            }
        }
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_cluster_survives_the_loss_of_any_member_and_takes_it_back() {
    let cluster = three().start().await.unwrap();
    for lost in cluster.members() {
        cluster.member(lost).lead().await.unwrap();
        cluster.member(lost).kill();
        let other = follower(&cluster);
        create_at_last(&cluster, other, &format!("without-{lost}")).await;
        let gone = cluster.member(lost).request(read("x")).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Stopped);
        cluster.member(lost).start().await.unwrap();
        succeeded(&cluster.member(lost).request(read(&format!("without-{lost}"))).await.unwrap());
    }
    let again = cluster.member(1).start().await.unwrap_err();
    assert_eq!(again.to_string(), "member 1 runs already");
    cluster.shutdown().await;
}

#[tokio::test]
async fn without_a_majority_nothing_is_written_and_nothing_stale_is_read() {
    let cluster = three().start().await.unwrap();
    succeeded(&cluster.request(create("before")).await);
    cluster.member(2).stop().await;
    cluster.member(3).stop().await;
    let asked = cluster.member(1).request(read("before")).await.unwrap();
    assert_eq!(asked.status, 504, "whether there is something newer cannot be told");
    let content = read("before").query("resourceVersion", "0");
    succeeded(&cluster.member(1).request(content).await.unwrap());
    cluster.member(2).start().await.unwrap();
    create_at_last(&cluster, 1, "after").await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn members_that_were_all_killed_have_everything_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let keys = tempfile::tempdir().unwrap();
    let builder = || three().data_dir(folder.path().join("data")).key_dir(keys.path());
    let cluster = builder().start().await.unwrap();
    for number in 0..50 {
        let member = 1 + number % 3;
        succeeded(&cluster.member(member).request(create(&format!("map-{number}"))).await.unwrap());
    }
    cluster.members().into_iter().for_each(|id| cluster.member(id).kill());
    cluster.shutdown().await;
    coracle::rotate_keys(&folder.path().join("data")).unwrap();
    let cluster = builder().start().await.unwrap();
    for number in 0..50 {
        succeeded(&cluster.member(1 + (number + 1) % 3).request(read(&format!("map-{number}"))).await.unwrap());
    }
    cluster.shutdown().await;
    for other in [1, 5] {
        let refused = builder().members(other).start().await.unwrap_err();
        assert!(refused.to_string().ends_with("holds a cluster of another number of members"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn members_elect_and_replace_their_leader_under_virtual_time() {
    let cluster = three().clock(ClusterClock::Virtual).fake_nodes(1).start().await.unwrap();
    let leader = cluster.leader().unwrap();
    cluster.member(leader).kill();
    let other = follower(&cluster);
    create_at_last(&cluster, other, "after").await;
    assert_ne!(cluster.leader().unwrap(), leader);
    cluster.member(leader).start().await.unwrap();
    assert_eq!(cluster.member(leader).status().await.unwrap().role, "follower");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_stopped_hands_the_lead_over_and_nobody_waits() {
    let cluster = three().clock(ClusterClock::Virtual).fake_nodes(1).start().await.unwrap();
    let leader = cluster.leader().unwrap();
    cluster.member(leader).stop().await;
    let another = async {
        while cluster.leader().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // The shortest silence after which members stand for election is three times as long.
    tokio::time::timeout(Duration::from_millis(200), another).await.expect("another leads already");
    succeeded(&cluster.member(follower(&cluster)).request(create("after")).await.unwrap());
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_even_number_of_members_is_refused_with_the_reason() {
    let refused = Cluster::builder().members(2).start().await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a cluster has 1, 3, 5 or 7 members: an even number survives no more than the odd one below it"
    );
}
