//! What clusters that kept nothing have left on the Engine when their process was killed: found by the owner on it, and removed.
//!
//! Only what has a Coracle owner's label is looked at, and only what is of an owner that is certainly gone is touched ([`Owner::life`]).
//! Clusters that keep their state have no such label: their containers run on until they are taken over.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions, ListVolumesOptions, RemoveVolumeOptions};
use futures_util::stream::{self, StreamExt as _};

use crate::engine::sentence;
use crate::labels::{self, Labels};
use crate::owner::{Life, Owner};
use crate::watch;

/// How many containers are removed at a time.
const REMOVED_AT_ONCE: usize = 8;
/// What the folder of a cluster that keeps nothing is called, and the file in it that says whose it is.
pub(crate) const FOLDER: &str = "coracle-docker-";
pub(crate) const OWNER_FILE: &str = "owner";

/// What an owner has on the Engine, by name or id.
#[derive(Debug, Default, PartialEq, Eq)]
struct Estate {
    /// Containers, and which of them run.
    containers: Vec<(String, bool)>,
    volumes: Vec<String>,
    networks: Vec<String>,
}

/// Removes what owners that are gone have left, on the Engine and in the folder for temporary files.
pub(crate) async fn abandoned(docker: &Docker) {
    let estates = match estates(docker).await {
        Ok(estates) => estates,
        Err(error) => return tracing::debug!(error, "it is not known what killed clusters have left"),
    };
    for (owner, estate) in estates {
        if is_free(&owner, &estate, Owner::life) {
            tracing::info!(
                %owner,
                containers = estate.containers.len(),
                "what a cluster has left that was killed and kept nothing is removed"
            );
            remove(docker, &estate).await;
        }
    }
    let _ = tokio::task::spawn_blocking(|| folders(&std::env::temp_dir())).await;
}

/// Whether nobody will miss it.
fn is_free(owner: &Owner, estate: &Estate, life: impl Fn(&Owner) -> Life) -> bool {
    match life(owner) {
        Life::Living => false,
        Life::Ended => true,
        // What runs began after the boot, so it is not what it seems.
        Life::BeforeBoot => !estate.containers.iter().any(|(_, runs)| *runs),
    }
}

async fn estates(docker: &Docker) -> Result<BTreeMap<Owner, Estate>, String> {
    let filters = || Some(HashMap::from([("label".to_owned(), vec![labels::OWNER.to_owned()])]));
    let failed = |error: bollard::errors::Error| sentence(&error);
    let mut estates: BTreeMap<Owner, Estate> = BTreeMap::new();
    let containers = ListContainersOptions { all: true, filters: filters(), ..ListContainersOptions::default() };
    for found in docker.list_containers(Some(containers)).await.map_err(failed)? {
        if let (Some(owner), Some(id)) = (owner_of(found.labels.as_ref()), found.id) {
            let runs = found.state.is_some_and(watch::is_alive);
            estates.entry(owner).or_default().containers.push((id, runs));
        }
    }
    let volumes = docker.list_volumes(Some(ListVolumesOptions { filters: filters() })).await.map_err(failed)?;
    for found in volumes.volumes.into_iter().flatten() {
        if let Some(owner) = owner_of(Some(&found.labels)) {
            estates.entry(owner).or_default().volumes.push(found.name);
        }
    }
    let networks = docker.list_networks(Some(ListNetworksOptions { filters: filters() })).await.map_err(failed)?;
    for found in networks {
        if let (Some(owner), Some(id)) = (owner_of(found.labels.as_ref()), found.id) {
            estates.entry(owner).or_default().networks.push(id);
        }
    }
    Ok(estates)
}

/// The owner that labels name, where they are Coracle's in all else.
pub(crate) fn owner_of(labels: Option<&Labels>) -> Option<Owner> {
    let labels = labels.filter(|labels| labels.contains_key(labels::CLUSTER) && labels.contains_key(labels::NODE))?;
    Owner::parse(labels.get(labels::OWNER)?)
}

