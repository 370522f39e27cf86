//! `coracle settings`: what holds for the whole cluster, shown and changed.

use anyhow::Result;
use http::Method;
use serde_json::{Map, Value};

use crate::args::Settings;
use crate::connection::{self, Connection};
use crate::terminal::say;

const PATH: &str = "/coracle/v1/settings";

pub(crate) async fn run(asked: Settings) -> Result<()> {
    let connection = Connection::to(&connection::entry(&asked.which)?)?;
    let mut changes = Map::new();
    for (name, value) in [("nodeGraceSeconds", asked.node_grace), ("podTolerationSeconds", asked.pod_toleration)] {
        changes.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    let settings = if changes.is_empty() {
        connection.get(PATH).await?
    } else {
        connection.json(Method::PUT, PATH, "application/json", &Value::Object(changes)).await?.1
    };
    for (name, field) in [("node-grace", "nodeGraceSeconds"), ("pod-toleration", "podTolerationSeconds")] {
        say(&format!("{name:<16}{}s", settings[field]));
    }
    Ok(())
}
