//! `coracle snapshot`: back up a running cluster, look into a backup, and begin a cluster with one.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use coracle::{BackupSummary, ErrorKind};
use serde_json::{Value, json};

use crate::args::{BackupKey, SnapshotCommand, Which};
use crate::connection::{self, Connection};
use crate::terminal::say;

pub(crate) async fn run(command: SnapshotCommand) -> Result<()> {
    match command {
        SnapshotCommand::Save { file, passphrase_file, which } => save(&file, passphrase_file.as_deref(), &which).await,
        SnapshotCommand::Inspect { file, key } => inspect(&file, &key),
        SnapshotCommand::Restore { file, data_dir, key } => restore(&file, &data_dir, &key),
    }
}

async fn save(file: &Path, passphrase_file: Option<&Path>, which: &Which) -> Result<()> {
    if file.exists() {
        bail!("{} is there already", file.display());
    }
    let passphrase = passphrase_file.map(passphrase).transpose()?;
    let connection = Connection::to(&connection::entry(which)?)?;
    let asked = passphrase.as_ref().map_or_else(|| json!({}), |passphrase| json!({ "passphrase": passphrase }));
    let unfinished = file.with_extension("unfinished");
    let saved = download(&connection, &asked, &unfinished)
        .await
        .and_then(|()| fs::rename(&unfinished, file).with_context(|| format!("cannot write {}", file.display())));
    if saved.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    saved?;
    let key = passphrase.map_or(coracle::BackupKey::Found, coracle::BackupKey::Passphrase);
    match coracle::inspect_backup(file, &key) {
        Ok(summary) => {
            let objects: usize = summary.objects.values().sum();
            say(&format!("Saved {objects} objects at revision {} to {}.", summary.revision, file.display()));
            say(&match &summary.key_file {
                Some(key) => format!(
                    "It is sealed with the key in {}: keep a copy of that elsewhere; without it nobody can restore the backup.",
                    key.display()
                ),
                None => "It is sealed with the passphrase: without it nobody can restore the backup.".into(),
            });
            Ok(())
        }
        // The keys are on another machine.
        Err(error) if error.kind() == ErrorKind::Invalid => {
            say(&format!("Saved to {}, and not checked: {error}.", file.display()));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn download(connection: &Connection, asked: &Value, into: &Path) -> Result<()> {
    let what = || format!("cannot write {}", into.display());
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(into).with_context(what)?;
    connection.download("/coracle/v1/snapshot", asked, |piece| out.write_all(piece).with_context(what)).await?;
    out.sync_all().with_context(what)
}

fn inspect(file: &Path, key: &BackupKey) -> Result<()> {
    let summary = coracle::inspect_backup(file, &opened_by(key)?)?;
    let sealed_with = match &summary.key_file {
        Some(key) => format!("the key in {}", key.display()),
        None => "a passphrase".into(),
    };
    let incarnation = if summary.incarnation.is_empty() { "the first" } else { &summary.incarnation };
    for (name, value) in [
        ("Cluster", summary.cluster.as_str()),
        ("Incarnation", incarnation),
        ("Saved at", &summary.saved_at),
        ("Saved by", &format!("Coracle {}, format {}", summary.version, summary.format)),
        ("Sealed with", &sealed_with),
        ("Revision", &summary.revision.to_string()),
        ("Index", &summary.index.to_string()),
        ("Term", &summary.term.to_string()),
        ("Last change", &summary.time),
    ] {
        say(&format!("{:<14}{value}", format!("{name}:")));
    }
    say("Objects:");
    for (resource, count) in &summary.objects {
        say(&format!("  {resource:<52}{count}"));
    }
    say("Every checksum is right.");
    Ok(())
}

fn restore(file: &Path, data_dir: &Path, key: &BackupKey) -> Result<()> {
    let BackupSummary { revision, saved_at, .. } =
        coracle::restore_backup(file, &opened_by(key)?, data_dir, connection::key_dir().as_deref())?;
    say(&format!("{} holds the cluster as it was at {saved_at}, revision {revision}.", data_dir.display()));
    say("Do not start again the members that were saved: they would be another cluster with the same keys.");
    say(&format!("Start it: coracle up --data-dir {}", data_dir.display()));
    Ok(())
}

fn opened_by(key: &BackupKey) -> Result<coracle::BackupKey> {
    Ok(match (&key.key_file, &key.passphrase_file) {
        (Some(file), _) => coracle::BackupKey::File(file.clone()),
        (None, Some(file)) => coracle::BackupKey::Passphrase(passphrase(file)?),
        (None, None) => coracle::BackupKey::Found,
    })
}

/// The first line of a file.
fn passphrase(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    match text.lines().next() {
        Some(line) if !line.trim().is_empty() => Ok(line.to_owned()),
        _ => bail!("{} has no passphrase in its first line", file.display()),
    }
}
