//! What a manifest describes: a WebAssembly artifact of the CNCF's format or an older one, an image with a `.wasm` file as its entry point, or
//! something that this runtime does not run. It reads values; it fetches nothing.

use std::collections::BTreeMap;

use coracle_node::runtime::RuntimeKind;
use oci_client::manifest::{OciDescriptor, OciImageIndex, OciImageManifest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The configs of WebAssembly artifacts: the CNCF's, and that of wasm-to-oci and krustlet.
const WASM_CONFIGS: [&str; 2] = ["application/vnd.wasm.config.v0+json", "application/vnd.wasm.config.v1+json"];
/// Layers that are a module or a component as it is.
const WASM_LAYERS: [&str; 4] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];
const SPIN_CONFIG: &str = "application/vnd.fermyon.spin.application.v1+config";
/// The operating systems of WebAssembly images.
const WASI: [&str; 4] = ["wasi", "wasip1", "wasip2", "wasip3"];
/// What `crun` and `buildah` mark images with that hold a module for some other platform.
const COMPAT_ANNOTATION: &str = "module.wasm.image/variant";
/// The most layers of an image that are looked through.
const LAYERS_MAX: usize = 32;

/// What an image says of how its program is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ImageConfig {
    /// The program and its first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) entrypoint: Vec<String>,
    /// Its further arguments, where a container has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<String>,
    /// Where it is run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) working_dir: String,
}

/// Why an image is not run: it is of another kind, or of none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What runs it, if anything here does.
    pub(super) kind: Option<RuntimeKind>,
    /// What it is, in a sentence that begins with "it".
    pub(super) why: String,
}

/// What to fetch of an image.
#[derive(Debug)]
pub(super) enum Plan {
    /// This layer is the module.
    Layer(OciDescriptor),
    /// The config says which file of these layers is the module, if it is one.
    Config { config: OciDescriptor, layers: Vec<OciDescriptor>, marked: bool },
}

fn refuse(why: impl Into<String>) -> Refusal {
    Refusal { kind: None, why: why.into() }
}

fn container(platforms: &str) -> Refusal {
    let why = format!("it is a container image ({platforms}), not WebAssembly");
    Refusal { kind: Some(RuntimeKind::Container), why }
}

/// Which of several images is the WebAssembly one.
pub(super) fn choose(index: &OciImageIndex) -> Result<String, Refusal> {
    let platform = |entry: &oci_client::manifest::ImageIndexEntry| {
        let platform = entry.platform.as_ref()?;
        Some((platform.os.to_string(), platform.architecture.to_string()))
    };
    let wasi = |os: &str, architecture: &str| WASI.contains(&os) && architecture == "wasm";
    let found = index.manifests.iter().find(|entry| platform(entry).is_some_and(|(os, arch)| wasi(&os, &arch)));
    if let Some(entry) = found {
        return Ok(entry.digest.clone());
    }
    if let [only] = index.manifests.as_slice()
        && only.platform.is_none()
    {
        return Ok(only.digest.clone());
    }
    // What builders add about an image says that it is of no platform.
    let named = index.manifests.iter().filter_map(platform).filter(|(os, _)| os != "unknown");
    let platforms: Vec<String> = named.map(|(os, architecture)| format!("{os}/{architecture}")).collect();
    if platforms.is_empty() {
        return Err(refuse("it is an index without an image for wasi/wasm"));
    }
    Err(container(&platforms.join(", ")))
}

/// What to fetch of an image.
pub(super) fn plan(manifest: &OciImageManifest) -> Result<Plan, Refusal> {
    let (config, layers) = (manifest.config.media_type.as_str(), manifest.layers.as_slice());
    if config == SPIN_CONFIG {
        return Err(refuse(
            "it is a Spin application: its triggers need Spin; push its component as a WebAssembly artifact",
        ));
    }
    let is_wasm = |layer: &OciDescriptor| WASM_LAYERS.contains(&layer.media_type.as_str());
    if WASM_CONFIGS.contains(&config) || layers.iter().any(is_wasm) {
        return match layers {
            [layer] if is_wasm(layer) => Ok(Plan::Layer(layer.clone())),
            [layer] => Err(refuse(format!("it is a WebAssembly artifact with a layer of type {:?}", layer.media_type))),
            [] => Err(refuse("it is a WebAssembly artifact without a layer")),
            layers => {
                Err(refuse(format!("it is a WebAssembly artifact with {} layers, and may have one", layers.len())))
            }
        };
    }
    if !config.ends_with("image.config.v1+json") && !config.ends_with("container.image.v1+json") {
        let kind = manifest.artifact_type.as_deref().unwrap_or(config);
        return Err(refuse(format!("it is an artifact of type {kind:?}, not WebAssembly")));
    }
    if layers.len() > LAYERS_MAX {
        return Err(container(&format!("{} layers", layers.len())));
    }
    let annotated = |annotations: &BTreeMap<String, String>| annotations.contains_key(COMPAT_ANNOTATION);
    let marked = manifest.annotations.as_ref().is_some_and(annotated);
    Ok(Plan::Config { config: manifest.config.clone(), layers: layers.to_vec(), marked })
}

/// Whether the config of a WebAssembly artifact is for this machine.
pub(super) fn check_artifact(config: &[u8]) -> Result<(), Refusal> {
    // An older format has an empty one.
    let Ok(config) = serde_json::from_slice::<Value>(config) else { return Ok(()) };
    let text = |field: &str| config[field].as_str().unwrap_or_default();
    let (os, architecture) = (text("os"), text("architecture"));
    if !architecture.is_empty() && architecture != "wasm" {
        return Err(refuse(format!("it is an artifact for the architecture {architecture:?}, not \"wasm\"")));
    }
    if !os.is_empty() && !WASI.contains(&os) {
        return Err(refuse(format!("it is an artifact for the system {os:?}, none of {}", WASI.join(", "))));
    }
    Ok(())
}

