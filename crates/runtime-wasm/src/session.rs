//! Sessions in containers: another instance of a container's program with other arguments, one of the runtime's own tools, or what the container itself
//! writes.

use std::sync::Arc;
use std::time::Duration;

use coracle_node::runtime::{
    ByteReader, ByteWriter, LogStream, OpenError, ProbeResult, Session, SessionKind, SessionSpec,
};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _, TokioAsyncWriteCompatExt as _};
use tokio_util::io::SyncIoBridge;

use crate::container::{self, Container, Ending, Entry};
use crate::exit;
use crate::flow::{Attached, Flow, FromGuest, GuestIn, GuestOut, ToGuest};
use crate::guest::Stdio;
use crate::program::Linked;
use crate::shared::Shared;
use crate::slices::Sliced;
use crate::terminal::Terminal;
use crate::tools::Tool;

/// Bytes in flight between a tool and its client, each way.
const TOOL_BUFFER: usize = 64 << 10;
/// The most of a probe's output that is told, as the kubelet has it.
const PROBE_OUTPUT_MAX: usize = 10 << 10;
/// Programs that people look for first in a container, and that no Wasm container has.
const SHELLS: [&str; 7] = ["sh", "bash", "ash", "dash", "zsh", "busybox", "cmd"];
/// What a shell ends with that does not find a program.
const NOT_FOUND: i32 = 127;
/// 128 and SIGINT.
const INTERRUPTED: i32 = 130;

/// Opens a session; it spawns tasks.
pub(crate) fn open(shared: &Arc<Shared>, spec: &SessionSpec) -> Result<Session, OpenError> {
    let container = shared
        .running_container(&spec.pod, &spec.container)
        .ok_or_else(|| OpenError(format!("container not found ({:?})", spec.container)))?;
    match &spec.kind {
        SessionKind::Attach => Ok(attach(&container, spec)),
        SessionKind::Exec(command) => match Tool::of(command) {
            Some(Ok(tool)) => Ok(tool_session(&container, tool, spec)),
            Some(Err(why)) => Ok(told(&format!("{why}\n"), 2, spec)),
            None if has_no(command, &container) => {
                let why = format!(
                    "exec: {:?}: a Wasm container has one program and no shell; the command is given to that program as its arguments\n",
                    command[0]
                );
                Ok(told(&why, NOT_FOUND, spec))
            }
            None => exec(shared, &container, command, spec),
        },
    }
}

/// Whether a command asks for a shell, and the container's own program is none.
fn has_no(command: &[String], container: &Container) -> bool {
    let base = |program: &str| program.rsplit('/').next().unwrap_or_default().to_owned();
    let asked = command.first().map(|program| base(program)).unwrap_or_default();
    let own = container.environment.args.first().map(|program| base(program)).unwrap_or_default();
    SHELLS.contains(&asked.as_str()) && asked != own
}

/// A session that has said one thing and is over.
fn told(text: &str, code: i32, spec: &SessionSpec) -> Session {
    let said = |wanted: bool, text: &str| {
        wanted.then(|| {
            let flow = Flow::default();
            flow.put(text.as_bytes());
            flow.end();
            Box::pin(FromGuest(flow)) as ByteReader
        })
    };
    let to_stdout = if spec.stderr { "" } else { text };
    Session {
        stdin: spec.stdin.then(|| Box::pin(ToGuest(closed())) as ByteWriter),
        stdout: said(spec.stdout, to_stdout),
        stderr: said(spec.stderr, text),
        resize: None,
        exit: Box::pin(std::future::ready(Ok(code))),
    }
}

/// A queue that nobody reads.
fn closed() -> Flow {
    let flow = Flow::default();
    drop(FromGuest(flow.clone()));
    flow
}

