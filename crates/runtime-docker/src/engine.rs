//! The connection to Docker Engine: made again whenever it is lost, and told of when it comes and goes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::watch;

/// How long a request may take that is no pull and follows nothing, in seconds. Docker takes minutes to create a container on a slow disk.
const REQUEST_SECONDS: u64 = 300;
/// How long to wait before the Engine is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long what a pod needs waits for an Engine that was lost.
const RETURN_WAIT: Duration = Duration::from_mins(1);

/// The Engine as it is now: connected, or why not.
type State = Result<Docker, String>;

/// The Engine.
#[derive(Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
    state: watch::Sender<State>,
    /// It was connected before.
    was_there: AtomicBool,
}

impl Engine {
    /// An Engine that was not looked for yet.
    pub(crate) fn new(socket: PathBuf) -> Self {
        let why = format!("Docker Engine at {} was not asked yet", socket.display());
        Self { socket, state: watch::channel(Err(why)).0, was_there: AtomicBool::new(false) }
    }

    /// The client, or the sentence that says why there is none.
    pub(crate) fn client(&self) -> State {
        self.state.borrow().clone()
    }

    /// The client; one that was lost is waited for a while, because an Engine that is started again should find its pods ready for it, and not
    /// in a back-off that outlasts its absence.
    pub(crate) async fn awaited(&self) -> State {
        if self.client().is_err() && self.was_there.load(Ordering::Relaxed) {
            let _ = tokio::time::timeout(RETURN_WAIT, self.connected()).await;
        }
        self.client()
    }

    /// The client, once there is one.
    pub(crate) async fn connected(&self) -> Docker {
        let mut state = self.state.subscribe();
        loop {
            if let Ok(client) = &*state.borrow_and_update() {
                return client.clone();
            }
            // The sender is this Engine's own: it does not go before it.
            let _ = state.changed().await;
        }
    }

    /// Looks for the Engine once: the client and what it is, as in `docker://28.1.0`.
    pub(crate) async fn connect(&self) -> Result<(Docker, String), String> {
        let found = self.try_connect().await;
        self.was_there.fetch_or(found.is_ok(), Ordering::Relaxed);
        let _ = self.state.send_replace(found.as_ref().map(|(client, _)| client.clone()).map_err(Clone::clone));
        found
    }

    async fn try_connect(&self) -> Result<(Docker, String), String> {
        let at = self.socket.display();
        // The client's own error does not tell a socket that is missing from one that may not be opened.
        tokio::net::UnixStream::connect(&self.socket).await.map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such socket: is Docker installed and running?".into(),
                std::io::ErrorKind::PermissionDenied => {
                    "permission denied: run as root, or as a user of the group docker".into()
                }
                std::io::ErrorKind::ConnectionRefused => "connection refused: is Docker running?".into(),
                _ => error.to_string(),
            };
            format!("Docker Engine cannot be reached at {at}: {why}")
        })?;
        let failed = |error: Error| format!("Docker Engine at {at} does not answer: {}", sentence(&error));
        let path = self.socket.to_string_lossy();
        let client = Docker::connect_with_unix(&path, REQUEST_SECONDS, API_DEFAULT_VERSION).map_err(failed)?;
        let client = client.negotiate_version().await.map_err(failed)?;
        let version = client.version().await.map_err(failed)?.version.unwrap_or_default();
        Ok((client, format!("docker://{version}")))
    }

    /// The Engine does not answer any more.
    pub(crate) fn lost(&self, why: String) {
        let _ = self.state.send_replace(Err(why));
    }

    /// Where it is.
    pub(crate) fn socket(&self) -> String {
        self.socket.display().to_string()
    }
}

/// Waits before another try.
pub(crate) async fn pause() {
    tokio::time::sleep(RETRY).await;
}

/// Docker's own sentence, where it answered with one.
pub(crate) fn sentence(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => format!("Error response from daemon: {}", message.trim()),
        Error::DockerStreamError { error } => error.clone(),
        Error::RequestTimeoutError => "Docker Engine did not answer in time".into(),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}

/// Whether Docker said that there is no such thing.
pub(crate) fn is_missing(error: &Error) -> bool {
    has_status(error, 404)
}

/// Whether Docker said that it is so already, or in use.
pub(crate) fn is_conflict(error: &Error) -> bool {
    has_status(error, 409)
}

fn has_status(error: &Error, code: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_was_lost_is_waited_for_and_one_that_never_was_is_not() {
        let engine = Engine::new("/nowhere/docker.sock".into());
        let began = tokio::time::Instant::now();
        assert!(engine.awaited().await.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO);
        engine.was_there.store(true, Ordering::Relaxed);
        engine.lost("it has gone away".into());
        assert_eq!(engine.awaited().await.unwrap_err(), "it has gone away");
        assert_eq!(began.elapsed(), RETURN_WAIT);
    }
}
