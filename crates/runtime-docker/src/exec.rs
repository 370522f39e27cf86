//! Probes and hooks that run a command in a container.

use std::time::Duration;

use bollard::Docker;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use coracle_node::runtime::ProbeResult;
use futures_util::StreamExt as _;

use crate::engine::sentence;

/// How much of a probe's output is kept: the kubelet's own bound.
const OUTPUT_MAX: usize = 10 << 10;

/// Runs a command in a container: success is exit code 0, and what it printed is why it failed.
pub(crate) async fn probe(docker: &Docker, container: &str, command: &[String], timeout: Duration) -> ProbeResult {
    match tokio::time::timeout(timeout, run(docker, container, command)).await {
        Err(_) => ProbeResult::Failure(format!("command timed out: {command:?} timed out after {}", seconds(timeout))),
        Ok(Err(error)) => ProbeResult::Error(error),
        Ok(Ok((0, _))) => ProbeResult::Success,
        Ok(Ok((_, output))) => ProbeResult::Failure(output),
    }
}

async fn run(docker: &Docker, container: &str, command: &[String]) -> Result<(i64, String), String> {
    let failed = |error: bollard::errors::Error| format!("failed to exec in container: {}", sentence(&error));
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.to_vec()),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(container, config).await.map_err(failed)?;
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
    // The end of the output may be there a moment before the end of the program.
    loop {
        let found = docker.inspect_exec(&exec.id).await.map_err(failed)?;
        if found.running != Some(true) {
            let code = found.exit_code.ok_or("the command did not begin")?;
            return Ok((code, String::from_utf8_lossy(&output).into_owned()));
        }
        tokio::task::yield_now().await;
    }
}

fn seconds(timeout: Duration) -> String {
    format!("{}s", timeout.as_secs_f64())
}
