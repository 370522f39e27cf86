//! `coracle token`: what lets other machines join.

use anyhow::{Context as _, Result};
use http::Method;
use serde_json::{Value, json};

use crate::args::{TokenCommand, Which};
use crate::connection::{self, Connection};
use crate::terminal::{say, table};

const PATH: &str = "/coracle/v1/tokens";

pub(crate) async fn run(command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create { ttl, uses, description, which } => {
            let asked = json!({ "ttlSeconds": ttl, "uses": uses, "description": description });
            // Alone on the standard output, for scripts.
            say(&create(&connect(&which)?, &asked).await?);
            Ok(())
        }
        TokenCommand::List { which } => list(&which).await,
        TokenCommand::Revoke { token, which } => {
            // Of a whole token the id is enough, and no secret is put into an address.
            let id = token.rsplit("::").next().and_then(|credential| credential.split('.').next()).unwrap_or_default();
            let path = format!("{PATH}?id={id}");
            connect(&which)?.json(Method::DELETE, &path, "application/json", &Value::Null).await?;
            say(&format!("Token {id} lets nobody in any more."));
            Ok(())
        }
    }
}

/// A new token.
pub(super) async fn create(connection: &Connection, asked: &Value) -> Result<String> {
    let (_, made) = connection.json(Method::POST, PATH, "application/json", asked).await?;
    made["token"].as_str().map(str::to_owned).context("the answer has no token")
}

async fn list(which: &Which) -> Result<()> {
    let answer = connect(which)?.get(PATH).await?;
    let mut rows = vec![["ID", "EXPIRES", "USES LEFT", "DESCRIPTION"].map(str::to_owned)];
    for token in answer["tokens"].as_array().into_iter().flatten() {
        let expired = if token["expired"] == true { " (expired)" } else { "" };
        let uses = token["usesLeft"].as_u64().map_or_else(|| "unlimited".into(), |uses| uses.to_string());
        rows.push([
            text(&token["id"]),
            format!("{}{expired}", text(&token["expires"])),
            uses,
            text(&token["description"]),
        ]);
    }
    table(&rows);
    Ok(())
}

fn connect(which: &Which) -> Result<Connection> {
    Connection::to(&connection::entry(which)?)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}
