//! `coracle join`: make this machine one more member of a cluster, and keep it running.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::up;
use crate::args::{Join, Up};

/// The longest token file that is read.
const TOKEN_BYTES_MAX: u64 = 4096;

pub(crate) async fn run(join: Join) -> Result<()> {
    let token = match (&join.token, &join.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => bail!("the token is missing"),
    };
    let how = up::Joining { address: join.address, token, worker: join.worker };
    let up = Up {
        manifests: Vec::new(),
        listen: Some(join.listen),
        name: join.name,
        lan: join.lan,
        feature_level: coracle::FEATURE_LEVEL,
        memory: false,
        nodes: join.nodes,
        members: 1,
        fake_nodes: 0,
        node_grace: None,
        pod_toleration: None,
        docker: join.docker,
        registries: join.registries,
        network: join.network,
        audit: join.audit,
        which: join.which,
    };
    up::run_as(up, Some(how)).await
}

fn read(file: &Path) -> Result<String> {
    let what = || format!("cannot read {}", file.display());
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text).with_context(what)?;
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
            .with_context(what)?;
    }
    Ok(text.trim().to_owned())
}
