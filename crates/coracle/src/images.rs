//! The images of the process's nodes: what `coracle image` and [`crate::Cluster::add_image`] reach.

use coracle_api::{Reason, Status};
use serde::{Deserialize, Serialize};

/// The largest image that is taken in, in bytes.
pub(crate) const IMAGE_BYTES_MAX: usize = 256 << 20;

/// An image in a node's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The name, as pods name it.
    pub name: String,
    /// `sha256:` and the digest of its bytes.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was imported, or made, RFC 3339; empty: it is built into the program.
    pub created: String,
    /// What runs it, whose store it is in: `wasm` or `docker`.
    #[serde(default = "wasm_store")]
    pub runtime: String,
}

fn wasm_store() -> String {
    "wasm".into()
}

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDetails {
    /// As a list has it.
    #[serde(flatten)]
    pub record: ImageRecord,
    /// The digest of the manifest that it was fetched by, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// What it is as a program, in words.
    pub world: String,
    /// The interfaces or functions that it exports.
    pub exports: Vec<String>,
    /// Those that it imports.
    pub imports: Vec<String>,
    /// The size of its compiled code in bytes; 0: it was not compiled yet, or is compiled in memory only.
    pub compiled_size: u64,
}

#[cfg(feature = "wasm")]
mod wasm {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::{Arc, OnceLock, RwLock};

    use coracle_node::runtime::RuntimeHost;
    use coracle_runtime_wasm::{Placement, WasmOptions, WasmRuntime};
    use sha2::{Digest as _, Sha256};

    use super::{ImageDetails, ImageRecord, Reason, Status, no_store};
    use crate::builder::Image;
    use crate::{Error, ErrorKind};

    /// The image stores of the nodes that run WebAssembly, by the nodes' names. They hold the same: what is imported is given to all.
    #[derive(Debug, Default)]
    pub(crate) struct Images {
        runtimes: RwLock<BTreeMap<String, Arc<WasmRuntime>>>,
        #[cfg(feature = "docker")]
        docker: RwLock<BTreeMap<String, Arc<coracle_runtime_docker::DockerRuntime>>>,
        builtin: OnceLock<Vec<ImageRecord>>,
    }

    impl Images {
        pub(crate) fn set(&self, node: &str, runtime: Arc<WasmRuntime>, builtin: &[Image]) {
            // The same for every node.
            let _ = self.builtin.set(builtin.iter().map(builtin_record).collect());
            self.runtimes.write().expect("nothing panics while it holds the lock").insert(node.to_owned(), runtime);
        }

        /// A node runs containers, too.
        #[cfg(feature = "docker")]
        pub(crate) fn set_docker(&self, node: &str, runtime: Arc<coracle_runtime_docker::DockerRuntime>) {
            self.docker.write().expect("nothing panics while it holds the lock").insert(node.to_owned(), runtime);
        }

        /// The images of Docker's store, which the nodes of a process share; none where it cannot be asked.
        pub(crate) async fn list_containers(&self) -> Vec<ImageRecord> {
            #[cfg(feature = "docker")]
            {
                let docker =
                    self.docker.read().expect("nothing panics while it holds the lock").values().next().cloned();
                let Some(docker) = docker else { return Vec::new() };
                docker.images().await.unwrap_or_default().into_iter().map(docker_record).collect()
            }
            #[cfg(not(feature = "docker"))]
            Vec::new()
        }

        /// A node is gone.
        pub(crate) fn forget(&self, node: &str) {
            #[cfg(feature = "docker")]
            self.docker.write().expect("nothing panics while it holds the lock").remove(node);
            self.runtimes.write().expect("nothing panics while it holds the lock").remove(node);
        }

        fn all(&self) -> Vec<Arc<WasmRuntime>> {
            self.runtimes.read().expect("nothing panics while it holds the lock").values().cloned().collect()
        }

        fn runtime(&self) -> Result<Arc<WasmRuntime>, Status> {
            self.all().into_iter().next().ok_or_else(no_store)
        }

        pub(crate) fn import(&self, name: &str, bytes: &[u8]) -> Result<ImageRecord, Status> {
            let mut imported = Err(no_store());
            for runtime in self.all() {
                imported = Ok(runtime.import(name, bytes).map(record).map_err(|error| refused(&error))?);
            }
            imported
        }

        pub(crate) fn list(&self) -> Result<Vec<ImageRecord>, Status> {
            let mut images: Vec<ImageRecord> = self.runtime()?.list().into_iter().map(record).collect();
            let builtin = self.builtin.get().into_iter().flatten();
            // What was imported under the same name stands in front of what is built in.
            let shown: Vec<ImageRecord> = builtin
                .filter(|image| images.iter().all(|other| !is_same(&other.name, &image.name)))
                .cloned()
                .collect();
            images.extend(shown);
            images.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(images)
        }

