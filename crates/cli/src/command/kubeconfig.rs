//! `coracle kubeconfig`: which member kubectl talks to. A kubeconfig names one server; all of them are kept beside it.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::args::Kubeconfig;
use crate::connection::{self, Connection};
use crate::kubeconfig;
use crate::terminal::say;

pub(crate) async fn run(asked: Kubeconfig) -> Result<()> {
    let mut entry = connection::entry(&asked.which)?;
    let connection = Connection::to(&entry)?;
    let members = super::members::read(&connection).await?;
    entry.servers = super::members::servers(&members);
    if let Some(server) = &asked.server {
        entry.server = find(&members, server)?;
        if !Connection::to_one(&entry)?.is_ready().await {
            say(&format!("{} does not answer now.", entry.server));
        }
    }
    if asked.print {
        say(kubeconfig::text(&entry).trim_end());
        return Ok(());
    }
    let path = kubeconfig::path(asked.which.kubeconfig.as_deref())?;
    kubeconfig::write(&path, &entry)?;
    say(&format!("The context {:?} in {} uses {}.", kubeconfig::CONTEXT, path.display(), entry.server));
    Ok(())
}

/// The server of a member, by its id, its name or an address that it has.
fn find(members: &[Value], asked: &str) -> Result<String> {
    let address = asked.trim_start_matches("https://").trim_end_matches('/');
    let named = |member: &&Value| {
        asked.parse::<u64>().is_ok_and(|id| member["id"] == id)
            || member["name"] == asked
            || addresses(member).any(|other| other == address || host(other) == Some(address))
    };
    let Some(member) = members.iter().find(named) else {
        bail!("no member is called {asked:?}; `coracle members` shows them")
    };
    let chosen = addresses(member).find(|other| *other == address || host(other) == Some(address));
    match chosen.or_else(|| addresses(member).next()) {
        Some(address) => Ok(format!("https://{address}")),
        None => bail!("member {} has no address", member["id"]),
    }
}

fn addresses(member: &Value) -> impl Iterator<Item = &str> {
    member["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn host(address: &str) -> Option<&str> {
    address.rsplit_once(':').map(|(host, _)| host)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_is_found_by_id_name_or_address() {
        let members = [
            json!({"id": 1, "name": "desk", "addresses": ["192.0.2.1:6443"]}),
            json!({"id": 2, "name": "laptop", "addresses": ["192.0.2.2:6443", "198.51.100.2:6443"]}),
        ];
        for (asked, server) in [
            ("1", "https://192.0.2.1:6443"),
            ("laptop", "https://192.0.2.2:6443"),
            ("198.51.100.2", "https://198.51.100.2:6443"),
            ("https://192.0.2.2:6443/", "https://192.0.2.2:6443"),
        ] {
            assert_eq!(find(&members, asked).unwrap(), server);
        }
        assert!(find(&members, "phone").unwrap_err().to_string().contains("no member is called"));
    }
}
