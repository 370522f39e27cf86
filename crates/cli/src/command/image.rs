//! `coracle image`: the images that the node has.

use std::path::Path;

use anyhow::{Context as _, Result};
use coracle::{ImageDetails, ImageRecord};
use http::Method;

use crate::args::{ImageCommand, Which};
use crate::connection::{self, Connection};
use crate::terminal::say;

const PATH: &str = "/coracle/v1/images";

pub(crate) async fn run(command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Import { name, file, which } => {
            if let Some(connection) = reach(&which).await? {
                return import(&connection, &name, &file).await;
            }
            let record = store(&which)?.import(&name, &read(&file)?)?;
            imported(&record);
            Ok(())
        }
        ImageCommand::Push { name, file, registries } => {
            let registries = registries.as_deref().map(coracle::Registries::read).transpose()?.unwrap_or_default();
            let digest = coracle::push_image(&name, &read(&file)?, &registries).await?;
            say(&format!("image {name} pushed ({digest})"));
            Ok(())
        }
        ImageCommand::Inspect { name, which } => {
            let found = match reach(&which).await? {
                Some(connection) => {
                    let answer = connection.get(&format!("{PATH}?name={}", encode(&name))).await?;
                    serde_json::from_value(answer).context("the answer is no image")?
                }
                None => store(&which)?.inspect(&name)?,
            };
            inspected(&found);
            Ok(())
        }
        ImageCommand::Ls { which } => {
            let images = match reach(&which).await? {
                Some(connection) => serde_json::from_value(connection.get(PATH).await?["images"].take())
                    .context("the answer is no list of images")?,
                None => store(&which)?.list()?,
            };
            list(&images);
            Ok(())
        }
        ImageCommand::Rm { name, which } => {
            match reach(&which).await? {
                Some(connection) => {
                    let path = format!("{PATH}?name={}", encode(&name));
                    connection.json(Method::DELETE, &path, "application/json", &serde_json::Value::Null).await?;
                }
                None => store(&which)?.remove(&name)?,
            }
            say(&format!("image {name} removed"));
            Ok(())
        }
    }
}

/// Gives a running cluster an image.
pub(crate) async fn import(connection: &Connection, name: &str, file: &Path) -> Result<()> {
    let path = format!("{PATH}?name={}", encode(name));
    let (code, body) = connection.send(Method::PUT, &path, Some("application/wasm"), read(file)?).await?;
    if code != 200 {
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = status["message"].as_str().unwrap_or("the server did not say why");
        anyhow::bail!("cannot import {}: {message}", file.display());
    }
    imported(&serde_json::from_slice(&body).context("the answer is no image")?);
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The running cluster; `None` when none runs and the data directory is to be used itself.
async fn reach(which: &Which) -> Result<Option<Connection>> {
    let entry = match &which.data_dir {
        Some(directory) => connection::entry_of(directory)?,
        None => match connection::entry(which) {
            Ok(entry) => Some(entry),
            Err(_) if connection::default_data_dir()?.exists() => None,
            Err(error) => return Err(error),
        },
    };
    let Some(entry) = entry else { return Ok(None) };
    let connection = Connection::to(&entry)?;
    Ok(connection.is_ready().await.then_some(connection))
}

fn store(which: &Which) -> Result<coracle::ImageDirectory> {
    let directory = match &which.data_dir {
        Some(directory) => directory.clone(),
        None => connection::default_data_dir()?,
    };
    Ok(coracle::ImageDirectory::open(&directory)?)
}

fn imported(record: &ImageRecord) {
    say(&format!("image {} imported ({}, {} bytes)", record.name, record.digest, record.size));
}

fn inspected(found: &ImageDetails) {
    let ImageDetails { record, .. } = found;
    say(&format!("Name:            {}", record.name));
    say(&format!("Digest:          {}", record.digest));
    if let Some(manifest) = &found.manifest {
        say(&format!("Manifest:        {manifest}"));
    }
    say(&format!("Created:         {}", created(record)));
    say(&format!("Size:            {} bytes", record.size));
    let compiled = found.compiled_size;
    say(&if compiled == 0 {
        "Compiled:        not yet".to_owned()
    } else {
        format!("Compiled:        {compiled} bytes")
    });
    say(&format!("World:           {}", found.world));
    for (title, names) in [("Exports:", &found.exports), ("Imports:", &found.imports)] {
        let mut title = title;
        for name in names {
            say(&format!("{title:17}{name}"));
            title = "";
        }
    }
}

fn list(images: &[ImageRecord]) {
    let width = images.iter().map(|image| image.name.len()).max().unwrap_or(0).max(4);
    say(&format!("{:width$}   {:7}   {:19}   {:>10}   CREATED", "NAME", "RUNTIME", "DIGEST", "SIZE"));
    for image in images {
        let digest = image.digest.get(..19).unwrap_or(&image.digest);
        let (name, runtime, size) = (&image.name, &image.runtime, image.size);
        say(&format!("{name:width$}   {runtime:7}   {digest:19}   {size:>10}   {}", created(image)));
    }
}

fn created(image: &ImageRecord) -> &str {
    if image.created.is_empty() { "built in" } else { &image.created }
}

/// Percent-encodes a query's value.
fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
