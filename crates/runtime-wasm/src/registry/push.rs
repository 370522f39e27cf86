//! Pushes a WebAssembly file as the CNCF's artifact: its config, and the file as its one layer.

use bytes::Bytes;
use coracle_base::Timestamp;
use coracle_node::canonical_image_name;
use coracle_node::runtime::Login;
use oci_client::client::{Config, ImageLayer};
use oci_client::manifest::OciImageManifest;
use oci_client::{Reference, RegistryOperation};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::error::Failure;
use super::{Endpoint, Registries, is_loopback};
use crate::image_store::to_binary;
use crate::inspect;

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Why an image was not pushed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot push image {name:?}: {why}")]
pub struct PushError {
    name: String,
    why: String,
}

/// Pushes a module or a component, binary or text, under a name; the digest of its manifest.
///
/// It is pushed to the registry that the name names, never to a mirror.
///
/// # Errors
///
/// When the name is none, the bytes are no WebAssembly, or the registry does not take them.
pub async fn push(
    registries: &Registries,
    logins: &[Login],
    name: &str,
    bytes: &[u8],
    created: Timestamp,
) -> Result<String, PushError> {
    let failed = |why: String| PushError { name: name.to_owned(), why };
    let canonical = canonical_image_name(name).map_err(|why| failed(why.to_owned()))?;
    let reference: Reference = canonical.parse().map_err(|error: oci_client::ParseError| failed(error.to_string()))?;
    if reference.digest().is_some() {
        return Err(failed("a name with a digest cannot be pushed to".into()));
    }
    let binary = to_binary(bytes).map_err(|why| failed(format!("it is not WebAssembly: {why}")))?;
    let config = config(&binary, created).map_err(&failed)?;
    let http = registries.mirrors.get(reference.registry()).and_then(|mirror| {
        let own = mirror.endpoints.iter().find(|endpoint| endpoint.host == reference.registry());
        own.map(|endpoint| endpoint.http)
    });
    let host = reference.registry().to_owned();
    let endpoint = Endpoint { http: http.unwrap_or_else(|| is_loopback(&host)), host };
    let layer = ImageLayer::new(Bytes::from(binary), LAYER.to_owned(), None);
    let config = Config::new(Bytes::from(config), CONFIG.to_owned(), None);
    let mut manifest = OciImageManifest::build(std::slice::from_ref(&layer), &config, None);
    manifest.media_type = Some(MANIFEST.to_owned());
    let digest = sha256(&serde_json::to_vec(&manifest).map_err(|error| failed(error.to_string()))?);
    let mut refused = None;
    for user in registries.users(&endpoint, logins) {
        let client = registries.client(&endpoint).map_err(&failed)?;
        let pushed = async {
            client.auth(&reference, &user, RegistryOperation::Push).await?;
            client.push(&reference, std::slice::from_ref(&layer), config.clone(), &user, Some(manifest.clone())).await
        };
        match pushed.await.map_err(|error| Failure::of(&error)) {
            Ok(_) => {
                let found = client.fetch_manifest_digest(&reference, &user).await;
                return Ok(found.unwrap_or(digest));
            }
            Err(Failure::Denied(why)) => _ = refused.get_or_insert(why),
            Err(Failure::Missing(why) | Failure::Broken(why)) => return Err(failed(why)),
        }
    }
    Err(failed(format!("access denied: {}", refused.unwrap_or_default())))
}

/// The artifact's config: what the program is, and what it needs.
fn config(binary: &[u8], created: Timestamp) -> Result<Vec<u8>, String> {
    let found = inspect::inspect(binary)?;
    let mut config = json!({
        "created": created.rfc3339(),
        "architecture": "wasm",
        "os": if found.component { "wasip2" } else { "wasip1" },
        "layerDigests": [sha256(binary)],
    });
    if found.component {
        config["component"] = json!({ "exports": found.exports, "imports": found.imports });
    }
    serde_json::to_vec(&config).map_err(|error| error.to_string())
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
