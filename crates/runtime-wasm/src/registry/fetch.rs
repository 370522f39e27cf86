//! Fetches images: finds out what an image is, streams what is missing of it into a file, and verifies it.
//!
//! It knows no policy: whether to fetch, when to try again, and as whom, it is told.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_node::runtime::{ImageError, ImageInfo, Login};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;

use super::artifact::{self, ImageConfig, Plan, Refusal};
use super::error::Failure;
use super::{PROGRESS_DEADLINE, Registries, Source, layer};
use crate::image_store::{IMAGE_SIZE_MAX, Image, ImageStore};

/// How many images are fetched at one time.
const PULLS_MAX: usize = 4;
/// The largest config.
const CONFIG_SIZE_MAX: i64 = 1 << 20;
/// The manifests that are understood.
const MANIFESTS: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Fetches images for one node.
#[derive(Debug)]
pub(crate) struct Fetcher {
    registries: Registries,
    /// Where files are while they come.
    dir: PathBuf,
    permits: Semaphore,
    /// One lock an image's contents: what two images share comes once. Only what is being fetched is here.
    contents: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// What was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The digest of the manifest that the name led to.
    pub(crate) manifest: String,
    /// How the program is run.
    pub(crate) config: ImageConfig,
    /// The program.
    pub(crate) contents: Contents,
}

/// A program.
#[derive(Debug)]
pub(crate) enum Contents {
    /// It was here already, by its digest.
    Known(String),
    /// It came, whole and verified.
    File(NamedTempFile),
}

/// A place and a user that the registry let in, with what the name leads to there.
struct Found {
    client: Client,
    reference: Reference,
    manifest: Bytes,
    digest: String,
}

impl Fetcher {
    pub(crate) fn new(registries: Registries, dir: PathBuf) -> Self {
        Self { registries, dir, permits: Semaphore::new(PULLS_MAX), contents: Mutex::default() }
    }

