//! `coracle members`: who belongs to the cluster, how they stand, and who is to lead.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::Value;

use crate::args::{Members, MembersCommand, Which};
use crate::connection::{self, Connection};
use crate::terminal::{say, table};

const PATH: &str = "/coracle/v1/members";
/// How often, and how far apart, it is looked whether the other member leads.
const LOOKS: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn run(members: Members) -> Result<()> {
    match members.command {
        None => list(&members.which).await,
        Some(MembersCommand::TransferLeader { id, which }) => transfer(id, &which).await,
        Some(MembersCommand::Remove { id, which }) => remove(id, &which).await,
        Some(MembersCommand::Promote { id, which }) => promote(id, &which).await,
        Some(MembersCommand::Stop { id, which }) => {
            change("stop", id, &which, &format!("member {id} did not stop"), |member| member["status"].is_null())
                .await?;
            say(&format!("Member {id} is stopped."));
            Ok(())
        }
        Some(MembersCommand::Start { id, which }) => {
            change("start", id, &which, &format!("member {id} did not start"), |member| !member["status"].is_null())
                .await?;
            say(&format!("Member {id} runs."));
            Ok(())
        }
    }
}

async fn list(which: &Which) -> Result<()> {
    let list = Connection::to(&connection::entry(which)?)?.get(PATH).await?;
    let members = list["members"].as_array().cloned().unwrap_or_default();
    if members.is_empty() {
        say("The cluster has one member, and keeps no list.");
        return Ok(());
    }
    let commit = members.iter().filter_map(|member| member["status"]["commit"].as_u64()).max().unwrap_or(0);
    let titles = ["ID", "NAME", "ROLE", "TERM", "COMMIT", "LAG", "VERSION", "ADDRESS"].map(str::to_owned);
    let rows: Vec<[String; 8]> =
        std::iter::once(titles).chain(members.iter().map(|member| row(member, commit))).collect();
    table(&rows);
    if let Some(line) = upgrade(&members, list["featureLevel"].as_u64()) {
        say(&line);
    }
    Ok(())
}

/// What there is to say while members of two versions work together.
fn upgrade(members: &[Value], cluster: Option<u64>) -> Option<String> {
    let newest = members.iter().filter_map(|member| member["featureLevel"].as_u64()).max()?;
    let is_older = |member: &&Value| member["featureLevel"].as_u64().is_none_or(|level| level < newest);
    let older: Vec<String> = members.iter().filter(is_older).map(|member| text(&member["name"])).collect();
    (cluster < Some(newest)).then(|| {
        if older.is_empty() {
            return format!("All members understand feature level {newest}, which the cluster is about to use.");
        }
        let older = older.join(", ");
        format!("What is new in feature level {newest} is not used before these are upgraded: {older}.")
    })
}

/// The servers of all members.
pub(super) fn servers(members: &[Value]) -> Vec<String> {
    let first = members.iter().filter_map(|member| member["addresses"][0].as_str());
    first.map(|address| format!("https://{address}")).collect()
}

pub(super) async fn read(connection: &Connection) -> Result<Vec<Value>> {
    Ok(connection.get(PATH).await?["members"].as_array().cloned().unwrap_or_default())
}

fn row(member: &Value, commit: u64) -> [String; 8] {
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
        text(&member["version"]),
        text(&member["addresses"][0]),
    ]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

async fn transfer(id: u64, which: &Which) -> Result<()> {
    let why =
        format!("member {id} did not come to lead; `coracle members` shows whether it runs and how far it is behind");
    change("transfer-leader", id, which, &why, |member| member["status"]["role"] == "Leader").await?;
    say(&format!("Member {id} leads."));
    Ok(())
}

async fn remove(id: u64, which: &Which) -> Result<()> {
    let connection = Connection::to(&connection::entry(which)?)?;
    ask(&connection, "remove", id).await?;
    for _ in 0..LOOKS {
        let members = read(&connection).await?;
        let group = members.iter().map(|member| &member["status"]["membership"]).find(|group| group.is_object());
        let lists = ["voters", "learners", "outgoing"].map(|list| group.map(|group| group[list].clone()));
        let holds =
            |list: &Option<Value>| list.iter().filter_map(Value::as_array).flatten().any(|member| *member == id);
        if group.is_some() && !lists.iter().any(holds) {
            say(&format!("Member {id} is removed."));
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    say(&format!(
        "Member {id} will be removed as soon as the others can do without it: more than half of the voters must run."
    ));
    Ok(())
}

async fn promote(id: u64, which: &Which) -> Result<()> {
    let connection = Connection::to(&connection::entry(which)?)?;
    ask(&connection, "promote", id).await?;
    for _ in 0..LOOKS * 2 {
        let members = read(&connection).await?;
        let groups = members.iter().map(|member| &member["status"]["membership"]["voters"]);
        if let Some(voters) = groups.filter_map(Value::as_array).find(|voters| voters.iter().any(|voter| *voter == id))
        {
            say(&format!("Member {id} votes."));
            if voters.len().is_multiple_of(2) {
                let (have, survive) = (voters.len(), (voters.len() - 1) / 2);
                say(&format!("{have} voters survive the loss of {survive}, no more than {} would.", have - 1));
            }
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    say(&format!("Member {id} will vote as soon as it runs and has caught up."));
    Ok(())
}

/// Asks for a change, and waits until the member is as wanted.
async fn change(what: &str, id: u64, which: &Which, why: &str, is_done: impl Fn(&Value) -> bool) -> Result<()> {
    let connection = Connection::to(&connection::entry(which)?)?;
    ask(&connection, what, id).await?;
    for _ in 0..LOOKS {
        // Who is asked may be the one that stops.
        if let Ok(members) = read(&connection).await
            && members.iter().any(|member| member["id"] == id && is_done(member))
        {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
    bail!("{why}")
}

async fn ask(connection: &Connection, what: &str, id: u64) -> Result<()> {
    let path = format!("{PATH}/{what}?id={id}");
    connection.json(Method::POST, &path, "application/json", &Value::Null).await.map(drop)
}
