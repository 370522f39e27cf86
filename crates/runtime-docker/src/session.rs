//! Sessions in containers: `exec` and `attach`, as Docker's own streams.

use std::sync::Arc;

use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, ResizeContainerTTYOptions, ResizeExecOptions, WaitContainerOptions,
};
use coracle_node::runtime::{
    ByteReader, ByteWriter, ContainerId, OpenError, Resize, Session, SessionExit, SessionKind, SessionSpec,
    TerminalSize,
};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio_util::compat::{TokioAsyncReadCompatExt as _, TokioAsyncWriteCompatExt as _};

use crate::engine::sentence;
use crate::shared::{Shared, State, Tracked};

/// How many bytes of output wait for a client.
const OUTPUT_BYTES: usize = 64 << 10;
/// How many sizes of a terminal wait for Docker; only the last one matters.
const SIZES: usize = 8;

type Output = BoxStream<'static, Result<LogOutput, bollard::errors::Error>>;
type Input = std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>;

/// What a size is told to.
#[derive(Clone, Debug)]
enum Terminal {
    Exec(String),
    Container(String),
}

/// Opens a session with the instance of a container that runs.
pub(crate) async fn open(shared: &Arc<Shared>, spec: SessionSpec) -> Result<Session, OpenError> {
    let docker = shared.engine.client().map_err(OpenError)?;
    let (_, tracked) = running(shared, &spec)?;
    match &spec.kind {
        SessionKind::Exec(command) => exec(&docker, &tracked, &spec, command).await,
        SessionKind::Attach => attach(&docker, &tracked, &spec).await,
    }
}

fn running(shared: &Shared, spec: &SessionSpec) -> Result<(ContainerId, Tracked), OpenError> {
    let all = shared.of_pod(&spec.pod).into_iter();
    let found = all.filter(|(id, tracked)| id.container == spec.container && tracked.state == State::Running);
    found
        .max_by_key(|(id, _)| id.instance)
        .ok_or_else(|| OpenError(format!("container {:?} is not running", spec.container)))
}

fn failed(error: bollard::errors::Error) -> OpenError {
    OpenError(sentence(&error))
}

async fn exec(
    docker: &Docker,
    tracked: &Tracked,
    spec: &SessionSpec,
    command: &[String],
) -> Result<Session, OpenError> {
    let config = ExecConfig {
        attach_stdin: Some(spec.stdin),
        attach_stdout: Some(spec.stdout),
        attach_stderr: Some(spec.stderr),
        tty: Some(spec.tty),
        cmd: Some(command.to_vec()),
        ..ExecConfig::default()
    };
    let made = docker.create_exec(&tracked.docker, config).await.map_err(failed)?;
    let options = StartExecOptions { detach: false, tty: spec.tty, output_capacity: None };
    let StartExecResults::Attached { output, input } =
        docker.start_exec(&made.id, Some(options)).await.map_err(failed)?
    else {
        return Err(OpenError("Docker did not attach to the command".into()));
    };
    let (client, id) = (docker.clone(), made.id.clone());
    let mut ended = None;
    let mut session = join(docker, spec, output, input, Terminal::Exec(made.id), &mut ended);
    let over = ended.ok_or_else(|| OpenError("the session has no end".into()))?;
    session.exit = Box::pin(async move { exec_exit(&client, &id, over).await });
    Ok(session)
}

/// A command's exit code, once its output is over.
async fn exec_exit(docker: &Docker, id: &str, mut over: watch::Receiver<bool>) -> Result<i32, OpenError> {
    let _ = over.wait_for(|over| *over).await;
    loop {
        let found = docker.inspect_exec(id).await.map_err(failed)?;
        if found.running != Some(true) {
            return found
                .exit_code
                .map(|code| code as i32)
                .ok_or_else(|| OpenError("the command did not begin".into()));
        }
        // Its output may be closed while it runs on.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn attach(docker: &Docker, tracked: &Tracked, spec: &SessionSpec) -> Result<Session, OpenError> {
    let options = AttachContainerOptionsBuilder::default()
        .stream(true)
        .stdin(spec.stdin)
        .stdout(spec.stdout)
        .stderr(spec.stderr)
        .build();
    let AttachContainerResults { output, input } =
        docker.attach_container(&tracked.docker, Some(options)).await.map_err(failed)?;
    let terminal = Terminal::Container(tracked.docker.clone());
    let mut session = join(docker, spec, output, input, terminal, &mut None);
    let (client, id) = (docker.clone(), tracked.docker.clone());
    session.exit = Box::pin(async move {
        let mut wait = std::pin::pin!(client.wait_container(&id, None::<WaitContainerOptions>));
        match wait.next().await {
            Some(Ok(ended)) => Ok(ended.status_code as i32),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code as i32),
            Some(Err(error)) => Err(failed(error)),
            None => Err(OpenError("Docker did not say how the container ended".into())),
        }
    });
    Ok(session)
}

/// Docker's two streams as the session's; `ended` is what tells that the output is over.
fn join(
    docker: &Docker,
    spec: &SessionSpec,
    output: std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    input: Input,
    terminal: Terminal,
    ended: &mut Option<watch::Receiver<bool>>,
) -> Session {
    let (over, is_over) = watch::channel(false);
    *ended = Some(is_over);
    let (stdout_writer, stdout) = duplex(OUTPUT_BYTES);
    let (stderr_writer, stderr) = duplex(OUTPUT_BYTES);
    tokio::spawn(carry(output.boxed(), stdout_writer, stderr_writer, over));
    let reader = |wanted: bool, stream: DuplexStream| wanted.then(|| Box::pin(stream.compat()) as ByteReader);
    let exit: SessionExit = Box::pin(std::future::pending());
    Session {
        stdin: spec.stdin.then(|| Box::pin(input.compat_write()) as ByteWriter),
        stdout: reader(spec.stdout, stdout),
        stderr: reader(spec.stderr && !spec.tty, stderr),
        resize: spec.tty.then(|| resize(docker, terminal)),
        exit,
    }
}

/// Carries output to who reads it; what nobody asked for, or nobody reads any more, is dropped.
async fn carry(output: Output, mut stdout: DuplexStream, mut stderr: DuplexStream, over: watch::Sender<bool>) {
    let mut output = std::pin::pin!(output.into_stream());
    while let Some(Ok(piece)) = output.next().await {
        let _ = match &piece {
            LogOutput::StdErr { message } => stderr.write_all(message).await,
            LogOutput::StdOut { message } | LogOutput::Console { message } => stdout.write_all(message).await,
            LogOutput::StdIn { .. } => Ok(()),
        };
    }
    drop((stdout, stderr));
    over.send_replace(true);
}

fn resize(docker: &Docker, terminal: Terminal) -> Resize {
    let (sender, mut sizes) = mpsc::channel::<TerminalSize>(SIZES);
    let docker = docker.clone();
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            let (h, w) = (i32::from(size.height), i32::from(size.width));
            let resized = match &terminal {
                Terminal::Exec(id) => docker.resize_exec(id, ResizeExecOptions { h, w }).await,
                Terminal::Container(id) => docker.resize_container_tty(id, ResizeContainerTTYOptions { h, w }).await,
            };
            if let Err(error) = resized {
                tracing::debug!(error = sentence(&error), "a terminal keeps its size");
            }
        }
    });
    Box::new(move |size| {
        // A full queue has a newer size behind it soon.
        let _ = sender.try_send(size);
    })
}
