//! What can go wrong outside a command's own answer: opening the runtime, and its image store.

use std::io;
use std::path::PathBuf;

/// Why the runtime could not be opened, or an image not be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or a folder of the runtime's state.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried, as in `read`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The guest threads could not be started.
    #[error("start the threads of the Wasm runtime")]
    Threads(#[source] io::Error),
    /// wasmtime refuses this machine; the text says why.
    #[error("wasmtime cannot run on this machine: {0}")]
    Engine(String),
    /// Guests were to run inline, and the caller is in no current_thread runtime of tokio.
    #[error("guests run inline on a current_thread runtime of tokio only")]
    NotInline,
    /// The index of the image store is damaged.
    #[error("the image index {} is damaged", .path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Where it is damaged.
        source: serde_json::Error,
    },
    /// The name is no image reference.
    #[error("invalid image name {name:?}: {reason}")]
    InvalidName {
        /// The name as given.
        name: String,
        /// What is wrong with it, in Docker's words.
        reason: &'static str,
    },
    /// The bytes are no WebAssembly.
    #[error("image {name:?} is not WebAssembly: {reason}")]
    NotWasm {
        /// The name as given.
        name: String,
        /// What they are instead, or where the text is wrong.
        reason: String,
    },
    /// The image is larger than an image may be.
    #[error("image {name:?} has {size} bytes; an image may have at most {limit}")]
    TooLarge {
        /// The name as given.
        name: String,
        /// Its size in bytes.
        size: usize,
        /// The most in bytes.
        limit: usize,
    },
    /// The store holds as many names as it may.
    #[error("the image store holds {limit} images already; remove one first")]
    Full {
        /// The most names.
        limit: usize,
    },
}

impl Error {
    /// An error about a file, for `map_err`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
