//! What containers write: followed from Docker's own log and given to the host, each line once.
//!
//! Docker's log knows when each piece was written. After a break (the Engine was started again, or this process was) reading begins at
//! the second of the last piece that is kept, and what is not newer than that is left out.

use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use coracle_base::Timestamp;
use coracle_node::runtime::{ContainerId, LogStream};
use futures_util::StreamExt as _;

use crate::engine::{is_missing, pause};
use crate::shared::{Shared, State};

/// How long a container is silent before it is asked whether it is: after it wrote, and at most. An Engine that begins the next file under load
/// may lose its follower, who then hears nothing for ever (seen with 20.10).
const SILENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));

/// Follows a container's output until it has ended and everything was read. `drained` is told then.
pub(crate) fn follow(shared: &Arc<Shared>, id: ContainerId) {
    let Some(tracked) = shared.container(&id) else { return };
    tracked.reading.send_replace(false);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut reader = Reader { until: shared.host.logged_until(&id), at_until: None };
        while reader.read(&shared, &id, &tracked.docker).await {
            pause().await;
        }
        tracked.reading.send_replace(true);
    });
}

#[derive(Debug)]
struct Reader {
    /// When the last piece that the host has was written.
    until: Option<Timestamp>,
    /// How many pieces of exactly then it has; `None`: all, as far as anybody knows.
    at_until: Option<usize>,
}

impl Reader {
    /// Reads as long as Docker gives something; whether there may be more.
    async fn read(&mut self, shared: &Arc<Shared>, id: &ContainerId, docker: &str) -> bool {
        let client = shared.engine.connected().await;
        let since = self.until.map_or(0, |until| i32::try_from(until.as_nanos() / 1_000_000_000).unwrap_or(i32::MAX));
        let options =
            LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).timestamps(true).since(since).build();
        let mut stream = std::pin::pin!(client.logs(docker, Some(options)));
        // What is kept of the last moment is skipped as often as it was told.
        let mut skip = Skip { until: self.until, left: self.at_until };
        // Only who writes much begins another file.
        let mut patience = SILENCE.1;
        loop {
            let Ok(next) = tokio::time::timeout(patience, stream.next()).await else {
                if self.is_behind(&client, docker).await {
                    return true;
                }
                patience = (patience * 2).min(SILENCE.1);
                continue;
            };
            patience = SILENCE.0;
            let (kind, bytes) = match next {
                Some(Ok(LogOutput::StdErr { message })) => (LogStream::Stderr, message),
                Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                    (LogStream::Stdout, message)
                }
                Some(Ok(LogOutput::StdIn { .. })) => continue,
                Some(Err(error)) => return !is_missing(&error) && is_there(shared, id),
                // The end of the log is that of the container, unless it is the Engine's own.
                None => return is_running(&client, docker).await,
            };
            let (at, text) = stamped(&bytes);
            let Some(at) = at else {
                shared.host.log(id, kind, text);
                continue;
            };
            if skip.skips(at) {
                continue;
            }
            if self.until == Some(at) {
                self.at_until = self.at_until.map(|count| count + 1);
            } else {
                (self.until, self.at_until) = (Some(at), Some(1));
            }
            shared.host.log_at(id, kind, at, text);
        }
    }

    /// Whether Docker's log ends with something that was not heard.
    async fn is_behind(&self, client: &bollard::Docker, docker: &str) -> bool {
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).timestamps(true).tail("1").build();
        let last = std::pin::pin!(client.logs(docker, Some(options))).next().await;
        let Some(Ok(last)) = last else { return false };
        stamped(&last.into_bytes()).0.is_some_and(|at| self.until.is_none_or(|until| at > until))
    }
}

#[derive(Debug)]
struct Skip {
    until: Option<Timestamp>,
    left: Option<usize>,
}

impl Skip {
    fn skips(&mut self, at: Timestamp) -> bool {
        let Some(until) = self.until else { return false };
        if at != until {
            return at < until;
        }
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

fn is_there(shared: &Shared, id: &ContainerId) -> bool {
    shared.container(id).is_some_and(|tracked| !matches!(tracked.state, State::Ended(_)))
}

async fn is_running(client: &bollard::Docker, docker: &str) -> bool {
    let found = client.inspect_container(docker, None::<bollard::query_parameters::InspectContainerOptions>).await;
    match found {
        Ok(found) => found.state.and_then(|state| state.running) == Some(true),
        Err(error) => !is_missing(&error),
    }
}

/// A piece without its time, and the time.
fn stamped(bytes: &[u8]) -> (Option<Timestamp>, &[u8]) {
    let Some(space) = bytes.iter().position(|byte| *byte == b' ') else { return (None, bytes) };
    let at = std::str::from_utf8(&bytes[..space]).ok().and_then(|text| Timestamp::parse(text).ok());
    match at {
        Some(at) => (Some(at), &bytes[space + 1..]),
        None => (None, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds as i64)
    }

    #[test]
    fn a_piece_is_told_from_its_time() {
        let (time, text) = stamped(b"2026-01-02T03:04:05.000000006Z two words\n");
        assert_eq!(
            (time.unwrap().rfc3339_nano().as_str(), text),
            ("2026-01-02T03:04:05.000000006Z", &b"two words\n"[..])
        );
        assert_eq!(stamped(b"no time\n"), (None, &b"no time\n"[..]));
    }

    #[test]
    fn after_a_break_only_what_is_newer_is_read_and_as_much_of_the_last_moment_as_was_not() {
        let mut skip = Skip { until: Some(at(5)), left: Some(2) };
        let told: Vec<bool> = [4, 5, 5, 5, 6].map(|second| !skip.skips(at(second))).into();
        assert_eq!(told, [false, false, false, true, true]);
        let mut all = Skip { until: Some(at(5)), left: None };
        assert!(all.skips(at(5)) && all.skips(at(5)) && !all.skips(at(6)));
        assert!(!Skip { until: None, left: None }.skips(at(1)));
    }
}
