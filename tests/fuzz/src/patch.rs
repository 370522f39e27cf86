//! Patches of every kind on an object of a kind, or on anything.

use std::sync::OnceLock;

use coracle_api::Registry;
use coracle_api::patch::{json_patch, merge_patch, strategic_merge};
use serde_json::Value;

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::builtin)
}

/// The bytes are two JSON texts with a zero between them: what is patched, and the patch.
pub fn run(bytes: &[u8]) {
    let Some(middle) = bytes.iter().position(|byte| *byte == 0) else { return };
    let (value, patch) = (&bytes[..middle], &bytes[middle + 1..]);
    let (Ok(value), Ok(patch)) = (serde_json::from_slice::<Value>(value), serde_json::from_slice::<Value>(patch))
    else {
        return;
    };
    let _ = json_patch(&value, &patch);
    if let Ok(merged) = merge_patch(&value, &patch) {
        assert_eq!(merge_patch(&merged, &patch).as_ref().ok(), Some(&merged), "merging twice is merging once");
    }
    let deployment = registry().by_gvk("apps", "v1", "Deployment").expect("there are Deployments").type_id;
    let _ = strategic_merge(registry().schema(), deployment, &value, &patch);
}

/// A Deployment's template, with a patch of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let object = r#"{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}]}]}}}}"#;
    let patches = [
        r#"[{"op":"test","path":"/metadata/name","value":"a"},{"op":"add","path":"/spec/template/spec/containers/-","value":{}},{"op":"move","from":"/metadata/labels","path":"/x"},{"op":"remove","path":"/x"}]"#,
        r#"{"metadata":{"labels":{"x":null,"z":"1"}}}"#,
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","$patch":"delete"},{"name":"d","image":"j"}],"$setElementOrder/containers":[{"name":"d"}]}}}}"#,
        r#"{"$patch":"replace","spec":{"$retainKeys":["template"],"template":{"$deleteFromPrimitiveList/x":["a"]}}}"#,
    ];
    patches.map(|patch| [object.as_bytes(), b"\0", patch.as_bytes()].concat()).to_vec()
}
