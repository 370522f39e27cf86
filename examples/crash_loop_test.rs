//! A test of what real WebAssembly pods do over minutes, in moments: the service of `examples/web` under virtual time.
//!
//! `cargo run -p coracle-examples --example crash_loop_test` shows it; `cargo test -p coracle-examples` tests it.
#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::time::{Duration, Instant};

use coracle::{Cluster, ClusterClock};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

const MANIFESTS: [&str; 3] =
    [include_str!("web/configmap.yaml"), include_str!("web/deployment.yaml"), include_str!("web/service.yaml")];

/// How often each pod's container was restarted.
async fn restarts(cluster: &Cluster) -> anyhow::Result<Vec<i32>> {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let listed = pods.list(&ListParams::default().labels("app=express-api")).await?;
    let count =
        |pod: &Pod| pod.status.as_ref()?.container_statuses.as_ref()?.first().map(|status| status.restart_count);
    Ok(listed.iter().map(|pod| count(pod).unwrap_or_default()).collect())
}

async fn with_password(cluster: &Cluster, password: &str) -> anyhow::Result<()> {
    let config: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let patch = Patch::Merge(json!({"data": {"DB_PASSWORD": password}}));
    config.patch("express-api-config", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// With a wrong password the pods end at their start, and wait 10, 20, 40 and 80 seconds; with the right one they serve.
async fn a_wrong_password_is_a_crash_loop_and_the_right_one_heals_it() -> anyhow::Result<()> {
    let mut builder = Cluster::builder().clock(ClusterClock::Virtual).nodes(1).seed(1);
    for (name, bytes) in coracle_cli::BUILTIN_IMAGES {
        builder = builder.image(*name, *bytes); // your program's own: `include_bytes!("guest.wasm")`
    }
    let cluster = builder.start().await?;
    for manifest in MANIFESTS {
        cluster.apply(&manifest.replace("DB_PASSWORD: correct-horse", "DB_PASSWORD: wrong")).await?;
    }

    let mut seen = Vec::new();
    for seconds in [5, 10, 20, 40, 80] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let restarts = restarts(&cluster).await?;
        println!("{seconds:>4} s later: {restarts:?} restarts");
        seen.push(restarts);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5].map(|count| vec![count; 4]));

    with_password(&cluster, "correct-horse").await?;
    let started = cluster.now();
    cluster.wait_for("deployment/express-api-deployment", "Available", Duration::from_mins(5)).await?;
    println!("healed: Available after {:.0?}, when the last wait was over", cluster.now().duration_since(started)?);

    let request = http::Request::get("/api/v1/namespaces/default/services/express-api:80/proxy/").body(Vec::new())?;
    let answer = cluster.client().request_text(request).await?;
    println!("GET express-api: {}", answer.trim());
    assert!(answer.starts_with("Hello from express-api"), "{answer}");
    cluster.shutdown().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    a_wrong_password_is_a_crash_loop_and_the_right_one_heals_it().await?;
    println!("it took {:.1?}", started.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_is_a_crash_loop_and_the_right_one_heals_it() {
        super::a_wrong_password_is_a_crash_loop_and_the_right_one_heals_it().await.unwrap();
    }
}
