//! `coracle down`: stop the cluster, take its context out of the kubeconfig, and delete its data when that is asked for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::Method;

use crate::args::Down;
use crate::connection::{self, Connection};
use crate::kubeconfig::{self, Entry};
use crate::terminal::{ask, say};

/// How long the process may take to write everything and end.
const STOP_WAIT: Duration = Duration::from_secs(20);

pub(crate) async fn run(down: Down) -> Result<()> {
    let path = kubeconfig::path(down.which.kubeconfig.as_deref())?;
    let data_dir = match &down.which.data_dir {
        Some(directory) => directory.clone(),
        None => connection::default_data_dir()?,
    };
    if down.delete_data && !down.yes && data_dir.exists() {
        let question = format!("Delete the cluster's data in {}?", data_dir.display());
        if !ask(&question) {
            bail!("nothing was done; say --yes to delete {} without being asked", data_dir.display());
        }
    }
    let entry = match &down.which.data_dir {
        Some(directory) => connection::entry_of(directory)?,
        None => kubeconfig::find(&path)?,
    };
    let mut stopped = false;
    if let Some(entry) = &entry {
        let connection = Connection::to_one(entry)?;
        if connection.is_alive().await {
            connection.send(Method::POST, "/coracle/v1/shutdown", None, Vec::new()).await?;
            until_gone(&connection).await?;
            stopped = true;
        }
    }
    let is_ours = |ours: &Entry| entry.as_ref().is_none_or(|entry| entry.is_same(ours));
    if kubeconfig::find(&path)?.is_some_and(|ours| is_ours(&ours)) {
        kubeconfig::remove(&path)?;
    }
    say(if stopped { "The cluster is stopped." } else { "No cluster was running." });
    if down.delete_data {
        delete(&data_dir)?;
    }
    Ok(())
}

async fn until_gone(connection: &Connection) -> Result<()> {
    let gone = async {
        while connection.is_alive().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(STOP_WAIT, gone).await.context("the cluster was asked to stop and still answers")
}

/// Deletes a data directory and its keys, and nothing that is not one.
fn delete(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let mut left = 50;
    // The process that held it may still be writing its last bytes.
    while let Err(error) = coracle::delete_data(directory) {
        left -= 1;
        if left == 0 || error.kind() == coracle::ErrorKind::Invalid {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    say(&format!("Deleted {}.", directory.display()));
    Ok(())
}
