//! The node's images: names that point at contents by digest, in files or in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_base::Timestamp;
use coracle_node::canonical_image_name;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::error::Error;
use crate::files;
use crate::inspect::{ImageDetails, inspect};
use crate::options::BuiltinImages;
use crate::program::compiled_size;
use crate::registry::{Contents, Fetched, ImageConfig, digest_of};

/// The largest image. Compiling takes some twenty times its size in memory.
pub const IMAGE_SIZE_MAX: usize = 256 << 20;
/// The most names: the index is rewritten as a whole at each change.
const IMAGES_MAX: usize = 1_000;

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The name as it was given.
    pub name: String,
    /// `sha256:` and the digest of the contents in hexadecimal.
    pub digest: String,
    /// The size in bytes.
    pub size: u64,
    /// When it was imported or fetched.
    pub created: Timestamp,
    /// The digest of the manifest that it was fetched by; `None`: it was imported, or is built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// How an image with a file system says that it is run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) config: ImageConfig,
}

fn is_default(config: &ImageConfig) -> bool {
    *config == ImageConfig::default()
}

impl Image {
    /// `imageID` of the image under a canonical name: the repository, and the digest that a registry knows it by.
    pub(crate) fn id(&self, canonical: &str) -> String {
        let name = canonical.split('@').next().unwrap_or(canonical);
        let repository = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => name,
        };
        format!("{repository}@{}", self.manifest.as_ref().unwrap_or(&self.digest))
    }
}

/// The store. Every method may wait for the disk.
pub struct ImageStore {
    /// The folder of `index.json` and `blobs/`; `None`: everything is in `blobs` below.
    dir: Option<PathBuf>,
    builtin: Option<BuiltinImages>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By canonical name.
    index: BTreeMap<String, Image>,
    /// Contents by digest, where there is no folder; and built-in images, which are in memory anyway.
    blobs: BTreeMap<String, Arc<[u8]>>,
    /// Built-in images that were asked for, by canonical name: they are translated and digested once.
    known_builtin: BTreeMap<String, Image>,
}

