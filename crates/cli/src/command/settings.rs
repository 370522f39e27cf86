//! `coracle settings`: what holds for the whole cluster, shown and changed.

use anyhow::Result;
use http::Method;
use serde_json::{Map, Value};

use crate::args::Settings;
use crate::connection::{self, Connection};
use crate::terminal::say;

/// The settings as the command line calls them, and as the cluster does.
const NAMES: [(&str, &str); 3] = [
    ("node-grace", "nodeGraceSeconds"),
    ("pod-toleration", "podTolerationSeconds"),
    ("voter-silence", "voterSilenceSeconds"),
];
const PATH: &str = "/coracle/v1/settings";

pub(crate) async fn run(asked: Settings) -> Result<()> {
    let connection = Connection::to(&connection::entry(&asked.which)?)?;
    let mut changes = Map::new();
    let values = [asked.node_grace, asked.pod_toleration, asked.voter_silence];
    for ((_, field), value) in NAMES.iter().zip(values) {
        changes.extend(value.map(|value| ((*field).to_owned(), value.into())));
    }
    let settings = if changes.is_empty() {
        connection.get(PATH).await?
    } else {
        connection.json(Method::PUT, PATH, "application/json", &Value::Object(changes)).await?.1
    };
    for (name, field) in NAMES {
        say(&format!("{name:<16}{}s", settings[field]));
    }
    Ok(())
}