        pub(crate) fn inspect(&self, name: &str) -> Result<ImageDetails, Status> {
            details(name, self.runtime()?.inspect(name))
        }

        pub(crate) fn remove(&self, name: &str) -> Result<(), Status> {
            if self.builtin.get().into_iter().flatten().any(|image| is_same(&image.name, name))
                && self.runtime()?.list().iter().all(|image| !is_same(&image.name, name))
            {
                return Err(Status::bad_request(format!("image {name:?} is built into the program")));
            }
            let mut outcome = Err(no_store());
            for runtime in self.all() {
                outcome = removed(name, runtime.remove(name));
            }
            outcome
        }
    }

    pub(super) fn details(
        name: &str,
        found: Result<Option<coracle_runtime_wasm::ImageDetails>, coracle_runtime_wasm::Error>,
    ) -> Result<ImageDetails, Status> {
        let found = found.map_err(|error| refused(&error))?;
        let found = found.ok_or_else(|| not_found(name))?;
        Ok(ImageDetails {
            manifest: found.image.manifest.clone(),
            record: record(found.image),
            world: found.inspection.world().to_owned(),
            exports: found.inspection.exports,
            imports: found.inspection.imports,
            compiled_size: found.compiled_size,
        })
    }

    fn not_found(name: &str) -> Status {
        Status::failure(404, Some(Reason::NotFound), format!("image {name:?} not found"))
    }

    pub(super) fn removed(name: &str, result: Result<bool, coracle_runtime_wasm::Error>) -> Result<(), Status> {
        match result {
            Ok(true) => Ok(()),
            Ok(false) => Err(not_found(name)),
            Err(error) => Err(refused(&error)),
        }
    }

    pub(super) fn refused(error: &coracle_runtime_wasm::Error) -> Status {
        Status::bad_request(sentence(error))
    }

    #[cfg(feature = "docker")]
    fn docker_record(image: coracle_runtime_docker::DockerImage) -> ImageRecord {
        let coracle_runtime_docker::DockerImage { name, id, size, created, .. } = image;
        let created = coracle_base::Timestamp::from_secs(created).rfc3339();
        ImageRecord { name, digest: id, size, created, runtime: "docker".into() }
    }

    fn builtin_record(image: &Image) -> ImageRecord {
        let digest =
            Sha256::digest(&image.bytes).iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        ImageRecord {
            name: image.name.clone(),
            digest,
            size: image.bytes.len() as u64,
            created: String::new(),
            runtime: super::wasm_store(),
        }
    }

    /// Whether two names are of the same image, however they are written.
    fn is_same(a: &str, b: &str) -> bool {
        let canonical = |name: &str| coracle_runtime_wasm::canonical_image_name(name).ok();
        a == b || canonical(a).is_some_and(|name| canonical(b) == Some(name))
    }

    pub(super) fn record(image: coracle_runtime_wasm::Image) -> ImageRecord {
        let coracle_runtime_wasm::Image { name, digest, size, created, .. } = image;
        let builtin = created == coracle_base::Timestamp::EPOCH;
        let created = if builtin { String::new() } else { created.rfc3339() };
        ImageRecord { name, digest, size, created, runtime: super::wasm_store() }
    }

    /// An error with its causes, in one line.
    fn sentence(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// The runtime of a node that keeps its state in this directory, or nothing, and runs as many pods.
    pub(crate) fn start(
        directory: Option<&Path>,
        pods: u32,
        placement: Placement,
        builtin: Vec<Image>,
        registries: coracle_runtime_wasm::Registries,
        host: Arc<dyn RuntimeHost>,
    ) -> Result<Arc<WasmRuntime>, Error> {
        let mut options = WasmOptions::default();
        options.state_dir = directory.map(|directory| directory.join("wasm"));
        // Each pod may have a container and, at the same time, a request, a probe or a session.
        options.max_instances = options.max_instances.max(pods.saturating_mul(2));
        options.placement = placement;
        options.registries = Some(registries);
        if !builtin.is_empty() {
            options.builtin_images = Some(Arc::new(move |name: &str| find(&builtin, name)));
        }
        WasmRuntime::new(options, host).map_err(|source| {
            Error::new(ErrorKind::Runtime, "the WebAssembly runtime cannot be started").because(source)
        })
    }

    fn find(images: &[Image], name: &str) -> Option<Arc<[u8]>> {
        let canonical = |name: &str| coracle_runtime_wasm::canonical_image_name(name).ok();
        images
            .iter()
            .find(|image| canonical(&image.name).as_deref() == Some(name))
            .map(|image| Arc::clone(&image.bytes))
    }
}

#[cfg(feature = "wasm")]
pub(crate) use wasm::{Images, start as start_wasm};

/// Without a runtime there is no store.
#[cfg(not(feature = "wasm"))]
#[derive(Debug, Default)]
pub(crate) struct Images;

#[cfg(not(feature = "wasm"))]
impl Images {
    pub(crate) fn forget(&self, _node: &str) {}

