//! The audit log on disk: a line an event, in files of a bounded size and number.
//!
//! What is written is `coracle-apiserver`'s business. Events wait in a queue for the log's thread; when it is full requests wait for
//! it, so that none goes by unseen. The ends of streams, which nobody waits for, are counted when they find no room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use coracle_apiserver::audit::Policy;
use tokio::sync::mpsc;

use crate::{Error, ErrorKind};

/// How many events wait for the thread.
const WAITING_MAX: usize = 4_096;
/// How many bytes a file has before the next is begun (Kubernetes' example of `--audit-log-maxsize`).
const FILE_BYTES: u64 = 100 << 20;
/// How many older files are kept.
const OLDER_FILES: usize = 10;

/// Where requests over HTTP are written down: who did what, when, and how it ended, as `audit.k8s.io/v1` Events, one JSON object a line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditOptions {
    /// The file. Older ones are beside it, `FILE.1` the newest of them.
    pub file: PathBuf,
    /// A `Policy` of `audit.k8s.io/v1`, YAML or JSON: what is recorded of which request. Without one it is the metadata of every request
    /// (no bodies, so no Secrets).
    pub policy: Option<String>,
    /// How many bytes the file has before the next one is begun.
    pub file_bytes: u64,
    /// How many older files are kept.
    pub older_files: usize,
}

impl AuditOptions {
    /// The metadata of every request, in this file and ten older ones of 100 MiB each.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), policy: None, file_bytes: FILE_BYTES, older_files: OLDER_FILES }
    }
}

/// The log.
#[derive(Debug)]
pub(crate) struct AuditLog {
    pub(crate) policy: Policy,
    lines: mpsc::Sender<String>,
}

impl AuditLog {
    /// Opens the log and starts its thread, which ends when the log is dropped and everything is written.
    pub(crate) fn start(options: &AuditOptions) -> Result<Self, Error> {
        let policy = match &options.policy {
            None => Policy::metadata(),
            Some(text) => Policy::parse(text.as_bytes())
                .map_err(|why| Error::new(ErrorKind::Invalid, format!("the audit policy cannot be used: {why}")))?,
        };
        let mut files = Files::open(options).map_err(|source| Error::file("write", &options.file, source))?;
        let (lines, mut waiting) = mpsc::channel::<String>(WAITING_MAX);
        let thread = std::thread::Builder::new().name("coracle-audit".into()).spawn(move || {
            while let Some(line) = waiting.blocking_recv() {
                if let Err(error) = files.write(&line) {
                    tracing::error!(%error, "an event cannot be written to the audit log");
                }
            }
        });
        thread
            .map_err(|source| Error::new(ErrorKind::Runtime, "cannot start the audit log's thread").because(source))?;
        Ok(Self { policy, lines })
    }

    /// Writes a line; waits while there are too many.
    pub(crate) async fn write(&self, line: Option<String>) {
        if let Some(line) = line {
            let _ = self.lines.send(line).await;
        }
    }

    /// The same where nobody can wait.
    pub(crate) fn write_now(&self, line: Option<String>) {
        if let Some(line) = line
            && self.lines.try_send(line).is_err()
        {
            tracing::error!("the audit log has no room for the end of a stream");
        }
    }
}

/// The file that is written, and those before it.
#[derive(Debug)]
struct Files {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    older: usize,
}

impl Files {
    fn open(options: &AuditOptions) -> io::Result<Self> {
        let file = append(&options.file)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: options.file.clone(), file, bytes, bytes_max: options.file_bytes, older: options.older_files })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64 + 1;
        if self.bytes > 0 && self.bytes + length > self.bytes_max {
            self.rotate()?;
        }
        self.file.write_all(format!("{line}\n").as_bytes())?;
        self.bytes += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.older).rev() {
            match fs::rename(older(&self.path, number), older(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.older == 0 {
            fs::remove_file(&self.path)?;
        } else {
            fs::rename(&self.path, older(&self.path, 1))?;
        }
        (self.file, self.bytes) = (append(&self.path)?, 0);
        Ok(())
    }
}

fn older(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// A file that only this user may read, as it may hold what is in Secrets.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_in_size_and_number_and_go_on_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let options =
            AuditOptions { file_bytes: 20, older_files: 2, ..AuditOptions::new(folder.path().join("audit.log")) };
        for start in 0..2 {
            let mut files = Files::open(&options).unwrap();
            for line in 0..5 {
                files.write(&format!("start {start} {line}")).unwrap();
            }
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&options.file), "start 1 3\nstart 1 4\n");
        assert_eq!(read(&older(&options.file, 1)), "start 1 1\nstart 1 2\n");
        assert_eq!(read(&older(&options.file, 2)), "start 0 4\nstart 1 0\n", "the file of the first start went on");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
