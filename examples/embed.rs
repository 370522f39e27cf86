//! A cluster in a program: the Deployment of `examples/web` runs in memory, without a socket, and a real `kube::Client`
//! that is wired to it in the process looks at it.
//!
//! `cargo run -p coracle-examples --example embed`
#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::time::{Duration, Instant};

use coracle::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};

const MANIFESTS: [&str; 3] =
    [include_str!("web/configmap.yaml"), include_str!("web/deployment.yaml"), include_str!("web/service.yaml")];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    let mut builder = Cluster::builder();
    for (name, bytes) in coracle_cli::BUILTIN_IMAGES {
        builder = builder.image(*name, *bytes); // your program's own: `include_bytes!("guest.wasm")`
    }
    let cluster = builder.start().await?;
    println!("{:>8.1?}  the cluster is ready: in memory, one node, no socket", started.elapsed());

    for manifest in MANIFESTS {
        for object in cluster.apply(manifest).await? {
            println!("{:>8.1?}  applied {} {}", started.elapsed(), object["kind"], object["metadata"]["name"]);
        }
    }
    cluster.wait_for("deployment/express-api-deployment", "Available", Duration::from_mins(2)).await?;
    println!("{:>8.1?}  the Deployment is Available", started.elapsed());

    let client = cluster.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let listed = pods.list(&ListParams::default().labels("app=express-api")).await?;
    for pod in &listed {
        let status = pod.status.as_ref();
        let (phase, address) = (status.and_then(|s| s.phase.as_deref()), status.and_then(|s| s.pod_ip.as_deref()));
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        println!("          {name}  {}  {}", phase.unwrap_or("?"), address.unwrap_or("?"));
    }

    let request = http::Request::get("/api/v1/namespaces/default/services/express-api:80/proxy/").body(Vec::new())?;
    println!("          GET express-api: {}", client.request_text(request).await?.trim());

    let first = listed.items.first().and_then(|pod| pod.metadata.name.clone()).unwrap_or_default();
    let log = pods.logs(&first, &LogParams { tail_lines: Some(3), ..LogParams::default() }).await?;
    println!("          the log of {first}:");
    log.lines().for_each(|line| println!("            {line}"));

    cluster.shutdown().await;
    println!("{:>8.1?}  stopped; nothing is left of it", started.elapsed());
    Ok(())
}
