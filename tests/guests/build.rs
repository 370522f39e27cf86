//! Says where the descriptions of the interfaces are that the guests use: those of WASI come with the crates of wasmtime that the
//! repository's own workspace has, and the others from its folder `wit`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate and where its descriptions lie; what others need comes first.
const SHIPPED: [(&str, &str); 3] = [
    ("wasmtime-wasi", "src/p2/wit/deps/io.wit"),
    ("wasmtime-wasi-config", "wit/deps/config"),
    ("wasmtime-wasi-keyvalue", "wit/deps/keyvalue"),
];
const OWN: [&str; 2] = ["lifecycle.wit", "logging.wit"];

const WORLD: &str = "
    package coracle:tests;
    world programs {
        import coracle:pod/lifecycle@0.1.0;
        import wasi:config/store@0.2.0-rc.1;
        import wasi:keyvalue/store@0.2.0-draft;
        import wasi:keyvalue/atomics@0.2.0-draft;
        import wasi:keyvalue/batch@0.2.0-draft;
        import wasi:logging/logging@0.1.0-draft;
    }
";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let repository =
        Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")).join("../..");
    let metadata = metadata(&repository);
    let mut paths: Vec<PathBuf> = SHIPPED.iter().map(|(name, path)| source(&metadata, name).join(path)).collect();
    for name in OWN {
        let path = repository.join("wit").join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        paths.push(path);
    }
    let paths: Vec<String> = paths.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let bindings =
        format!("wit_bindgen::generate!({{ inline: {WORLD:?}, path: [{}], generate_all }});", paths.join(", "));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("bindings.rs"), bindings).expect("OUT_DIR can be written");
}

/// What cargo knows of the repository's packages: only it knows whether a crate is in the registry's cache or vendored.
fn metadata(repository: &Path) -> String {
    let manifest = repository.join("Cargo.toml");
    println!("cargo::rerun-if-changed={}", repository.join("Cargo.lock").display());
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version", "1", "--filter-platform"]);
    cargo.arg(env::var_os("HOST").expect("cargo sets HOST")).arg("--manifest-path").arg(manifest);
    let output = cargo.output().expect("cargo can be run");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// The folder of a crate's source.
fn source(metadata: &str, name: &str) -> PathBuf {
    let package = metadata.find(&format!(r#"{{"name":"{name}","version":"#)).expect("the workspace depends on it");
    let path = metadata[package..].split_once(r#""manifest_path":""#).expect("a package has a manifest").1;
    let path = path.split_once('"').expect("a text ends").0;
    Path::new(path).parent().expect("a manifest is in a folder").to_owned()
}
