//! Images of a registry that breaks off, lies, or has something else.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use coracle_node::runtime::{ImageError, PullPolicy, RuntimeCommand, RuntimeEvent, RuntimeKind};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{World, spec};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// Answers by path: a type and its bytes.
type Contents = Arc<Mutex<BTreeMap<String, (String, Vec<u8>)>>>;

/// A registry in this process. It closes every connection after an answer.
struct Registry {
    host: String,
    contents: Contents,
    /// How many answers with a blob are to break off in the middle.
    breaks: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let registry = Self { host, contents: Arc::default(), breaks: Arc::default(), requests: Arc::default() };
        let (contents, breaks, requests) =
            (Arc::clone(&registry.contents), Arc::clone(&registry.breaks), Arc::clone(&registry.requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &contents, &breaks, &requests);
            }
        });
        registry
    }

    fn put(&self, path: String, kind: &str, bytes: Vec<u8>) {
        self.contents.lock().unwrap().insert(path, (kind.to_owned(), bytes));
    }

    /// Has an image with this config and this layer under a name.
    fn image(&self, name: &str, config: (&str, Vec<u8>), layer: (&str, &[u8])) -> String {
        let descriptor =
            |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config.0, &config.1), "layers": [descriptor(layer.0, layer.1)]});
        let manifest = manifest.to_string().into_bytes();
        let named = digest(&manifest);
        self.put(format!("/v2/{name}/blobs/{}", digest(&config.1)), config.0, config.1);
        self.put(format!("/v2/{name}/blobs/{}", digest(layer.1)), layer.0, layer.1.to_vec());
        self.put(format!("/v2/{name}/manifests/v1"), "application/vnd.oci.image.manifest.v1+json", manifest);
        named
    }

    fn blobs_asked(&self) -> usize {
        self.requests.lock().unwrap().iter().filter(|path| path.contains("/blobs/")).count()
    }
}

fn answer(mut stream: TcpStream, contents: &Contents, breaks: &AtomicUsize, requests: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or_default() == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    requests.lock().unwrap().push(path.clone());
    let from = head.lines().find_map(|line| {
        let range = line.to_ascii_lowercase();
        range.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
    });
    let found = contents.lock().unwrap().get(&path).cloned();
    let Some((kind, bytes)) = found else {
        let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        let status = if path == "/v2/" { "200 OK" } else { "404 Not Found" };
        let _ =
            write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        return;
    };
    let rest = &bytes[from.unwrap_or_default().min(bytes.len())..];
    let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
    let length = rest.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    let is_blob = path.contains("/blobs/") && length > 1000;
    let broken = is_blob && breaks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    let _ = stream.write_all(if broken { &rest[..length / 3] } else { rest });
}

/// A module that is large enough to break off in the middle of.
fn large() -> Vec<u8> {
    let filler = "a".repeat(600_000);
    wat::parse_str(format!("(module (memory 20) (data (i32.const 0) \"{filler}\") (func (export \"_start\")))"))
        .unwrap()
}

fn pulled(world: &World, image: &str) -> Result<coracle_node::runtime::ImageInfo, ImageError> {
    match world.pull(image, PullPolicy::Always) {
        RuntimeEvent::ImageReady { result, .. } => result,
        other => panic!("no answer to a pull: {other:?}"),
    }
}

#[test]
fn a_pull_goes_on_where_the_connection_broke_and_what_came_runs() {
    let (world, registry) = (World::new(), Registry::start());
    let manifest = registry.image("web", (WASM_CONFIG, b"{}".to_vec()), ("application/wasm", &large()));
    registry.breaks.store(3, Ordering::SeqCst);
    let image = format!("{}/web:v1", registry.host);
    let info = pulled(&world, &image).unwrap();
    assert_eq!(info.id, format!("{}/web@{manifest}", registry.host));
    assert_eq!(registry.breaks.load(Ordering::SeqCst), 0);
    let id = spec(&image).id;
    world.create(spec(&image)).unwrap();
    world.start(&id).unwrap();
    assert_eq!(world.exit(&id).code, 0);
}