/// A task that ends when nobody waits for it any more.
struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn exec(
    shared: &Arc<Shared>,
    container: &Arc<Container>,
    command: &[String],
    spec: &SessionSpec,
) -> Result<Session, OpenError> {
    let entry = match container.program.linked.clone() {
        Ok(Linked::Module(pre)) => Entry::Module(pre),
        Ok(Linked::Command(pre) | Linked::Service { start: Some(pre), .. }) => Entry::Command(pre),
        Ok(Linked::Service { start: None, .. }) => {
            let why =
                "the container's program only serves HTTP: it exports no wasi:cli/run that a command could be given to";
            return Err(OpenError(why.into()));
        }
        Err(missing) => return Err(OpenError(missing)),
    };
    let permit = Arc::clone(&shared.instances)
        .try_acquire_owned()
        .map_err(|_| OpenError("the node runs as many Wasm instances as it may".into()))?;
    let (stdin, stdout, stderr) = (Flow::default(), Flow::default(), Flow::default());
    if !spec.stdin {
        stdin.end();
    }
    let out = |flow: &Flow| GuestOut { flow: flow.clone(), terminal: spec.tty };
    let mut environment = container.environment.clone();
    environment.args = command.to_vec();
    environment.stdio = Stdio::Streams {
        stdin: GuestIn { flow: stdin.clone(), terminal: spec.tty },
        stdout: if spec.stdout { out(&stdout) } else { out(&closed()) },
        stderr: match (spec.tty, spec.stderr) {
            (true, _) => out(&stdout),
            (false, true) => out(&stderr),
            (false, false) => out(&closed()),
        },
    };
    let store = environment
        .store(&container.program.flavor, &container.account, shared)
        .map_err(|error| OpenError(format!("{error:#}")))?;
    let guest = Sliced::new(container::enter(entry, store), Arc::clone(&container.account), shared.slicing.clone());
    let mut task = Owned(shared.guests.spawn(async move {
        let _permit = permit;
        guest.await
    }));
    let interrupted = watch::Sender::new(false);
    let mut interrupt = interrupted.subscribe();
    let (container, words, written) = (Arc::clone(container), stderr.clone(), [stdout.clone(), stderr.clone()]);
    let watched = shared.io.spawn(async move {
        let exit = tokio::select! {
            biased;
            ended = &mut task.0 => match ended {
                Ok(result) => {
                    if let Err(error) = &result && exit::is_unexplained(error) {
                        words.put(format!("{}\n", exit::explanation(error).trim_end()).as_bytes());
                    }
                    Ok(exit::of(&result).code)
                }
                Err(error) => Err(OpenError(format!("the runtime failed: {error}"))),
            },
            // With its container's program it ends itself, as processes do.
            ending = container::asked(&container, container.ended_by()) => {
                Ok(if ending == Ending::Kill { exit::killed().code } else { exit::terminated().code })
            }
            () = container.wait() => Ok(exit::killed().code),
            Ok(_) = interrupt.wait_for(|interrupted| *interrupted) => Ok(INTERRUPTED),
        };
        written.iter().for_each(Flow::end);
        exit
    });
    let mut watched = Owned(watched);
    Ok(Session {
        stdin: spec.stdin.then(|| {
            if spec.tty {
                Box::pin(Terminal::new(stdin, stdout.clone(), interrupted)) as ByteWriter
            } else {
                Box::pin(ToGuest(stdin))
            }
        }),
        stdout: spec.stdout.then(|| Box::pin(FromGuest(stdout)) as _),
        stderr: spec.stderr.then(|| Box::pin(FromGuest(stderr)) as _),
        // WASI has no size of a terminal that a guest could be told.
        resize: spec.tty.then(|| Box::new(|_| {}) as _),
        exit: Box::pin(async move {
            (&mut watched.0).await.unwrap_or_else(|error| Err(OpenError(format!("the runtime failed: {error}"))))
        }),
    })
}

fn tool_session(container: &Arc<Container>, tool: Tool, spec: &SessionSpec) -> Session {
    let preopens = container.environment.preopens.clone();
    let pipe = || tokio::io::duplex(TOOL_BUFFER);
    let ((client_in, own_in), (own_out, client_out), (own_err, client_err)) = (pipe(), pipe(), pipe());
    let has_stdin = spec.stdin;
    let run = tokio::task::spawn_blocking(move || {
        let mut stdin: Box<dyn std::io::Read> =
            if has_stdin { Box::new(SyncIoBridge::new(own_in)) } else { Box::new(std::io::empty()) };
        let (mut stdout, mut stderr) = (SyncIoBridge::new(own_out), SyncIoBridge::new(own_err));
        let code = tool.run(&preopens, &mut *stdin, &mut stdout, &mut stderr);
        let _ = (stdout.shutdown(), stderr.shutdown());
        code
    });
    Session {
        stdin: spec.stdin.then(|| Box::pin(client_in.compat_write()) as _),
        stdout: spec.stdout.then(|| Box::pin(client_out.compat()) as _),
        stderr: spec.stderr.then(|| Box::pin(client_err.compat()) as _),
        resize: None,
        exit: Box::pin(async move { run.await.map_err(|error| OpenError(format!("the runtime failed: {error}"))) }),
    }
}

fn attach(container: &Arc<Container>, spec: &SessionSpec) -> Session {
    let watch = |stream, wanted: bool| {
        wanted.then(|| {
            let flow = Flow::default();
            container.environment.outputs.add(stream, flow.clone());
            Box::pin(FromGuest(flow)) as ByteReader
        })
    };
    let (stdout, stderr) = (watch(LogStream::Stdout, spec.stdout), watch(LogStream::Stderr, spec.stderr));
    let container = Arc::clone(container);
    let stdin = spec.stdin.then(|| match &container.input {
        Some(input) if input.once => Box::pin(ToGuest(input.flow.clone())) as ByteWriter,
        Some(input) => Box::pin(Attached(input.flow.clone())),
        // Its program was given an input that is at its end.
        None => Box::pin(ToGuest(closed())),
    });
    Session {
        stdin,
        stdout,
        stderr,
        resize: None,
        exit: Box::pin(async move {
            container.wait().await;
            Ok(container.exit_code().unwrap_or_default())
        }),
    }
}

/// Runs a command in a container for a probe or a hook.
pub(crate) async fn probe(shared: Arc<Shared>, spec: SessionSpec, timeout: Duration) -> ProbeResult {
    let ran = async {
        let Session { stdin, stdout, stderr, exit, .. } = open(&shared, &spec)?;
        drop(stdin);
        // Both outputs count, and what is too much of them is read all the same, so that the command can end.
        let (out, err, code) = tokio::join!(read(stdout), read(stderr), exit);
        Ok::<_, OpenError>((out + &err, code?))
    };
    match tokio::time::timeout(timeout, ran).await {
        Err(_) => ProbeResult::Failure(format!("command timed out after {}s", timeout.as_secs_f64())),
        Ok(Err(error)) => ProbeResult::Error(error.0),
        Ok(Ok((_, 0))) => ProbeResult::Success,
        Ok(Ok((output, code))) if output.trim().is_empty() => {
            ProbeResult::Failure(format!("command terminated with exit code {code}"))
        }
        Ok(Ok((output, _))) => ProbeResult::Failure(output),
    }
}

async fn read(reader: Option<ByteReader>) -> String {
    let Some(reader) = reader else { return String::new() };
    let mut reader = reader.compat();
    let mut kept = Vec::new();
    let _ = (&mut reader).take(PROBE_OUTPUT_MAX as u64).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}
