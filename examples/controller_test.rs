//! A kube-rs controller tested against real Deployments, ReplicaSets, a scheduler and nodes under virtual time: what takes
//! twenty minutes in a cluster takes milliseconds here, without Docker, etcd or a network.
//!
//! `cargo test -p coracle-examples` tests it, `cargo run -p coracle-examples --example controller_test` shows it.
#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::time::{Duration, Instant};

use coracle::{Cluster, ClusterClock};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

/// The controller under test: it puts Deployments to sleep.
mod sleeper {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use futures_util::StreamExt as _;
    use k8s_openapi::api::apps::v1::Deployment;
    use kube::api::{Api, Patch, PatchParams};
    use kube::runtime::controller::{Action, Controller};
    use kube::runtime::watcher;
    use kube::{Client, ResourceExt as _};
    use serde_json::json;

    /// How long after it became Available a Deployment is scaled to nothing, in seconds.
    pub(crate) const SLEEP_AFTER: &str = "example.com/sleep-after-seconds";

    /// What the controller works with. Its clock is an argument: in production `SystemTime::now`, in a test the cluster's.
    pub(crate) struct Context {
        pub(crate) client: Client,
        pub(crate) clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(context: Context) {
        let deployments = Api::<Deployment>::all(context.client.clone());
        Controller::new(deployments, watcher::Config::default())
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(5)), Arc::new(context))
            .for_each(|_| std::future::ready(()))
            .await;
    }

    async fn reconcile(deployment: Arc<Deployment>, context: Arc<Context>) -> Result<Action, kube::Error> {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let (Some(after), Some(since)) = (sleep_after(&deployment), available_since(&deployment)) else {
            return Ok(Action::await_change());
        };
        if wanted == 0 {
            return Ok(Action::await_change());
        }
        match (since + after).duration_since((context.clock)()) {
            Ok(rest) if !rest.is_zero() => Ok(Action::requeue(rest)),
            _ => {
                let namespace = deployment.namespace().unwrap_or_default();
                let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), &namespace);
                let asleep = Patch::Merge(json!({"spec": {"replicas": 0}}));
                deployments.patch(&deployment.name_any(), &PatchParams::default(), &asleep).await?;
                Ok(Action::await_change())
            }
        }
    }

    fn sleep_after(deployment: &Deployment) -> Option<Duration> {
        deployment.annotations().get(SLEEP_AFTER)?.parse().ok().map(Duration::from_secs)
    }

    /// Since when it is Available; nothing while its status is about an older spec: just woken, it must not sleep again at once.
    fn available_since(deployment: &Deployment) -> Option<SystemTime> {
        let status = deployment.status.as_ref()?;
        if status.observed_generation < deployment.metadata.generation {
            return None;
        }
        let conditions = status.conditions.as_ref()?;
        let available =
            conditions.iter().find(|condition| condition.type_ == "Available" && condition.status == "True")?;
        available.last_transition_time.as_ref().map(|time| time.0.into())
    }
}

/// A cluster under virtual time, with the controller running against it.
async fn cluster_with_sleeper() -> anyhow::Result<Cluster> {
    let cluster = Cluster::builder().clock(ClusterClock::Virtual).fake_nodes(2).seed(1).start().await?;
    let (start, origin) = (cluster.now(), tokio::time::Instant::now());
    let clock = Box::new(move || start + origin.elapsed());
    tokio::spawn(sleeper::run(sleeper::Context { client: cluster.client(), clock }));
    Ok(cluster)
}

fn web(sleep_after: Duration) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {sleeper::SLEEP_AFTER: sleep_after.as_secs().to_string()}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "example.com/web:1"}]},
            },
        },
    })
    .to_string()
}

async fn pods(cluster: &Cluster) -> anyhow::Result<usize> {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    Ok(pods.list(&ListParams::default().labels("app=web")).await?.items.len())
}

/// Ten minutes after it became Available the Deployment sleeps; woken, it gets another ten.
async fn a_deployment_sleeps_and_is_woken() -> anyhow::Result<()> {
    let cluster = cluster_with_sleeper().await?;
    let started = cluster.now();
    let at = |cluster: &Cluster| cluster.now().duration_since(started).map_or(0, |since| since.as_secs());

    cluster.apply(&web(Duration::from_mins(10))).await?;
    cluster.wait_for("deployment/web", "Available", Duration::from_secs(10)).await?;
    println!("{:>5} s  Available, with {} pods", at(&cluster), pods(&cluster).await?);

    tokio::time::sleep(Duration::from_mins(9)).await;
    println!("{:>5} s  {} pods", at(&cluster), pods(&cluster).await?);
    assert_eq!(pods(&cluster).await?, 3, "it sleeps too early");

    tokio::time::sleep(Duration::from_mins(2)).await;
    println!("{:>5} s  {} pods", at(&cluster), pods(&cluster).await?);
    assert_eq!(pods(&cluster).await?, 0, "it does not sleep");

    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client());
    let awake = Patch::Merge(json!({"spec": {"replicas": 5}}));
    deployments.patch("web", &PatchParams::default(), &awake).await?;
    tokio::time::sleep(Duration::from_mins(9)).await;
    println!("{:>5} s  woken nine minutes ago: {} pods", at(&cluster), pods(&cluster).await?);
    assert_eq!(pods(&cluster).await?, 5, "it does not wake");

    tokio::time::sleep(Duration::from_mins(2)).await;
    println!("{:>5} s  {} pods", at(&cluster), pods(&cluster).await?);
    assert_eq!(pods(&cluster).await?, 0, "it does not sleep again");
    cluster.shutdown().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    a_deployment_sleeps_and_is_woken().await?;
    println!("twenty minutes took {:.0?}", started.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deployment_sleeps_ten_minutes_after_it_became_available() {
        a_deployment_sleeps_and_is_woken().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deployment_that_is_never_available_is_left_alone() {
        let cluster = cluster_with_sleeper().await.unwrap();
        let stuck =
            web(Duration::from_mins(10)).replace(r#""image""#, r#""resources":{"requests":{"cpu":"900"}},"image""#);
        cluster.apply(&stuck).await.unwrap();
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(pods(&cluster).await.unwrap(), 3);
    }
}
