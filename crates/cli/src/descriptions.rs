//! Kubernetes' descriptions of its types: the binary has them compressed, a fifth of a megabyte, until they are asked for.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

/// A line a description, as the build script wrote them.
const COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.zlib"));

/// The descriptions, a megabyte of text.
pub(crate) fn text() -> String {
    let mut text = String::new();
    ZlibDecoder::new(COMPRESSED).read_to_string(&mut text).expect("the build script compressed a text");
    text
}

#[cfg(test)]
mod tests {
    use coracle::api::openapi::DescriptionTable;

    use super::*;

    #[test]
    fn types_and_fields_have_kubernetes_descriptions() {
        let text = text();
        let table = DescriptionTable::of(&text);
        let pod = table.find("io.k8s.api.core.v1.Pod", None).unwrap();
        assert!(pod.starts_with("Pod is a collection of containers"), "{pod}");
        let selector = table.find("io.k8s.api.core.v1.PodSpec", Some("nodeSelector")).unwrap();
        assert!(selector.starts_with("NodeSelector is a selector which must be true"), "{selector}");
        // A description of several lines, one with quotes, and a property that is called like what is looked for.
        assert!(table.find("io.k8s.apimachinery.pkg.api.resource.Quantity", None).unwrap().contains("\n\n"));
        let ports = table.find("io.k8s.api.core.v1.Container", Some("ports")).unwrap();
        assert!(ports.contains(r#"the default "0.0.0.0" address"#), "{ports}");
        let schema = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceColumnDefinition";
        assert!(table.find(schema, Some("description")).unwrap().contains("human readable"));
    }
}
