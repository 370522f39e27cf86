//! Volumes in memory: volumes of Docker's that the kernel forgets when no container has them mounted.
//!
//! A pod's must outlive each of its containers, so one more container, which only waits, has them all as long as the pod is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, VolumeCreateRequest};
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions, StartContainerOptions};
use coracle_node::runtime::Sandbox;

use crate::engine::{is_missing, sentence};
use crate::shared::Shared;
use crate::volume::{Memory, Place};
use crate::{create, images, labels, watch};

/// The Engine's API that mounts a part of a volume (Engine 26).
const SUBPATH_API: (usize, usize) = (1, 45);

/// Makes a volume in memory, of at most so many bytes, for a group if there is one.
pub(crate) async fn make(
    shared: &Shared,
    docker: &Docker,
    sandbox: &Sandbox,
    volume: &str,
    size_limit: Option<u64>,
) -> Result<Place, String> {
    let name = labels::volume_name(&sandbox.pod, volume);
    let group = sandbox.fs_group;
    let mut options = vec![if group.is_some() { "mode=2777".to_owned() } else { "mode=777".to_owned() }];
    options.extend(size_limit.map(|size| format!("size={size}")));
    options.extend(group.map(|group| format!("gid={group}")));
    let driver = [("type", "tmpfs".to_owned()), ("device", "tmpfs".to_owned()), ("o", options.join(","))];
    let request = VolumeCreateRequest {
        name: Some(name.clone()),
        driver: Some("local".into()),
        driver_opts: Some(driver.map(|(name, value)| (name.to_owned(), value)).into()),
        labels: Some(labels::of_pod(&shared.options, &sandbox.pod)),
        ..VolumeCreateRequest::default()
    };
    docker.create_volume(request).await.map_err(|error| sentence(&error))?;
    Ok(Place::Memory(Memory { name, folder: None, has_parts: false }))
}

/// The volumes of a pod as containers can have them: those in memory are mounted, and it is known where.
pub(crate) async fn keep(
    shared: &Shared,
    docker: &Docker,
    sandbox: &Sandbox,
    volumes: &BTreeMap<String, Place>,
) -> Result<BTreeMap<String, Place>, String> {
    let names: Vec<String> = volumes.values().filter_map(Place::memory).map(|memory| memory.name.clone()).collect();
    let mut kept = volumes.clone();
    if names.is_empty() {
        return Ok(kept);
    }
    ensure_keeper(shared, docker, sandbox, &names).await?;
    let version = docker.client_version();
    let has_parts = (version.major_version, version.minor_version) >= SUBPATH_API;
    for place in kept.values_mut() {
        if let Place::Memory(memory) = place {
            let found = docker.inspect_volume(&memory.name).await.map_err(|error| sentence(&error))?;
            let folder = PathBuf::from(found.mountpoint);
            let looked = tokio::task::spawn_blocking(move || is_mounted(&folder).then_some(folder)).await;
            (memory.folder, memory.has_parts) = (looked.unwrap_or_default(), has_parts);
        }
    }
    Ok(kept)
}

/// Whether the Engine's folder is this process's to see, with what is mounted there.
fn is_mounted(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    folder.parent().and_then(device).is_some_and(|above| device(folder).is_some_and(|own| own != above))
}

async fn ensure_keeper(shared: &Shared, docker: &Docker, sandbox: &Sandbox, volumes: &[String]) -> Result<(), String> {
    let name = labels::keeper_name(sandbox);
    match docker.inspect_container(&name, None::<InspectContainerOptions>).await {
        Ok(found) => {
            let id = found.id.unwrap_or_default();
            let made_from = found.config.and_then(|config| config.labels?.remove(labels::SANDBOX));
            let is_right = made_from.is_some_and(|made_from| made_from == volumes.join(" "));
            let running = found.state.and_then(|state| state.running) == Some(true);
            if is_right && (running || docker.start_container(&id, None::<StartContainerOptions>).await.is_ok()) {
                return Ok(());
            }
            watch::remove(docker, &id).await;
        }
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(sentence(&error)),
    }
    let protected = shared.protects.load(Ordering::Relaxed);
    let body = create::keeper(&shared.options, sandbox, volumes, protected);
    let id = match create_as(docker, &name, body.clone()).await {
        Err(error) if is_missing(&error) => {
            images::load_sandbox(docker).await?;
            create_as(docker, &name, body).await
        }
        made => made,
    };
    let id = id.map_err(|error| sentence(&error))?;
    docker.start_container(&id, None::<StartContainerOptions>).await.map_err(|error| sentence(&error))
}

async fn create_as(docker: &Docker, name: &str, body: ContainerCreateBody) -> Result<String, Error> {
    let options = CreateContainerOptions { name: Some(name.to_owned()), platform: String::new() };
    Ok(docker.create_container(Some(options), body).await?.id)
}
