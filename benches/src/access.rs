//! What asking the roles costs a request.

use std::time::{Duration, Instant};

use anyhow::ensure;
use coracle::Cluster;
use coracle::api::{Request, UserInfo};
use serde_json::json;

use crate::objects::{get, post, send};
use crate::{Report, Target};

const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
const OBJECT: &str = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
const COUNT: usize = 1_000;
const RUNS: u32 = 20_000;

/// The same GET by the administrator, whom no role is asked about, and by one of 1,000 users who are bound to a role.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::builder().nodes(0).start().await?;
    for number in 0..COUNT {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("reader-{number}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("user-{number}")}],
        });
        send(&cluster, post(BINDINGS, binding)).await?;
    }
    let mut as_user = get(OBJECT);
    let groups = vec!["system:authenticated".into()];
    as_user.user = UserInfo { name: "user-500".into(), groups, ..UserInfo::default() };
    let admin = time(&cluster, &get(OBJECT)).await?;
    let user = time(&cluster, &as_user).await?;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    report.figure("GET by the administrator", micros(admin), "us", Target::None);
    report.figure("GET by one of 1,000 bound users", micros(user), "us", Target::None);
    report.figure("  what the roles cost", micros(user.saturating_sub(admin)), "us", Target::AtMost(10.0));
    cluster.shutdown().await;
    Ok(())
}

async fn time(cluster: &Cluster, request: &Request) -> anyhow::Result<Duration> {
    let response = cluster.request(request.clone()).await;
    ensure!(response.is_success(), "{:?}", response.failure());
    let started = Instant::now();
    for _ in 0..RUNS {
        cluster.request(request.clone()).await;
    }
    Ok(started.elapsed() / RUNS)
}
