//! Builds what the binary brings along: the images of the example's guest, made for wasm32-wasip2, and the descriptions
//! of Kubernetes' types.

#[path = "build/descriptions.rs"]
mod descriptions;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The image's name, and the guest's file under examples/guests.
const IMAGES: [(&str, &str); 2] =
    [("coracle.dev/examples/web:v1", "web-v1.wasm"), ("coracle.dev/examples/web:v2", "web-v2.wasm")];

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let guests = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
        .join("../../examples/guests");
    println!("cargo::rerun-if-changed={}", guests.display());
    descriptions::write(&out.join("descriptions.zlib"));
    let target = out.join("guests");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--target", "wasm32-wasip2", "--manifest-path"]);
    cargo.arg(guests.join("Cargo.toml")).arg("--target-dir").arg(&target);
    // The guests have a profile and flags of their own.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PROFILE")
            || name.ends_with("RUSTFLAGS")
            || name.starts_with("CARGO_TARGET")
            || name == "RUSTC_WRAPPER"
            || name == "RUSTC_WORKSPACE_WRAPPER"
        {
            cargo.env_remove(&*name);
        }
    }
    let status = cargo.status().expect("cargo can be run");
    assert!(
        status.success(),
        "the example's guest cannot be built; is the target there? `rustup target add wasm32-wasip2`"
    );
    let mut table = String::from("&[");
    for (name, file) in IMAGES {
        let path = target.join("wasm32-wasip2/release").join(file);
        assert!(fs::exists(&path).unwrap_or(false), "{} was not built", path.display());
        let _ = write!(table, "({name:?}, include_bytes!({:?}) as &[u8]), ", path.display().to_string());
    }
    table.push(']');
    fs::write(out.join("images.rs"), table).expect("OUT_DIR can be written");
}
