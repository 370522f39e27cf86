//! Measures a cluster in this process against its targets: `cargo bench -p coracle-benches [-- PART..]`.
//!
//! Parts: start, deployment, cpu, writes, lists, access, scheduling, deletions, members (or members-writes, members-idle, members-catch-up,
//! members-failover), network (or network-proxy, network-dns, network-services), containers (or
//! containers-start, containers-many, containers-tunnel), wasm (or wasm-start, wasm-short, wasm-http, wasm-density, wasm-cpu); all of them
//! without an argument. Times are real, on
//! this machine as it is now: the figures of a busy one are worse, the CPU times less so.

use std::process::ExitCode;

use coracle_benches::{
    Report, access, client, containers, cpu, deletions, deployment, lists, members, network, scheduling, start, wasm,
    writes,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let result = match arguments.first().map(String::as_str) {
        Some(client::ARGUMENT) => client::main(),
        Some(members::ARGUMENT) => members::main(),
        Some(wasm::ARGUMENT) => wasm::main(),
        _ => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln_line(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(parts: &[String]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    let mut report = Report::default();
    runtime.block_on(async {
        if wanted("start") {
            start::measure(&mut report).await?;
        }
        if wanted("deployment") {
            deployment::measure(&mut report).await?;
        }
        if wanted("cpu") {
            cpu::measure(&mut report).await?;
        }
        if wanted("writes") {
            writes::measure(&mut report).await?;
        }
        if wanted("lists") {
            lists::measure(&mut report).await?;
        }
        if wanted("access") {
            access::measure(&mut report).await?;
        }
        if wanted("scheduling") {
            scheduling::measure(&mut report).await?;
        }
        if wanted("deletions") {
            deletions::measure(&mut report).await?;
        }
        let of_members = |part: &str| wanted("members") || wanted(part);
        if members::PARTS.into_iter().any(of_members) {
            members::measure(&mut report, of_members).await?;
        }
        let of_network = |part: &str| wanted("network") || wanted(part);
        if network::PARTS.into_iter().any(of_network) {
            network::measure(&mut report, of_network).await?;
        }
        let of_containers = |part: &str| wanted("containers") || wanted(part);
        if containers::PARTS.into_iter().any(of_containers) {
            containers::measure(&mut report, of_containers).await?;
        }
        let of_wasm = |part: &str| wanted("wasm") || wanted(part);
        if wasm::PARTS.into_iter().any(of_wasm) {
            wasm::measure(&mut report, of_wasm, env!("CARGO_TARGET_TMPDIR").as_ref()).await?;
        }
        anyhow::Ok(())
    })?;
    report.end();
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the one place where the program's error is told")]
fn eprintln_line(line: &str) {
    eprintln!("{line}");
}
