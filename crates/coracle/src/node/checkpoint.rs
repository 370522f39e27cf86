//! Where an agent's checkpoint is kept: one file, replaced as a whole, and sealed because it holds Secrets.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use coracle_node::Checkpoint;
use tokio::sync::watch;

use crate::data_directory::DataDirectory;

/// Keeps the newest checkpoint of a node. Writing happens elsewhere; only the newest of those that wait is written.
#[derive(Debug)]
pub(crate) struct Keeper {
    newest: watch::Sender<Option<Checkpoint>>,
}

impl Keeper {
    /// A keeper of the node's file in this directory, and what the file holds. A file that cannot be read counts as none:
    /// the agent then learns its pods from the API server.
    pub(crate) fn open(directory: DataDirectory, node: &str) -> (Self, Option<Checkpoint>) {
        let file: Arc<str> = format!("nodes/{node}/checkpoint").into();
        let found = read(&directory, &file).unwrap_or_else(|why| {
            tracing::warn!(%why, "the node's checkpoint cannot be read and is not used");
            None
        });
        let (newest, mut changes) = watch::channel(None::<Checkpoint>);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let checkpoint = changes.borrow_and_update().clone();
                let (directory, file) = (directory.clone(), Arc::clone(&file));
                let write = move || match checkpoint {
                    Some(checkpoint) => directory.write(&file, &serde_json::to_vec(&checkpoint)?),
                    None => Ok(()),
                };
                let written = tokio::task::spawn_blocking(write).await;
                if let Ok(Err(error)) = written {
                    tracing::error!(%error, "the node's checkpoint cannot be written");
                }
            }
        });
        (Self { newest }, found)
    }

    /// Keeps this one instead of the one before.
    pub(crate) fn keep(&self, checkpoint: Checkpoint) {
        self.newest.send_replace(Some(checkpoint));
    }
}

fn read(directory: &DataDirectory, file: &str) -> Result<Option<Checkpoint>, String> {
    let Some(bytes) = directory.read(file).map_err(|error| error.to_string())? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string())
}

/// A new file that only this user may read.
pub(crate) fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
