//! What can go wrong when a cluster is started or used as a library.

use std::fmt;
use std::path::Path;

/// An error of a cluster: one readable line, and a kind to match on.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What sort of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The address to listen on cannot be had.
    Listen,
    /// The data directory cannot be used, or another process uses it.
    DataDirectory,
    /// What the data directory holds is damaged or of a newer version.
    Corrupt,
    /// A certificate or key cannot be made or read.
    Certificate,
    /// The container runtime cannot be started.
    Runtime,
    /// An argument of the builder does not make sense.
    Invalid,
    /// The API server refused: the message is its `Status`'s.
    Api,
    /// The cluster that was to be joined cannot be reached, is another one, or does not let this machine in.
    Join,
    /// What was waited for did not happen in time.
    Timeout,
    /// The cluster has been stopped.
    Stopped,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    pub(crate) fn certificate(source: rcgen::Error) -> Self {
        Self::new(ErrorKind::Certificate, "the cluster's certificates cannot be made").because(source)
    }

    pub(crate) fn tls(source: &(impl fmt::Display + ?Sized)) -> Self {
        Self::new(ErrorKind::Certificate, format!("TLS cannot be set up: {source}"))
    }

    pub(crate) fn randomness() -> Self {
        Self::new(ErrorKind::Certificate, "the operating system gives no randomness")
    }

    pub(crate) fn file(what: &str, path: &Path, source: std::io::Error) -> Self {
        Self::new(ErrorKind::DataDirectory, format!("cannot {what} {}", path.display())).because(source)
    }

    pub(crate) fn api(status: &coracle_api::Status) -> Self {
        Self::new(ErrorKind::Api, status.message.clone())
    }

    /// What sort of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
