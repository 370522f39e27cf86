//! Where an agent's checkpoint is kept: one file, replaced as a whole, mode 0600 because it holds Secrets.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use coracle_node::Checkpoint;
use tokio::sync::watch;

use crate::Error;

/// Keeps the newest checkpoint of a node. Writing happens elsewhere; only the newest of those that wait is written.
#[derive(Debug)]
pub(crate) struct Keeper {
    newest: watch::Sender<Option<Checkpoint>>,
}

impl Keeper {
    /// A keeper of the node's file in this directory, and what the file holds. A file that cannot be read counts as none:
    /// the agent then learns its pods from the API server.
    pub(crate) fn open(directory: &Path, node: &str) -> Result<(Self, Option<Checkpoint>), Error> {
        let folder = directory.join("nodes").join(node);
        fs::create_dir_all(&folder).map_err(|source| Error::file("create", &folder, source))?;
        let path = folder.join("checkpoint.json");
        let found = fs::read(&path).ok().and_then(|bytes| match serde_json::from_slice(&bytes) {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the node's checkpoint cannot be read and is not used");
                None
            }
        });
        let (newest, mut changes) = watch::channel(None::<Checkpoint>);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let checkpoint = changes.borrow_and_update().clone();
                let path = path.clone();
                let written =
                    tokio::task::spawn_blocking(move || checkpoint.map_or(Ok(()), |c| write(&path, &c))).await;
                if let Ok(Err(error)) = written {
                    tracing::error!(%error, "the node's checkpoint cannot be written");
                }
            }
        });
        Ok((Self { newest }, found))
    }

    /// Keeps this one instead of the one before.
    pub(crate) fn keep(&self, checkpoint: Checkpoint) {
        self.newest.send_replace(Some(checkpoint));
    }
}

fn write(path: &PathBuf, checkpoint: &Checkpoint) -> std::io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = private_file(&unfinished)?;
    file.write_all(&serde_json::to_vec(checkpoint)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

/// A new file that only this user may read.
pub(crate) fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
