//! What all pods of a runtime share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_api::Uid;
use coracle_node::canonical_image_name;
use coracle_node::runtime::{
    ContainerId, DiskUse, ImageError, ImageInfo, Login, PullId, PullPolicy, RuntimeEvent, RuntimeHost, StoredImage,
    Usage,
};
use tokio::sync::Semaphore;

use crate::account::NodeMemory;
use crate::container::Container;
use crate::image_store::{Image, ImageStore};
use crate::network::Network;
use crate::placement::{Inline, Spawner};
use crate::program::Compiler;
use crate::registry::Fetcher;
use crate::slices::Slicing;

/// The parts that outlive any one pod.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: Arc<dyn RuntimeHost>,
    pub(crate) images: Arc<ImageStore>,
    /// `None`: nothing is fetched.
    pub(crate) fetcher: Option<Fetcher>,
    pub(crate) compiler: Arc<Compiler>,
    pub(crate) slicing: Slicing,
    /// `None`: guests have the machine's clocks and the operating system's randomness.
    pub(crate) inline: Option<Inline>,
    /// Threads that run guests and nothing else.
    pub(crate) guests: Spawner,
    /// Threads for everything else: commands, connections, probes, compiling.
    pub(crate) io: Spawner,
    /// One permit an instance.
    pub(crate) instances: Arc<Semaphore>,
    pub(crate) memory: Arc<NodeMemory>,
    pub(crate) network: Arc<Network>,
    /// The folder of the pods' folders.
    pub(crate) pods_dir: PathBuf,
    /// The running containers, for what they use and for sessions.
    pub(crate) running: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
}

impl Shared {
    /// Looks an image up or fetches it, and has it compiled in the meantime.
    pub(crate) async fn pull(self: &Arc<Self>, request: PullRequest) -> Result<ImageInfo, ImageError> {
        let PullRequest { pull, image, policy, logins } = request;
        let found = {
            let (shared, image) = (Arc::clone(self), image.clone());
            // A built-in image is translated and digested when it is first asked for.
            let looked = tokio::task::spawn_blocking(move || look_up(&shared.images, &image, policy)).await;
            looked.unwrap_or_else(|error| Err(ImageError::Pull(format!("the runtime failed: {error}"))))
        };
        // What was imported or is built in is as new as it gets; what was fetched may be old.
        let is_new = |image: &Image| policy != PullPolicy::Always || image.manifest.is_none();
        let (found, info) = match (found, &self.fetcher) {
            (Ok(found), Some(_)) if is_new(&found.0) => found,
            (Ok(_) | Err(ImageError::Pull(_)), Some(fetcher)) => {
                self.host.event(RuntimeEvent::ImagePulling { pull });
                let canonical = canonical_image_name(&image).map_err(|why| ImageError::InvalidName(why.to_owned()))?;
                let mut logins = logins;
                logins.extend(self.host.logins(&image).await);
                fetcher.fetch(&self.images, &image, &canonical, &logins).await?
            }
            (found, _) => found?,
        };
        self.compile_ahead(&found);
        Ok(info)
    }

    /// What could be removed, and the room that is left.
    pub(crate) fn stored(&self) -> (DiskUse, Vec<StoredImage>) {
        let mut images: BTreeMap<String, u64> = BTreeMap::new();
        for (name, image) in self.images.fetched() {
            images.insert(image.id(&name), image.size + self.compiler.size(&image.digest));
        }
        let images = images.into_iter().map(|(id, size)| StoredImage { id, size }).collect();
        (disk_use(&self.pods_dir), images)
    }

    /// Removes every name of an image, and its compiled code with the last.
    pub(crate) fn remove_image(&self, id: &str) -> Result<u64, String> {
        let names: Vec<(String, Image)> =
            self.images.fetched().into_iter().filter(|(name, image)| image.id(name) == id).collect();
        let Some((_, image)) = names.first() else { return Err(format!("image {id:?} is not there")) };
        let freed = image.size + self.compiler.size(&image.digest);
        let digest = image.digest.clone();
        for (name, _) in &names {
            self.images.remove(name).map_err(|error| error.to_string())?;
        }
        if self.images.has(&digest) {
            return Ok(0);
        }
        self.compiler.forget(&digest);
        Ok(freed)
    }

    /// The container that comes next needs the program: compiling starts before it is asked for.
    fn compile_ahead(self: &Arc<Self>, image: &Image) {
        let (shared, digest) = (Arc::clone(self), image.digest.clone());
        self.io.spawn(async move {
            // What is wrong with the image is told when a container is created from it.
            let _ = shared.compiler.program(&shared.images, &digest, shared.slicing.metering()).await;
        });
    }

    pub(crate) fn usage(&self) -> BTreeMap<String, Usage> {
        self.running().iter().map(|(id, container)| (id.to_string(), container.account.usage())).collect()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Container>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running instance of a container.
    pub(crate) fn running_container(&self, pod: &Uid, name: &str) -> Option<Arc<Container>> {
        let first = ContainerId { pod: pod.clone(), container: name.to_owned(), instance: 0 };
        let last = ContainerId { instance: u32::MAX, ..first.clone() };
        self.running().range(first..=last).next_back().map(|(_, container)| Arc::clone(container))
    }

    pub(crate) fn started(&self, container: Arc<Container>) {
        self.running().insert(container.id().clone(), container);
    }

    pub(crate) fn ended(&self, id: &ContainerId) {
        self.running().remove(id);
    }
}

/// An image that is asked for.
#[derive(Debug)]
pub(crate) struct PullRequest {
    pub(crate) pull: PullId,
    pub(crate) image: String,
    pub(crate) policy: PullPolicy,
    pub(crate) logins: Vec<Login>,
}

/// The file system that a folder is on.
#[cfg(unix)]
fn disk_use(dir: &Path) -> DiskUse {
    match rustix::fs::statvfs(dir) {
        Ok(found) => DiskUse {
            capacity: found.f_blocks.saturating_mul(found.f_frsize),
            available: found.f_bavail.saturating_mul(found.f_frsize),
        },
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cannot tell how full the disk is");
            DiskUse::default()
        }
    }
}

/// The file system that a folder is on is not looked at: its images stay.
#[cfg(not(unix))]
fn disk_use(_dir: &Path) -> DiskUse {
    DiskUse::default()
}

/// An image of the node's own store: nothing is fetched.
pub(crate) fn look_up(images: &ImageStore, image: &str, policy: PullPolicy) -> Result<(Image, ImageInfo), ImageError> {
    let canonical = canonical_image_name(image).map_err(|reason| ImageError::InvalidName(reason.to_owned()))?;
    let Some(found) = images.find(&canonical) else {
        return Err(match policy {
            PullPolicy::Never => ImageError::NeverPull,
            PullPolicy::Always | PullPolicy::IfNotPresent => ImageError::Pull(format!(
                "image {image:?} is not in the node's image store; import it with `coracle image import {image} FILE`"
            )),
        });
    };
    let info = ImageInfo::present(found.id(&canonical), found.size);
    Ok((found, info))
}
