//! What WebAssembly pods cost: starts and short containers at the `Runtime` port, pods that run to their end, requests beside a native
//! server, ten thousand pods on one node, and how limits of processor time hold.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::{Report, cpu};

mod density;
mod port;
mod serving;
mod short;

pub use serving::{ARGUMENT, main};

/// What can be measured of WebAssembly, each by its own name; `wasm` is all of them.
pub const PARTS: [&str; 5] = ["wasm-start", "wasm-short", "wasm-http", "wasm-density", "wasm-cpu"];

/// How long a part may take.
const PART_MAX: Duration = Duration::from_mins(5);

/// What is wanted about WebAssembly. The guests that serve are built below `target`.
pub async fn measure(report: &mut Report, wanted: impl Fn(&str) -> bool, target: &Path) -> anyhow::Result<()> {
    if wanted("wasm-start") {
        in_time("wasm-start", port::starts(report)).await?;
    }
    if wanted("wasm-short") {
        in_time("wasm-short", async {
            port::short(report).await?;
            short::measure(report).await
        })
        .await?;
    }
    if wanted("wasm-http") || wanted("wasm-density") {
        let guests = tokio::task::block_in_place(|| build(target))?;
        if wanted("wasm-http") {
            in_time("wasm-http", serving::measure(report, &guests)).await?;
        }
        if wanted("wasm-density") {
            in_time("wasm-density", density::measure(report, &guests)).await?;
        }
    }
    if wanted("wasm-cpu") {
        in_time("wasm-cpu", cpu::limits(report)).await?;
    }
    Ok(())
}

async fn in_time(part: &str, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let done = tokio::time::timeout(PART_MAX, work).await;
    done.with_context(|| format!("{part} takes longer than {PART_MAX:?}"))?.with_context(|| part.to_owned())
}

/// The guests that serve.
struct Guests {
    /// Of WASI 0.2: an instance for each request.
    hello2: PathBuf,
    /// Of WASI 0.3: instances that answer many requests.
    hello3: PathBuf,
}

/// Builds them, which takes a while the first time. It needs Rust's target wasm32-wasip2.
fn build(target: &Path) -> anyhow::Result<Guests> {
    let target = target.join("bench-guests");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/Cargo.toml");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--release", "--examples", "--target", "wasm32-wasip2"])
        .args(["--manifest-path", manifest])
        .arg("--target-dir")
        .arg(&target)
        // They are of the host's compilation.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .context("cargo cannot be started")?;
    ensure!(built.success(), "the guests do not build");
    let folder = target.join("wasm32-wasip2/release/examples");
    Ok(Guests { hello2: folder.join("hello2.wasm"), hello3: folder.join("hello3.wasm") })
}
