//! Bodies in protobuf, as clients send them.

use std::sync::OnceLock;

use coracle_api::protobuf::Envelope;
use coracle_api::schema::TypeId;
use coracle_api::{GroupVersion, Registry};

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::builtin)
}

fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    let GroupVersion { group, version } = GroupVersion::parse(api_version)?;
    Some(registry().by_gvk(&group, &version, kind)?.type_id)
}

/// The type is the one that the envelope names, or a Pod: the largest.
pub fn run(bytes: &[u8]) {
    let Ok(envelope) = Envelope::open(bytes) else { return };
    let named = type_of(&envelope.type_meta.api_version, &envelope.type_meta.kind);
    if let Some(id) = named.or_else(|| type_of("v1", "Pod")) {
        let _ = envelope.decode(registry().schema(), id);
    }
}

/// Envelopes of a few kinds, with fields of every wire type.
pub fn seeds() -> Vec<Vec<u8>> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let object = [field(1, &field(1, b"name")), field(2, &[field(1, b"key"), field(2, b"value")].concat())].concat();
    [("v1", "Pod"), ("v1", "ConfigMap"), ("apps/v1", "Deployment"), ("v1", "Service")]
        .map(|(version, kind)| {
            let meta = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
            [b"k8s\0".to_vec(), field(1, &meta), field(2, &object)].concat()
        })
        .to_vec()
}
