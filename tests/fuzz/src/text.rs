//! Texts of users: YAML, selectors, quantities, JSON of a kind.

use std::sync::OnceLock;

use coracle_api::decode::{Strictness, decode_json, decode_value};
use coracle_api::{FieldSelector, LabelSelector, Quantity, Registry, yaml};

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::builtin)
}

/// YAML that is read can be written and is the same again; everything else only must not panic.
pub fn run(bytes: &[u8]) {
    let pod = registry().by_gvk("", "v1", "Pod").expect("there are pods").type_id;
    let schema = registry().schema();
    let _ = decode_json(schema, pod, bytes, Strictness::Strict);
    let _ = yaml::parse_documents(bytes);
    if let Ok(value) = yaml::parse(bytes) {
        let _ = decode_value(schema, pod, &value, Strictness::Warn);
        let _ = yaml::to_string(&value);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = FieldSelector::parse(text);
    let _ = LabelSelector::parse(text);
    let _ = coracle_api::GroupVersion::parse(text);
    if let Ok(canonical) = Quantity::canonical(text) {
        assert_eq!(Quantity::canonical(&canonical).as_ref(), Ok(&canonical));
    }
}

/// A few of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "kind: Pod\nmetadata: {name: a, labels: {x: \"1\"}}\nspec:\n  containers:\n  - {name: c, image: i, ports: [{containerPort: 80}]}\n",
        "{\"kind\": \"Pod\", \"spec\": {\"containers\": [{\"name\": \"c\", \"resources\": {\"limits\": {\"cpu\": \"100m\"}}}]}}",
        "a: &x [1, 2.5, ~, yes, 0x1f, 0o17]\nb: *x\n---\n- |\n  text\n- >-\n  folded\n",
        "app in (web, api),tier!=db,!canary,x=y",
        "metadata.name=a,spec.nodeName!=b",
        "1.5Gi",
        "-100e3",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