impl fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl ImageStore {
    /// Opens the store in a folder, or an empty one in memory.
    pub fn open(dir: Option<PathBuf>, builtin: Option<BuiltinImages>) -> Result<Self, Error> {
        let mut inner = Inner::default();
        if let Some(dir) = &dir {
            let blobs = dir.join("blobs");
            files::create_private_dir(&blobs).map_err(Error::io("create", &blobs))?;
            let path = dir.join("index.json");
            match fs::read(&path) {
                Ok(bytes) => {
                    inner.index = serde_json::from_slice(&bytes).map_err(|source| Error::Index { path, source })?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", path)(error)),
            }
        }
        Ok(Self { dir, builtin, inner: Mutex::new(inner) })
    }

    /// Takes an image in: a module, a component, or the text of either. A name that is there points at the new contents.
    pub fn import(&self, name: &str, bytes: &[u8]) -> Result<Image, Error> {
        let key = canonical_image_name(name).map_err(|reason| Error::InvalidName { name: name.to_owned(), reason })?;
        let too_large = |size| Error::TooLarge { name: name.to_owned(), size, limit: IMAGE_SIZE_MAX };
        if bytes.len() > IMAGE_SIZE_MAX {
            return Err(too_large(bytes.len()));
        }
        let binary = to_binary(bytes).map_err(|reason| Error::NotWasm { name: name.to_owned(), reason })?;
        if binary.len() > IMAGE_SIZE_MAX {
            return Err(too_large(binary.len()));
        }
        let image = Image {
            name: name.to_owned(),
            digest: digest(&binary),
            size: binary.len() as u64,
            created: now(),
            manifest: None,
            config: ImageConfig::default(),
        };
        let mut inner = self.lock();
        self.make_room(&mut inner, &key)?;
        match self.blob_path(&image.digest) {
            Some(path) => files::write_atomically(&path, &binary, 0o600).map_err(Error::io("write", path))?,
            None => drop(inner.blobs.insert(image.digest.clone(), binary.into())),
        }
        self.point(&mut inner, key, image.clone())?;
        Ok(image)
    }

    /// Keeps what was fetched under a name.
    pub(crate) fn keep(&self, name: &str, canonical: &str, fetched: Fetched) -> Result<Image, Error> {
        let Fetched { manifest, config, contents } = fetched;
        let mut inner = self.lock();
        self.make_room(&mut inner, canonical)?;
        let (digest, size) = match contents {
            Contents::Known(digest) => {
                let size = self.size_of(&inner, &digest)?;
                (digest, size)
            }
            Contents::File(mut file) => {
                let digest = digest_of(file.as_file_mut()).map_err(Error::io("read", file.path()))?;
                let size = file.as_file().metadata().map_err(Error::io("read", file.path()))?.len();
                self.take(&mut inner, &digest, file)?;
                (digest, size)
            }
        };
        let manifest = Some(manifest);
        let image = Image { name: name.to_owned(), digest, size, created: now(), manifest, config };
        self.point(&mut inner, canonical.to_owned(), image.clone())?;
        Ok(image)
    }

    fn take(&self, inner: &mut Inner, digest: &str, file: NamedTempFile) -> Result<(), Error> {
        let from = file.path().to_owned();
        if let Some(path) = self.blob_path(digest) {
            return file.persist(&path).map(drop).map_err(|error| Error::io("write", path)(error.error));
        }
        let bytes = fs::read(&from).map_err(Error::io("read", from))?;
        inner.blobs.insert(digest.to_owned(), bytes.into());
        Ok(())
    }

    fn size_of(&self, inner: &Inner, digest: &str) -> Result<u64, Error> {
        if let Some(bytes) = inner.blobs.get(digest) {
            return Ok(bytes.len() as u64);
        }
        let path = self.blob_path(digest).unwrap_or_else(|| PathBuf::from(digest));
        fs::metadata(&path).map(|metadata| metadata.len()).map_err(Error::io("read", path))
    }

    /// Sees to it that one more name may be kept. Of those that were fetched the oldest gives way: it can be fetched again.
    fn make_room(&self, inner: &mut Inner, key: &str) -> Result<(), Error> {
        if inner.index.len() < IMAGES_MAX || inner.index.contains_key(key) {
            return Ok(());
        }
        let fetched = inner.index.iter().filter(|(_, image)| image.manifest.is_some());
        let oldest = fetched.min_by_key(|(_, image)| image.created).map(|(key, _)| key.clone());
        let Some(oldest) = oldest else { return Err(Error::Full { limit: IMAGES_MAX }) };
        self.unpoint(inner, &oldest).map(drop)
    }

    /// Makes a name point at an image.
    fn point(&self, inner: &mut Inner, key: String, image: Image) -> Result<(), Error> {
        let mut index = inner.index.clone();
        let replaced = index.insert(key, image);
        self.write_index(&index)?;
        inner.index = index;
        if let Some(replaced) = replaced {
            self.collect(inner, &replaced.digest);
        }
        Ok(())
    }

    /// Takes a name out, and the contents with the last name.
    fn unpoint(&self, inner: &mut Inner, key: &str) -> Result<Option<Image>, Error> {
        let mut index = inner.index.clone();
        let Some(removed) = index.remove(key) else { return Ok(None) };
        self.write_index(&index)?;
        inner.index = index;
        self.collect(inner, &removed.digest);
        Ok(Some(removed))
    }

    /// All imported images, by canonical name.
    pub fn list(&self) -> Vec<Image> {
        self.lock().index.values().cloned().collect()
    }

    /// Takes a name out, and the contents with the last name. `false`: there is no such name.
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        let key = canonical_image_name(name).map_err(|reason| Error::InvalidName { name: name.to_owned(), reason })?;
        Ok(self.unpoint(&mut self.lock(), &key)?.is_some())
    }

    /// The images that were fetched, by canonical name: what could be fetched again.
    pub(crate) fn fetched(&self) -> Vec<(String, Image)> {
        let inner = self.lock();
        let fetched = inner.index.iter().filter(|(_, image)| image.manifest.is_some());
        fetched.map(|(name, image)| (name.clone(), image.clone())).collect()
    }

    /// An image that was fetched by this manifest, under whichever name.
    pub(crate) fn of_manifest(&self, manifest: &str) -> Option<Image> {
        self.lock().index.values().find(|image| image.manifest.as_deref() == Some(manifest)).cloned()
    }

    /// Whether contents are here.
    pub(crate) fn has(&self, digest: &str) -> bool {
        let inner = self.lock();
        inner.index.values().any(|image| image.digest == digest)
    }

