//! Sessions in containers: `exec` and `attach`, as byte streams that never pass through the agent.

use std::fmt;
use std::pin::Pin;

use coracle_api::Uid;

use super::OpenError;

/// What a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Another program beside the container's own: the command and its arguments, at least one.
    Exec(Vec<String>),
    /// The container's own program.
    Attach,
}

/// A session to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSpec {
    /// The pod.
    pub pod: Uid,
    /// The container's name in the pod.
    pub container: String,
    /// What it is.
    pub kind: SessionKind,
    /// Whether the client writes.
    pub stdin: bool,
    /// Whether the client reads standard output.
    pub stdout: bool,
    /// Whether the client reads standard error; never together with `tty`.
    pub stderr: bool,
    /// Whether it is a terminal.
    pub tty: bool,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// Bytes that come.
pub type ByteReader = Pin<Box<dyn futures_io::AsyncRead + Send>>;
/// Bytes that go.
pub type ByteWriter = Pin<Box<dyn futures_io::AsyncWrite + Send>>;
/// Tells a terminal its new size; it does not wait.
pub type Resize = Box<dyn FnMut(TerminalSize) + Send>;
/// The exit code of the program, or why it is not known.
pub type SessionExit = Pin<Box<dyn Future<Output = Result<i32, OpenError>> + Send>>;
/// A session that is being opened.
pub type Opening = Pin<Box<dyn Future<Output = Result<Session, OpenError>> + Send>>;

/// An open session. What a runtime owes:
///
/// - It is with the instance of the container that runs when it is opened; where none runs, opening fails.
/// - Exactly the streams that were asked for are there. With `tty` there is no `stderr`: a terminal has one output.
/// - Streams are on bounded queues: a client that reads nothing makes the program wait, and loses nothing.
/// - `stdin` ends for the program when it is closed or dropped. `stdout` and `stderr` end when the program has written its last.
/// - `exit` is ready when the program has ended, which may be before its output was read.
/// - Dropping the session gives the streams up; it may end a program that `exec` began, and never one that `attach` joined.
pub struct Session {
    /// To the program, where asked for.
    pub stdin: Option<ByteWriter>,
    /// From the program, where asked for.
    pub stdout: Option<ByteReader>,
    /// From the program, where asked for.
    pub stderr: Option<ByteReader>,
    /// Where there is a terminal.
    pub resize: Option<Resize>,
    /// How the program ends.
    pub exit: SessionExit,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}
