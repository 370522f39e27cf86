//! Probes and hooks that run a command in a container.

use std::sync::OnceLock;
use std::time::Duration;

use bollard::Docker;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use coracle_node::runtime::{ContainerId, ProbeResult};
use futures_util::StreamExt as _;

use crate::engine::sentence;
use crate::shared::Shared;

/// How much of a probe's output is kept: the kubelet's own bound.
const OUTPUT_MAX: usize = 10 << 10;

/// How often it is looked whether a command has ended that says nothing more.
const END_INTERVAL: Duration = Duration::from_millis(20);

/// How many commands of a container's probes may run on after their time. Docker cannot end a command, and one that hangs is begun again
/// with every probe.
const LINGERING_MAX: usize = 4;

/// Runs a command in a container: success is exit code 0, and what it printed is why it failed.
pub(crate) async fn probe(
    shared: &Shared,
    docker: &Docker,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> ProbeResult {
    let Some(tracked) = shared.container(id) else { return ProbeResult::Error("the container is not there".into()) };
    let lingering = still_running(shared, docker, id).await;
    if lingering >= LINGERING_MAX {
        return ProbeResult::Failure(format!("{lingering} commands of probes before have timed out and still run"));
    }
    let begun = OnceLock::new();
    match tokio::time::timeout(timeout, run(docker, &tracked.docker, command, &begun)).await {
        Err(_) => {
            shared.lingering().entry(id.clone()).or_default().extend(begun.into_inner());
            ProbeResult::Failure(format!("command timed out: {command:?} timed out after {}", seconds(timeout)))
        }
        Ok(Err(error)) => ProbeResult::Error(error),
        Ok(Ok((0, _))) => ProbeResult::Success,
        Ok(Ok((_, output))) => ProbeResult::Failure(output),
    }
}

/// How many commands of a container have outlived their probes.
async fn still_running(shared: &Shared, docker: &Docker, id: &ContainerId) -> usize {
    let known = shared.lingering().get(id).cloned().unwrap_or_default();
    let mut ended = Vec::new();
    for exec in &known {
        if docker.inspect_exec(exec).await.is_ok_and(|found| found.running != Some(true)) {
            ended.push(exec.clone());
        }
    }
    shared.lingering().entry(id.clone()).or_default().retain(|exec| !ended.contains(exec));
    known.len() - ended.len()
}

/// `begun` is told what the command is called once it may run.
async fn run(
    docker: &Docker,
    container: &str,
    command: &[String],
    begun: &OnceLock<String>,
) -> Result<(i64, String), String> {
    let failed = |error: bollard::errors::Error| format!("failed to exec in container: {}", sentence(&error));
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(container, config).await.map_err(failed)?;
    let _ = begun.set(exec.id.clone());
    let mut output = Vec::new();
    if let StartExecResults::Attached { output: mut stream, .. } =
        docker.start_exec(&exec.id, None).await.map_err(failed)?
    {
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(failed)?.into_bytes();
            let room = OUTPUT_MAX - output.len();
            output.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }
    // The end of the output may be there before the end of the program, which may have closed it.
    loop {
        let found = docker.inspect_exec(&exec.id).await.map_err(failed)?;
        if found.running != Some(true) {
            let code = found.exit_code.ok_or("the command did not begin")?;
            return Ok((code, String::from_utf8_lossy(&output).into_owned()));
        }
        tokio::time::sleep(END_INTERVAL).await;
    }
}

fn seconds(timeout: Duration) -> String {
    format!("{}s", timeout.as_secs_f64())
}