    /// What the image of a name is; `None`: there is no such name. Compiled code is looked for in this folder.
    pub fn inspect(&self, name: &str, compiled: Option<&Path>) -> Result<Option<ImageDetails>, Error> {
        let failed = |reason| Error::InvalidName { name: name.to_owned(), reason };
        let Some(image) = self.find(&canonical_image_name(name).map_err(failed)?) else { return Ok(None) };
        let bytes = self.contents(&image.digest)?;
        let inspection = inspect(&bytes).map_err(|reason| Error::NotWasm { name: name.to_owned(), reason })?;
        let compiled_size = compiled_size(compiled, &image.digest);
        Ok(Some(ImageDetails { image, inspection, compiled_size }))
    }

    /// The image of a canonical name: an imported one before a built-in one.
    pub(crate) fn find(&self, canonical: &str) -> Option<Image> {
        let mut inner = self.lock();
        if let Some(image) = inner.index.get(canonical) {
            return Some(image.clone());
        }
        if let Some(image) = inner.known_builtin.get(canonical) {
            return Some(image.clone());
        }
        let bytes = self.builtin.as_ref()?(canonical)?;
        // What is neither a module nor the text of one stays as it is: the container that is made of it says what is wrong.
        let binary = if bytes.starts_with(b"\0asm") { bytes } else { to_binary(&bytes).map_or(bytes, Arc::from) };
        let image = Image {
            name: canonical.to_owned(),
            digest: digest(&binary),
            size: binary.len() as u64,
            created: Timestamp::EPOCH,
            manifest: None,
            config: ImageConfig::default(),
        };
        inner.blobs.entry(image.digest.clone()).or_insert(binary);
        inner.known_builtin.insert(canonical.to_owned(), image.clone());
        Some(image)
    }

    /// The contents of a digest.
    pub(crate) fn contents(&self, digest: &str) -> Result<Arc<[u8]>, Error> {
        if let Some(bytes) = self.lock().blobs.get(digest) {
            return Ok(Arc::clone(bytes));
        }
        let path = self.blob_path(digest).unwrap_or_else(|| PathBuf::from(digest));
        fs::read(&path).map(Arc::from).map_err(Error::io("read", path))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob_path(&self, digest: &str) -> Option<PathBuf> {
        let hex = digest.strip_prefix("sha256:")?;
        Some(self.dir.as_ref()?.join("blobs").join(format!("{hex}.wasm")))
    }

    fn write_index(&self, index: &BTreeMap<String, Image>) -> Result<(), Error> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join("index.json");
        let text = serde_json::to_vec_pretty(index).map_err(|source| Error::Index { path: path.clone(), source })?;
        files::write_atomically(&path, &text, 0o600).map_err(Error::io("write", path))
    }

    /// Removes contents that no name points at. What cannot be removed is only space: it stays.
    fn collect(&self, inner: &mut Inner, digest: &str) {
        if inner.index.values().any(|image| image.digest == digest) {
            return;
        }
        if !inner.known_builtin.values().any(|image| image.digest == digest) {
            inner.blobs.remove(digest);
        }
        if let Some(path) = self.blob_path(digest)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove an unused image");
        }
    }
}