/// How an image with a file system is run, and which file of it is the module.
pub(super) fn entry(config: &[u8], marked: bool) -> Result<(ImageConfig, String), Refusal> {
    let value: Value =
        serde_json::from_slice(config).map_err(|error| refuse(format!("its config cannot be read: {error}")))?;
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let (os, architecture) = (text("os"), text("architecture"));
    let own = &value["config"];
    let list = |field: &str| -> Vec<String> {
        own[field].as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let image = ImageConfig {
        entrypoint: list("Entrypoint"),
        cmd: list("Cmd"),
        env: list("Env"),
        working_dir: own["WorkingDir"].as_str().unwrap_or_default().to_owned(),
    };
    let is_wasi = WASI.contains(&os) && architecture == "wasm";
    if !marked && !is_wasi {
        return Err(container(&format!("{os}/{architecture}")));
    }
    let program = image.entrypoint.first().or(image.cmd.first()).cloned().unwrap_or_default();
    let has_extension = std::path::Path::new(&program).extension().is_some_and(|e| e.eq_ignore_ascii_case("wasm"));
    if !has_extension {
        return Err(refuse(format!(
            "it is an image for {os}/{architecture} whose entry point {program:?} is no .wasm file"
        )));
    }
    Ok((image, program))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(config: &str, layers: &[&str]) -> OciImageManifest {
        let descriptor = |kind: &&str| json!({"mediaType": kind, "digest": "sha256:00", "size": 1});
        let layers: Vec<Value> = layers.iter().map(descriptor).collect();
        let value = json!({"schemaVersion": 2, "config": descriptor(&config), "layers": layers});
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn refusal(config: &str, layers: &[&str]) -> String {
        plan(&manifest(config, layers)).unwrap_err().why
    }

    #[test]
    fn artifacts_of_all_known_formats_are_one_layer() {
        for config in WASM_CONFIGS.into_iter().chain(["application/vnd.oci.image.config.v1+json"]) {
            for layer in WASM_LAYERS {
                assert!(matches!(plan(&manifest(config, &[layer])), Ok(Plan::Layer(_))), "{config} {layer}");
            }
        }
    }

    #[test]
    fn what_is_not_run_is_told_by_what_it_is() {
        let wasm = WASM_CONFIGS[0];
        assert!(refusal(wasm, &["application/wasm", "application/wasm"]).contains("with 2 layers, and may have one"));
        assert!(refusal(wasm, &[]).contains("without a layer"));
        assert!(refusal(wasm, &["application/x-tar"]).contains("\"application/x-tar\""));
        assert!(
            refusal(SPIN_CONFIG, &["application/vnd.wasm.content.layer.v1+wasm"]).contains("is a Spin application")
        );
        assert!(refusal("application/vnd.cncf.helm.config.v1+json", &["x"]).contains("helm"));
        let foreign = check_artifact(br#"{"architecture": "arm64", "os": "wasip2"}"#).unwrap_err();
        assert!(foreign.why.contains("architecture \"arm64\""));
        assert_eq!(check_artifact(br#"{"architecture": "wasm", "os": "wasip2"}"#), Ok(()));
        assert_eq!(check_artifact(b"{}"), Ok(()));
    }

    #[test]
    fn an_image_for_linux_is_a_container_image() {
        let config = json!({"os": "linux", "architecture": "amd64", "config": {"Entrypoint": ["/app"]}}).to_string();
        let refused = entry(config.as_bytes(), false).unwrap_err();
        assert_eq!(refused.kind, Some(RuntimeKind::Container));
        assert_eq!(refused.why, "it is a container image (linux/amd64), not WebAssembly");
    }

    #[test]
    fn an_image_for_wasi_is_the_file_that_its_entry_point_names() {
        let config = json!({"os": "wasi", "architecture": "wasm", "config":
            {"Entrypoint": ["/app.wasm", "serve"], "Cmd": ["--port=1"], "Env": ["A=1"], "WorkingDir": "/data"}});
        let (image, file) = entry(config.to_string().as_bytes(), false).unwrap();
        assert_eq!((file.as_str(), image.cmd.as_slice()), ("/app.wasm", ["--port=1".to_owned()].as_slice()));
        let shell = json!({"os": "wasip1", "architecture": "wasm", "config": {"Cmd": ["/bin/sh"]}}).to_string();
        assert!(entry(shell.as_bytes(), false).unwrap_err().why.contains("is no .wasm file"));
    }

    #[test]
    fn of_several_images_the_one_for_wasi_is_taken() {
        let entry = |os: &str, architecture: &str, digest: &str| {
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
                "platform": {"os": os, "architecture": architecture}})
        };
        let index = |entries: Vec<Value>| -> OciImageIndex {
            serde_json::from_value(json!({"schemaVersion": 2, "manifests": entries})).unwrap()
        };
        let linux = entry("linux", "amd64", "sha256:01");
        assert_eq!(choose(&index(vec![linux.clone(), entry("wasi", "wasm", "sha256:02")])), Ok("sha256:02".into()));
        let refused = choose(&index(vec![linux, entry("unknown", "unknown", "sha256:03")])).unwrap_err();
        assert_eq!(refused, container("linux/amd64"));
    }
}
