//! `coracle members`: who belongs to the cluster, how they stand, and who is to lead.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::Value;

use crate::args::{Members, MembersCommand, Which};
use crate::connection::{self, Connection};
use crate::terminal::say;

const PATH: &str = "/coracle/v1/members";
/// How often, and how far apart, it is looked whether the other member leads.
const LOOKS: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn run(members: Members) -> Result<()> {
    match members.command {
        None => list(&members.which).await,
        Some(MembersCommand::TransferLeader { id, which }) => transfer(id, &which).await,
    }
}

async fn list(which: &Which) -> Result<()> {
    let members = read(&Connection::to(&connection::entry(which)?)?).await?;
    if members.is_empty() {
        say("The cluster has one member, and keeps no list.");
        return Ok(());
    }
    let commit = members.iter().filter_map(|member| member["status"]["commit"].as_u64()).max().unwrap_or(0);
    let titles = ["ID", "NAME", "ROLE", "TERM", "COMMIT", "LAG", "ADDRESS"].map(str::to_owned);
    let rows: Vec<[String; 7]> =
        std::iter::once(titles).chain(members.iter().map(|member| row(member, commit))).collect();
    let widths: [usize; 7] = std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say(cells.join("   ").trim_end());
    }
    Ok(())
}

async fn read(connection: &Connection) -> Result<Vec<Value>> {
    Ok(connection.get(PATH).await?["members"].as_array().cloned().unwrap_or_default())
}

fn row(member: &Value, commit: u64) -> [String; 7] {
    let status = &member["status"];
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".into(), |number| number.to_string());
    let applied = status["applied"].as_u64();
    [
        number(&member["id"]),
        text(&member["name"]),
        if status.is_null() { "down".into() } else { text(&status["role"]).to_lowercase() },
        number(&status["term"]),
        number(&status["commit"]),
        applied.map_or_else(|| "-".into(), |applied| commit.saturating_sub(applied).to_string()),
        text(&member["addresses"][0]),
    ]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

async fn transfer(id: u64, which: &Which) -> Result<()> {
    let connection = Connection::to(&connection::entry(which)?)?;
    let path = format!("{PATH}/transfer-leader?id={id}");
    connection.json(Method::POST, &path, "application/json", &Value::Null).await?;
    for _ in 0..LOOKS {
        let members = read(&connection).await?;
        if members.iter().any(|member| member["id"] == id && member["status"]["role"] == "Leader") {
            say(&format!("Member {id} leads."));
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    bail!("member {id} did not come to lead; `coracle members` shows whether it runs and how far it is behind")
}
