//! Images at the port: what is asked for, with whose credentials, and what comes of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RuntimeKind;

/// Which pull an answer belongs to; chosen by the agent, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PullId(pub u64);

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Ask the registry whether there is a newer one.
    Always,
    /// Fetch only what is not there.
    IfNotPresent,
    /// Never fetch.
    Never,
}

/// A user of a registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password, or a token that stands for one.
    pub password: String,
}

/// Commands may be logged; passwords may not.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// An image in the node's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The name and digest, as `status.containerStatuses[].imageID` shows it.
    pub id: String,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it was there already.
    pub present: bool,
    /// How long fetching took, in milliseconds; zero when it was there.
    pub pull_millis: u64,
    /// How long it took with waiting for other pulls to end, in milliseconds; zero when it was there.
    #[serde(default)]
    pub waited_millis: u64,
    /// What runs it: how an image says which runtime its pod has, where the pod says nothing.
    pub runtime: RuntimeKind,
    /// The user that it runs as where the pod says none, as the image names it (`1000`, `web:web`); empty: root.
    #[serde(default)]
    pub user: String,
}

impl ImageInfo {
    /// A WebAssembly image that was there already.
    pub fn present(id: impl Into<String>, size: u64) -> Self {
        Self {
            id: id.into(),
            size,
            present: true,
            pull_millis: 0,
            waited_millis: 0,
            runtime: RuntimeKind::Wasm,
            user: String::new(),
        }
    }
}

/// Why an image cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageError {
    /// The name is no image reference: `InvalidImageName`.
    InvalidName(String),
    /// It is not there and may not be fetched: `ErrImageNeverPull`.
    NeverPull,
    /// It could not be fetched: `ErrImagePull`, then `ImagePullBackOff`.
    Pull(String),
    /// It is there and of a kind that another runtime runs; the sentence says so. Where no runtime is left to ask it is as
    /// [`Self::Pull`].
    OtherKind(RuntimeKind, String),
}

/// An image that a node holds, for deciding what to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// As [`ImageInfo::id`] has it; what [`super::RuntimeCommand::RemoveImage`] names.
    pub id: String,
    /// What removing it gives back, in bytes.
    pub size: u64,
}

/// The room where a node's images lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    /// The size of the file system, in bytes.
    pub capacity: u64,
    /// What of it may still be written to, in bytes.
    pub available: u64,
}