/// The binary form of an image: text is translated, a binary is taken as it is if its first bytes are right.
pub(crate) fn to_binary(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    if bytes.starts_with(b"\0asm") {
        return if bytes.len() >= 8 { Ok(bytes.to_vec()) } else { Err("the file ends in its header".to_owned()) };
    }
    // Text begins with `(module` or `(component` after white space and comments.
    match std::str::from_utf8(bytes) {
        Ok(text) if matches!(text.trim_start().as_bytes().first(), Some(b'(' | b';')) => {
            wat::parse_str(text).map_err(|error| error.to_string())
        }
        _ => Err("it begins with neither the magic bytes \"\\0asm\" nor the text of a module".to_owned()),
    }
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(since.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &[u8] = b"(module)";

    #[test]
    fn an_image_is_found_by_its_canonical_name_and_shown_as_given() {
        let store = ImageStore::open(None, None).unwrap();
        let image = store.import("web", MODULE).unwrap();
        assert_eq!(store.find("docker.io/library/web:latest").unwrap(), image);
        assert_eq!(image.name, "web");
        assert!(store.contents(&image.digest).unwrap().starts_with(b"\0asm"));
    }

    #[test]
    fn image_ids_name_the_repository_and_the_digest() {
        let store = ImageStore::open(None, None).unwrap();
        let mut image = store.import("web", MODULE).unwrap();
        image.digest = "sha256:ab".to_owned();
        assert_eq!(image.id("docker.io/library/web:v1"), "docker.io/library/web@sha256:ab");
        image.manifest = Some("sha256:12".to_owned());
        assert_eq!(image.id("localhost:5000/web@sha256:cd"), "localhost:5000/web@sha256:12");
    }

    fn fetched(manifest: &str, binary: &[u8]) -> Fetched {
        let mut file = NamedTempFile::new().unwrap();
        std::io::Write::write_all(file.as_file_mut(), binary).unwrap();
        Fetched { manifest: manifest.to_owned(), config: ImageConfig::default(), contents: Contents::File(file) }
    }

    #[test]
    fn the_oldest_image_that_was_fetched_makes_room_and_an_imported_one_never() {
        let store = ImageStore::open(None, None).unwrap();
        for number in 0..IMAGES_MAX - 1 {
            store.import(&format!("own:{number}"), MODULE).unwrap();
        }
        store.keep("a", "r/a:1", fetched("sha256:0a", b"\0asm\x01\0\0\0")).unwrap();
        store.keep("b", "r/b:1", fetched("sha256:0b", b"\0asm\x01\0\0\0")).unwrap();
        assert_eq!(store.fetched().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["r/b:1"]);
        store.import("own:new", MODULE).unwrap();
        assert!(matches!(store.import("own:more", MODULE), Err(Error::Full { .. })));
    }

    #[test]
    fn images_in_a_folder_are_there_after_reopening_and_gone_after_removal() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(Some(dir.path().into()), None).unwrap();
        let image = store.import("web:v1", MODULE).unwrap();
        store.import("web:v2", MODULE).unwrap();
        let store = ImageStore::open(Some(dir.path().into()), None).unwrap();
        assert_eq!(store.list().len(), 2);
        assert!(store.remove("web:v1").unwrap());
        assert!(!store.remove("web:v1").unwrap());
        assert!(store.contents(&image.digest).is_ok(), "the other name still points at it");
        assert!(store.remove("web:v2").unwrap());
        assert!(store.contents(&image.digest).is_err());
    }

    #[test]
    fn what_is_not_wasm_is_refused_with_the_reason() {
        let store = ImageStore::open(None, None).unwrap();
        let refusal = |bytes: &[u8]| store.import("web", bytes).unwrap_err().to_string();
        assert!(refusal(b"#!/bin/sh").contains("neither the magic bytes"));
        assert!(refusal(b"(module (func").contains("is not WebAssembly"));
        assert_eq!(refusal(b""), "image \"web\" is not WebAssembly: the file is empty");
    }

    #[test]
    fn an_imported_image_goes_before_a_builtin_one() {
        let builtin: BuiltinImages = Arc::new(|name| (name == "coracle.dev/web:v1").then(|| b"\0asm1234"[..].into()));
        let store = ImageStore::open(None, Some(builtin)).unwrap();
        let builtin = store.find("coracle.dev/web:v1").unwrap();
        assert_eq!(&*store.contents(&builtin.digest).unwrap(), b"\0asm1234");
        let imported = store.import("coracle.dev/web:v1", MODULE).unwrap();
        assert_eq!(store.find("coracle.dev/web:v1").unwrap(), imported);
    }
    #[test]
    fn a_builtin_image_may_be_text_and_outlives_an_import_of_the_same_bytes() {
        let builtin: BuiltinImages = Arc::new(|name| (name == "coracle.dev/web:v1").then(|| b"(module)"[..].into()));
        let store = ImageStore::open(None, Some(builtin)).unwrap();
        let found = store.find("coracle.dev/web:v1").unwrap();
        assert_eq!(&*store.contents(&found.digest).unwrap(), b"\0asm\x01\0\0\0");
        store.import("coracle.dev/other:v1", b"(module)").unwrap();
        store.remove("coracle.dev/other:v1").unwrap();
        assert_eq!(store.find("coracle.dev/web:v1").unwrap(), found);
        assert!(store.contents(&found.digest).is_ok());
    }
}