async fn remove(docker: &Docker, estate: &Estate) {
    let ids: Vec<String> = estate.containers.iter().map(|(id, _)| id.clone()).collect();
    let containers = stream::iter(ids).map(|id| async move { watch::remove(docker, &id).await });
    containers.buffer_unordered(REMOVED_AT_ONCE).for_each(|_| async {}).await;
    for volume in &estate.volumes {
        if let Err(error) = docker.remove_volume(volume, Some(RemoveVolumeOptions { force: true })).await {
            tracing::debug!(volume, error = sentence(&error), "a volume that nobody needs is not removed yet");
        }
    }
    for network in &estate.networks {
        if let Err(error) = docker.remove_network(network).await {
            tracing::debug!(network, error = sentence(&error), "a network that nobody needs is not removed yet");
        }
    }
}

/// Removes the folders below `parent` of owners that are gone, as far as they are this user's.
fn folders(parent: &Path) {
    use std::os::unix::fs::MetadataExt as _;

    let user = std::fs::metadata("/proc/self").map(|own| own.uid()).ok();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_ours = std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && Some(found.uid()) == user);
        if !is_ours || !entry.file_name().to_string_lossy().starts_with(FOLDER) {
            continue;
        }
        let owner = std::fs::read_to_string(path.join(OWNER_FILE)).ok().and_then(|text| Owner::parse(text.trim()));
        if owner.is_some_and(|owner| owner.life() != Life::Living)
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::debug!(path = %path.display(), %error, "a folder that nobody needs is not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_coracles_own_with_a_whole_owner_has_one() {
        let (cluster, node, owner) = ((labels::CLUSTER, "c"), (labels::NODE, "n"), (labels::OWNER, "m/b/1/2/3"));
        assert_eq!(owner_of(Some(&labels(&[cluster, node, owner]))).unwrap().to_string(), "m/b/1/2/3");
        assert_eq!(owner_of(Some(&labels(&[cluster, owner]))), None);
        assert_eq!(owner_of(Some(&labels(&[cluster, node]))), None);
        assert_eq!(owner_of(Some(&labels(&[cluster, node, (labels::OWNER, "2")]))), None);
        assert_eq!(owner_of(None), None);
    }

    #[test]
    fn what_runs_is_not_from_before_the_boot() {
        let owner = Owner::parse("m/b/1/2/3").unwrap();
        let estate = |runs| Estate { containers: vec![("a".into(), false), ("b".into(), runs)], ..Estate::default() };
        let is_free = |runs, life| is_free(&owner, &estate(runs), |_| life);
        assert!(is_free(true, Life::Ended) && is_free(false, Life::Ended));
        assert!(is_free(false, Life::BeforeBoot) && !is_free(true, Life::BeforeBoot));
        assert!(!is_free(true, Life::Living) && !is_free(false, Life::Living));
    }

    #[test]
    fn folders_of_processes_that_are_gone_are_removed_and_no_others() {
        let parent = tempfile::tempdir().unwrap();
        let own = Owner::of_this_process().unwrap().to_string();
        let gone = own.rsplit_once('/').map(|(process, _)| format!("{process}/1")).unwrap();
        let made = |name: &str, owner: Option<&str>| {
            let folder = parent.path().join(name);
            std::fs::create_dir_all(folder.join("pods/uid")).unwrap();
            if let Some(owner) = owner {
                std::fs::write(folder.join(OWNER_FILE), owner).unwrap();
            }
            folder
        };
        let (living, left) = (made("coracle-docker-a", Some(&own)), made("coracle-docker-b", Some(&gone)));
        let (nameless, strange) = (made("coracle-docker-c", None), made("other-d", Some(&gone)));
        folders(parent.path());
        assert!(living.exists() && nameless.exists() && strange.exists());
        assert!(!left.exists());
    }
}
