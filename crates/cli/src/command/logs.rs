//! `coracle logs`: as `kubectl logs`, and the first failed and the last five ended instances beside.

use anyhow::Result;

use crate::args::Logs;
use crate::connection::{self, Connection};
use crate::terminal::write;

pub(crate) async fn run(logs: Logs) -> Result<()> {
    let connection = Connection::to(&connection::entry(&logs.which)?)?;
    let mut query = Vec::new();
    let mut add = |name: &str, value: Option<String>| query.extend(value.map(|value| format!("{name}={value}")));
    add("container", logs.container);
    add("instance", logs.instance);
    add("follow", logs.follow.then(|| "true".into()));
    add("timestamps", logs.timestamps.then(|| "true".into()));
    add("tailLines", logs.tail.map(|tail| tail.to_string()));
    let path = format!("/api/v1/namespaces/{}/pods/{}/log?{}", logs.namespace, logs.pod, query.join("&"));
    connection.stream(&path, write).await
}
