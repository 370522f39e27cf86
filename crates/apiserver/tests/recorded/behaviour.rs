//! What no recording shows.

use coracle_api::Method;
use serde_json::json;

use crate::harness::Server;

#[test]
fn a_generated_name_has_five_random_characters() {
    let mut server = Server::new();
    let path = "/api/v1/namespaces/default/configmaps";
    let created = server.ok(Method::Post, path, json!({"metadata": {"generateName": "gn-"}}));
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gn-") && name.len() == 8, "{name}");
}
