//! `coracle user add`: a kubeconfig for a teammate, with a certificate that says who he is.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::{Value, json};

use crate::args::{UserAdd, UserCommand};
use crate::connection::{self, Connection};
use crate::kubeconfig;
use crate::terminal::say;

pub(crate) async fn run(command: UserCommand) -> Result<()> {
    match command {
        UserCommand::Add(add) => self::add(add).await,
    }
}

async fn add(add: UserAdd) -> Result<()> {
    let file = add.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.kubeconfig", add.name)));
    if file.exists() {
        bail!("{} is there already; name another file with --output", file.display());
    }
    let entry = connection::entry(&add.which)?;
    let connection = Connection::to(&entry)?;
    let request = coracle::CertificateRequest::generate()?;
    let body = json!({ "user": add.name, "group": add.group, "days": add.days, "request": request.text });
    let (_, answer) = connection.json(Method::POST, "/coracle/v1/users", "application/json", &body).await?;
    let certificate = answer["certificate"].as_str().context("the answer has no certificate")?;
    let user = json!({
        "client-certificate-data": kubeconfig::base64(certificate.as_bytes()),
        "client-key-data": kubeconfig::base64(request.key.as_bytes()),
    });
    kubeconfig::write_new(&file, &entry, &add.name, &user)?;
    say(&format!("{} lets {} use the cluster until {}.", file.display(), add.name, text(&answer["expires"])));
    if add.group.as_deref() != Some("system:masters") {
        say("What that user may do is said by roles: kubectl create clusterrolebinding, kubectl create rolebinding.");
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