    /// Brings an image into the store: what its name leads to now.
    pub(crate) async fn fetch(
        &self,
        store: &Arc<ImageStore>,
        name: &str,
        canonical: &str,
        logins: &[Login],
    ) -> Result<(Image, ImageInfo), ImageError> {
        let asked = Instant::now();
        let failed = ImageError::Pull;
        let _permit = self.permits.acquire().await.map_err(|error| failed(error.to_string()))?;
        let began = Instant::now();
        let reference: Reference =
            canonical.parse().map_err(|error: oci_client::ParseError| ImageError::InvalidName(error.to_string()))?;
        let found = self.find(&reference, logins).await.map_err(|failure| match failure {
            Failure::Denied(why) => failed(format!(
                "pull access denied for {}/{}, repository does not exist or may require authorization: {why}",
                reference.registry(),
                reference.repository()
            )),
            Failure::Missing(why) => failed(format!("{canonical}: not found: {why}")),
            // Whoever is without a network has another way.
            Failure::Broken(why) => {
                let registry = reference.registry();
                let otherwise = format!("an image can be imported as well: `coracle image import {name} FILE`");
                failed(format!("the registry {registry} cannot be asked: {why}; {otherwise}"))
            }
        })?;
        let refused = |refusal: Refusal| match refusal.kind {
            Some(kind) => ImageError::OtherKind(kind, format!("cannot run image {name:?}: {}", refusal.why)),
            None => ImageError::Pull(format!("cannot run image {name:?}: {}", refusal.why)),
        };
        let image = match self.contents(store, &found).await {
            Ok(fetched) => {
                let (store, name, canonical) = (Arc::clone(store), name.to_owned(), canonical.to_owned());
                let kept = tokio::task::spawn_blocking(move || store.keep(&name, &canonical, fetched)).await;
                kept.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(super::error::chain(&error)))?
            }
            Err(Stopped::Refused(refusal)) => return Err(refused(refusal)),
            Err(Stopped::Failed(why)) => return Err(failed(why)),
        };
        let info = ImageInfo {
            present: false,
            pull_millis: millis(began.elapsed()),
            waited_millis: millis(asked.elapsed()),
            ..ImageInfo::present(image.id(canonical), image.size)
        };
        Ok((image, info))
    }

    /// Asks each place as each user until one has the image.
    async fn find(&self, image: &Reference, logins: &[Login]) -> Result<Found, Failure> {
        let mut failures: Vec<(String, Failure)> = Vec::new();
        for source in self.registries.sources(image) {
            match self.ask(&source, logins).await {
                Ok(found) => return Ok(found),
                Err(failure) => failures.push((source.endpoint.host, failure)),
            }
        }
        // The registry itself is asked last, and knows best; what a mirror said only helps to find what is wrong with it.
        let (_, last) =
            failures.pop().unwrap_or_else(|| (String::new(), Failure::Broken("there is nobody to ask".into())));
        let mut mirrors = String::new();
        for (host, failure) in failures {
            let (Failure::Denied(why) | Failure::Missing(why) | Failure::Broken(why)) = failure;
            let _ = write!(mirrors, " (mirror {host}: {why})");
        }
        Err(match last {
            Failure::Denied(why) => Failure::Denied(why + &mirrors),
            Failure::Missing(why) => Failure::Missing(why + &mirrors),
            Failure::Broken(why) => Failure::Broken(why + &mirrors),
        })
    }

    async fn ask(&self, source: &Source, logins: &[Login]) -> Result<Found, Failure> {
        let mut refused = None;
        for user in self.registries.users(&source.endpoint, logins) {
            let client = self.registries.client(&source.endpoint).map_err(Failure::Broken)?;
            match manifest(&client, &source.reference, &user).await {
                Ok((manifest, digest)) => {
                    return Ok(Found { client, reference: source.reference.clone(), manifest, digest });
                }
                // The first user is whom the pod names; what nobody is told says less.
                Err(failure @ (Failure::Denied(_) | Failure::Missing(_))) => _ = refused.get_or_insert(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(refused.unwrap_or_else(|| Failure::Broken("there is nobody to ask as".into())))
    }

    async fn contents(&self, store: &ImageStore, found: &Found) -> Result<Fetched, Stopped> {
        let known =
            |config, digest| Fetched { manifest: found.digest.clone(), config, contents: Contents::Known(digest) };
        // Under another name, or the same: nothing is to be fetched.
        if let Some(image) = store.of_manifest(&found.digest) {
            return Ok(known(image.config, image.digest));
        }
        let manifest = image_manifest(found).await?;
        let lock = self.lock(&manifest.config.digest, &manifest.layers);
        let _guard = lock.lock().await;
        match artifact::plan(&manifest)? {
            Plan::Layer(layer) => {
                let config = config(found, &manifest.config).await?;
                artifact::check_artifact(&config)?;
                if store.has(&layer.digest) {
                    return Ok(known(ImageConfig::default(), layer.digest));
                }
                let file = layer::download(&found.client, &found.reference, &layer, &self.dir).await?;
                let file = layer::wasm(file).await?;
                let config = ImageConfig::default();
                Ok(Fetched { manifest: found.digest.clone(), config, contents: Contents::File(file) })
            }
            Plan::Config { config: descriptor, layers, marked } => {
                let bytes = config(found, &descriptor).await?;
                let (image, program) = artifact::entry(&bytes, marked)?;
                for layer in layers.iter().rev() {
                    let file = layer::download(&found.client, &found.reference, layer, &self.dir).await?;
                    if let Some(file) = layer::file_of(file, &program, &self.dir).await? {
                        let file = layer::wasm(file).await?;
                        let manifest = found.digest.clone();
                        return Ok(Fetched { manifest, config: image, contents: Contents::File(file) });
                    }
                }
                let why = format!("it has no file {program:?}, which its entry point names");
                Err(Stopped::Refused(Refusal { kind: None, why }))
            }
        }
    }

    fn lock(&self, config: &str, layers: &[OciDescriptor]) -> Arc<tokio::sync::Mutex<()>> {
        let key = layers.last().map_or(config, |layer| layer.digest.as_str());
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = contents.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        contents.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

/// Why contents did not come.
#[derive(Debug)]
pub(super) enum Stopped {
    /// They are not to be run.
    Refused(Refusal),
    /// They could not be had.
    Failed(String),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

async fn manifest(client: &Client, reference: &Reference, user: &RegistryAuth) -> Result<(Bytes, String), Failure> {
    let answer = tokio::time::timeout(PROGRESS_DEADLINE, client.pull_manifest_raw(reference, user, MANIFESTS));
    match answer.await {
        Ok(answer) => answer.map_err(|error| Failure::of(&error)),
        Err(_) => Err(Failure::Broken(format!("{} does not answer", reference.registry()))),
    }
}

/// The manifest of the one image that is meant.
async fn image_manifest(found: &Found) -> Result<OciImageManifest, Stopped> {
    let parse = |bytes: &[u8]| -> Result<OciManifest, Stopped> {
        serde_json::from_slice(bytes).map_err(|error| Stopped::Failed(format!("its manifest cannot be read: {error}")))
    };
    let index = match parse(&found.manifest)? {
        OciManifest::Image(manifest) => return Ok(manifest),
        OciManifest::ImageIndex(index) => index,
    };
    let reference = found.reference.clone_with_digest(artifact::choose(&index)?);
    // The client remembers whom it was let in as.
    let (bytes, _) = manifest(&found.client, &reference, &RegistryAuth::Anonymous).await.map_err(|failure| {
        let (Failure::Denied(why) | Failure::Missing(why) | Failure::Broken(why)) = failure;
        Stopped::Failed(why)
    })?;
    match parse(&bytes)? {
        OciManifest::Image(manifest) => Ok(manifest),
        OciManifest::ImageIndex(_) => Err(Stopped::Failed("its index leads to another index".into())),
    }
}

async fn config(found: &Found, descriptor: &OciDescriptor) -> Result<Vec<u8>, Stopped> {
    if !(0..=CONFIG_SIZE_MAX).contains(&descriptor.size) {
        return Err(Stopped::Failed(format!("its config of {} bytes is too large", descriptor.size)));
    }
    layer::small(&found.client, &found.reference, descriptor).await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a layer may be as large as it says.
pub(super) fn check_size(layer: &OciDescriptor) -> Result<u64, Stopped> {
    match u64::try_from(layer.size) {
        Ok(size) if size <= IMAGE_SIZE_MAX as u64 => Ok(size),
        _ => Err(Stopped::Failed(format!(
            "its layer has {} bytes; an image may have at most {IMAGE_SIZE_MAX}",
            layer.size
        ))),
    }
}
