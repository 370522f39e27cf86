//! Running kubectl, with a limit on how long it may take.

use std::fmt;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No command of the tests takes longer unless it hangs.
const LIMIT: Duration = Duration::from_secs(90);

/// What a command did.
#[derive(Clone)]
pub(crate) struct Ran {
    pub(crate) command: String,
    /// `None`: it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(f, "$ {command}\n{stdout}{stderr}[exit code {code:?}]")
    }
}

impl Ran {
    /// What it printed, after it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "a command failed: {self:?}");
        self.stdout
    }

    /// What it complained of, after it failed.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        assert_ne!(self.code, Some(0), "a command succeeded: {self:?}");
        assert!(self.code.is_some(), "a command took too long: {self:?}");
        self.stderr
    }
}

/// Whether there is a kubectl. Says so when there is none; in CI that is a failure.
pub(crate) fn is_installed() -> bool {
    let found = Command::new("kubectl").args(["version", "--client"]).stdout(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "kubectl is not installed, and CI is set");
        let _ = writeln!(std::io::stderr(), "skipped: kubectl is not installed");
    }
    found
}

/// Runs a command without input to its end.
pub(crate) fn finish(command: Command) -> Ran {
    run(command, None)
}

/// Runs a command to its end, or to the limit.
pub(crate) fn run(mut command: Command, input: Option<&str>) -> Ran {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    let text = std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A command that does not read its input to the end says itself what is wrong.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = reader(child.stdout.take().expect("it is piped"));
    let stderr = reader(child.stderr.take().expect("it is piped"));
    let code = end(&mut child);
    let text_of = |reader: std::thread::JoinHandle<String>| reader.join().expect("a reader does not panic");
    Ran { command: text, code, stdout: text_of(stdout), stderr: text_of(stderr) }
}

fn reader(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn end(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