#[test]
fn what_is_here_already_is_not_fetched_again_under_any_name() {
    let (world, registry) = (World::new(), Registry::start());
    for name in ["web", "other"] {
        registry.image(name, (WASM_CONFIG, b"{}".to_vec()), ("application/wasm", MODULE));
    }
    pulled(&world, &format!("{}/web:v1", registry.host)).unwrap();
    let asked = registry.blobs_asked();
    pulled(&world, &format!("{}/web:v1", registry.host)).unwrap();
    pulled(&world, &format!("{}/other:v1", registry.host)).unwrap();
    assert_eq!(registry.blobs_asked(), asked);
}

#[test]
fn contents_that_are_not_what_the_manifest_names_are_refused() {
    let (world, registry) = (World::new(), Registry::start());
    let module = large();
    registry.image("web", (WASM_CONFIG, b"{}".to_vec()), ("application/wasm", &module));
    let mut forged = module.clone();
    forged[1000] ^= 1;
    registry.put(format!("/v2/web/blobs/{}", digest(&module)), "application/wasm", forged);
    let Err(ImageError::Pull(why)) = pulled(&world, &format!("{}/web:v1", registry.host)) else {
        panic!("it must be refused")
    };
    assert!(why.contains("sha256:"), "{why}");
    assert!(world.runtime.list().is_empty());
}

#[test]
fn a_container_image_says_that_it_is_one() {
    let (world, registry) = (World::new(), Registry::start());
    let config = json!({"os": "linux", "architecture": "amd64", "config": {"Entrypoint": ["/app"]}});
    let kind = "application/vnd.oci.image.config.v1+json";
    let layer = ("application/vnd.oci.image.layer.v1.tar+gzip", &b"never fetched"[..]);
    registry.image("web", (kind, config.to_string().into_bytes()), layer);
    let refused = pulled(&world, &format!("{}/web:v1", registry.host)).unwrap_err();
    let ImageError::OtherKind(RuntimeKind::Container, why) = refused else { panic!("it is none: {refused:?}") };
    assert!(why.contains("it is a container image (linux/amd64), not WebAssembly"), "{why}");
}

#[test]
fn an_image_for_wasi_runs_the_file_that_it_names_with_its_arguments_and_environment() {
    let (world, registry) = (World::new(), Registry::start());
    let module = wat::parse_str(r#"(module (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
        (func (export "_start") (drop (call $sizes (i32.const 0) (i32.const 4))) (call $exit (i32.load (i32.const 0)))))"#)
    .unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(module.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "bin/app.wasm", module.as_slice()).unwrap();
    let layer = archive.into_inner().unwrap();
    let config = json!({"os": "wasi", "architecture": "wasm", "config":
        {"Entrypoint": ["/bin/app.wasm", "serve"], "Cmd": ["--port", "80"]}});
    let kind = "application/vnd.oci.image.config.v1+json";
    let layer = ("application/vnd.oci.image.layer.v1.tar", layer.as_slice());
    registry.image("web", (kind, config.to_string().into_bytes()), layer);
    let image = format!("{}/web:v1", registry.host);
    pulled(&world, &image).unwrap();
    let id = spec(&image).id;
    world.create(spec(&image)).unwrap();
    world.start(&id).unwrap();
    assert_eq!(world.exit(&id).code, 4, "its four arguments are the entry point's and the command's");
}

#[test]
fn images_that_were_fetched_can_be_removed_and_imported_ones_are_not_told_of() {
    let (world, registry) = (World::new(), Registry::start());
    registry.image("web", (WASM_CONFIG, b"{}".to_vec()), ("application/wasm", MODULE));
    world.runtime.import("own:1", MODULE).unwrap();
    let info = pulled(&world, &format!("{}/web:v1", registry.host)).unwrap();
    world.send(RuntimeCommand::ListImages);
    let (disk, images) = world.host.wait("Images", |event| match event {
        RuntimeEvent::Images { disk, images } => Some((*disk, images.clone())),
        _ => None,
    });
    assert_eq!(images.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), [info.id.as_str()]);
    assert!(disk.capacity > disk.available && disk.available > 0);
    world.send(RuntimeCommand::RemoveImage(info.id.clone()));
    let removed = world.host.wait("ImageRemoved", |event| match event {
        RuntimeEvent::ImageRemoved { id, result } if *id == info.id => Some(result.clone()),
        _ => None,
    });
    assert!(removed.is_ok(), "{removed:?}");
    assert_eq!(world.runtime.list().len(), 1);
}