    pub(crate) async fn list_containers(&self) -> Vec<ImageRecord> {
        Vec::new()
    }

    pub(crate) fn import(&self, _name: &str, _bytes: &[u8]) -> Result<ImageRecord, Status> {
        Err(no_store())
    }

    pub(crate) fn list(&self) -> Result<Vec<ImageRecord>, Status> {
        Err(no_store())
    }

    pub(crate) fn inspect(&self, _name: &str) -> Result<ImageDetails, Status> {
        Err(no_store())
    }

    pub(crate) fn remove(&self, _name: &str) -> Result<(), Status> {
        Err(no_store())
    }
}

/// The image store of a data directory that no process uses.
#[derive(Debug)]
pub struct ImageDirectory {
    #[cfg(feature = "wasm")]
    store: coracle_runtime_wasm::ImageStore,
    #[cfg(feature = "wasm")]
    compiled: std::path::PathBuf,
}

impl ImageDirectory {
    /// Opens the store of a cluster's data directory; it is made when it is not there.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used, or this build has no runtime that keeps images.
    #[cfg(feature = "wasm")]
    pub fn open(data_dir: &std::path::Path) -> Result<Self, crate::Error> {
        let folder = data_dir.join("wasm").join("images");
        let failed =
            |source| crate::Error::new(crate::ErrorKind::DataDirectory, "the images cannot be opened").because(source);
        let store = coracle_runtime_wasm::ImageStore::open(Some(folder), None).map_err(failed)?;
        Ok(Self { store, compiled: data_dir.join("wasm").join("compiled") })
    }

    /// Opens the store of a cluster's data directory.
    ///
    /// # Errors
    ///
    /// Always: this build has no runtime that keeps images.
    #[cfg(not(feature = "wasm"))]
    pub fn open(_data_dir: &std::path::Path) -> Result<Self, crate::Error> {
        Err(no_store().into())
    }

    /// Takes an image in: a WebAssembly module or component, binary or text.
    ///
    /// # Errors
    ///
    /// When the name is no image name, the bytes are no WebAssembly, or the disk fails.
    pub fn import(&self, name: &str, bytes: &[u8]) -> Result<ImageRecord, crate::Error> {
        #[cfg(feature = "wasm")]
        return Ok(self.store.import(name, bytes).map(wasm::record).map_err(|error| wasm::refused(&error))?);
        #[cfg(not(feature = "wasm"))]
        {
            let _ = (name, bytes);
            Err(no_store().into())
        }
    }

    /// What an image is.
    ///
    /// # Errors
    ///
    /// When there is none of this name, or it cannot be read.
    pub fn inspect(&self, name: &str) -> Result<ImageDetails, crate::Error> {
        #[cfg(feature = "wasm")]
        return Ok(wasm::details(name, self.store.inspect(name, Some(&self.compiled)))?);
        #[cfg(not(feature = "wasm"))]
        {
            let _ = name;
            Err(no_store().into())
        }
    }

    /// The images, by name.
    ///
    /// # Errors
    ///
    /// When this build has no runtime that keeps images.
    pub fn list(&self) -> Result<Vec<ImageRecord>, crate::Error> {
        #[cfg(feature = "wasm")]
        return Ok(self.store.list().into_iter().map(wasm::record).collect());
        #[cfg(not(feature = "wasm"))]
        Err(no_store().into())
    }

    /// Removes an image.
    ///
    /// # Errors
    ///
    /// When there is none of this name, or the disk fails.
    pub fn remove(&self, name: &str) -> Result<(), crate::Error> {
        #[cfg(feature = "wasm")]
        return Ok(wasm::removed(name, self.store.remove(name))?);
        #[cfg(not(feature = "wasm"))]
        {
            let _ = name;
            Err(no_store().into())
        }
    }
}

fn no_store() -> Status {
    Status::failure(503, Some(Reason::ServiceUnavailable), "this process has no node that keeps images")
}
