//! What all pods of a runtime share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_node::runtime::{ImageError, ImageInfo, PullPolicy, RuntimeHost, Usage};
use tokio::sync::Semaphore;

use crate::account::{Account, NodeMemory};
use crate::image_store::{Image, ImageStore};
use crate::placement::{Inline, Spawner};
use crate::program::Compiler;
use crate::reference::canonical_image_name;
use crate::service::Ports;
use crate::slices::Slicing;

/// The parts that outlive any one pod.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: Arc<dyn RuntimeHost>,
    pub(crate) images: Arc<ImageStore>,
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
    pub(crate) ports: Ports,
    /// The folder of the pods' folders.
    pub(crate) pods_dir: PathBuf,
    /// The running containers, for what they use.
    pub(crate) running: Mutex<BTreeMap<String, Arc<Account>>>,
}

impl Shared {
    /// Looks an image up, and has it compiled in the meantime.
    pub(crate) fn pull(self: &Arc<Self>, image: &str, policy: PullPolicy) -> Result<ImageInfo, ImageError> {
        let (found, info) = look_up(&self.images, image, policy)?;
        self.compile_ahead(&found);
        Ok(info)
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
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().map(|(id, account)| (id.clone(), account.usage())).collect()
    }

    pub(crate) fn started(&self, id: String, account: Arc<Account>) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, account);
    }

    pub(crate) fn ended(&self, id: &str) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
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
    let id = image_id(&canonical, &found.digest);
    let info = ImageInfo { id, size: found.size, present: true, pull_millis: 0 };
    Ok((found, info))
}

/// `imageID`: the repository and the digest.
fn image_id(canonical: &str, digest: &str) -> String {
    let name = canonical.split('@').next().unwrap_or(canonical);
    let repository = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    format!("{repository}@{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_ids_name_the_repository_and_the_digest() {
        assert_eq!(image_id("docker.io/library/web:v1", "sha256:ab"), "docker.io/library/web@sha256:ab");
        assert_eq!(image_id("localhost:5000/web@sha256:cd", "sha256:ab"), "localhost:5000/web@sha256:ab");
    }
}
