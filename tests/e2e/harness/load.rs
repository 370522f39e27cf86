//! Load: clients that ask again and again, one request after the other, and keep what was no answer.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many more requests a client makes when it is told to end: what it waits for may still be on its way.
const MORE_MAX: u32 = 1000;
/// What a client waits after a failure, so that a refusal does not become a thousand.
const PAUSE: Duration = Duration::from_millis(10);

/// How a client treats its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// Each request has one of its own.
    OneARequest,
    /// It is kept, and no end of it is forgiven that was not announced.
    KeptAlive,
    /// It is kept; one that was closed while it was idle is made anew, as HTTP's clients do: a server may close it at any time.
    MadeAnew,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// `ADDRESS:PORT`.
    pub(crate) address: String,
    pub(crate) path: &'static str,
    pub(crate) connections: Connections,
}

/// Clients at work.
pub(crate) struct Load {
    /// What the last answer of each has to have in it.
    end: Arc<OnceLock<String>>,
    clients: Vec<JoinHandle<Answers>>,
}

/// What one client was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) count: u64,
    /// Requests without an answer of code 200: when, since the client began, and what came instead.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Lets clients ask, once each of them has had an answer.
    #[track_caller]
    pub(crate) fn begin(clients: impl IntoIterator<Item = Client>) -> Self {
        let end = Arc::<OnceLock<String>>::default();
        let (sender, answered) = mpsc::channel();
        let clients: Vec<_> = clients
            .into_iter()
            .map(|client| {
                let (end, sender) = (Arc::clone(&end), sender.clone());
                thread::spawn(move || client.ask_until(&end, &sender))
            })
            .collect();
        for _ in &clients {
            answered.recv_timeout(PATIENCE).expect("every client has an answer");
        }
        Self { end, clients }
    }

    /// Ends it: each client asks on until an answer has this text in it.
    #[track_caller]
    pub(crate) fn end(self, text: &str) -> Vec<Answers> {
        let _ = self.end.set(text.to_owned());
        self.clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
    }
}

impl Client {
    fn ask_until(&self, end: &OnceLock<String>, answered: &mpsc::Sender<()>) -> Answers {
        let (mut answers, began) = (Answers::default(), Instant::now());
        let mut connection = None;
        let mut more = MORE_MAX;
        loop {
            let asked = Instant::now();
            match self.ask(&mut connection) {
                Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => {
                    if answers.first.is_empty() {
                        answers.first.clone_from(&answer);
                        let _ = answered.send(());
                    }
                    answers.last = answer;
                    answers.count += 1;
                }
                other => {
                    let why = other.unwrap_or_else(|error| error.to_string());
                    answers.failures.push(format!("after {:?}: {why}", asked.duration_since(began)));
                    connection = None;
                    thread::sleep(PAUSE);
                }
            }
            if let Some(text) = end.get() {
                more -= 1;
                if more == 0 || answers.last.contains(text) {
                    return answers;
                }
            }
        }
    }

    /// One request; the connection is kept where it may be.
    fn ask(&self, connection: &mut Option<TcpStream>) -> std::io::Result<String> {
        if let Some(stream) = connection.take() {
            match self.ask_over(stream, connection) {
                Err(Broken { began: false, .. }) if self.connections == Connections::MadeAnew => {}
                asked => return asked.map_err(|broken| broken.error),
            }
        }
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        self.ask_over(stream, connection).map_err(|broken| broken.error)
    }

    fn ask_over(&self, mut stream: TcpStream, connection: &mut Option<TcpStream>) -> Result<String, Broken> {
        let closes = if self.connections == Connections::OneARequest { "connection: close\r\n" } else { "" };
        let request = format!("GET {} HTTP/1.1\r\nhost: express-api\r\n{closes}\r\n", self.path);
        stream.write_all(request.as_bytes()).map_err(|error| Broken { began: false, error })?;
        let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
        while !is_whole(&answer) {
            let began = !answer.is_empty();
            let count = stream.read(&mut piece).map_err(|error| Broken { began, error })?;
            if count == 0 {
                let text = format!("the answer ends after {:?}", String::from_utf8_lossy(&answer));
                return Err(Broken { began, error: std::io::Error::other(text) });
            }
            answer.extend_from_slice(&piece[..count]);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let is_closed = answer.to_lowercase().contains("\r\nconnection: close\r\n");
        if self.connections != Connections::OneARequest && !is_closed {
            *connection = Some(stream);
        }
        Ok(answer)
    }
}

/// A connection without a whole answer.
struct Broken {
    /// Whether there was a byte of it.
    began: bool,
    error: std::io::Error,
}

/// Whether an answer is there to its end: by its length, or in pieces with the last.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    };
    match head.lines().find_map(field) {
        Some(length) => body.len() >= length,
        None => body.ends_with("0\r\n\r\n"),
    }
}

/// Asks so many times, shared out among the addresses, each time over a connection of its own; how often each pod has answered.
#[track_caller]
pub(crate) fn count_answers(addresses: &[String], requests: usize) -> BTreeMap<String, usize> {
    let asking = addresses.iter().enumerate().map(|(place, address)| {
        let (address, share) = (address.clone(), (requests + place) / addresses.len());
        thread::spawn(move || {
            let mut counts = BTreeMap::<String, usize>::new();
            for _ in 0..share {
                let page = super::http_get(&address, "/")?;
                let (_, pod) = page.split_once("served by ").ok_or_else(|| page.clone())?;
                let pod: String = pod.split_whitespace().next().unwrap_or_default().to_owned();
                *counts.entry(pod).or_default() += 1;
            }
            Ok::<_, String>(counts)
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut all = BTreeMap::new();
    for counts in asking {
        let counts: BTreeMap<String, usize> =
            counts.join().expect("it does not panic").expect("every request is answered");
        for (pod, count) in counts {
            *all.entry(pod).or_default() += count;
        }
    }
    all
}
