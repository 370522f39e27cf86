//! A socket before that of Docker Engine: what passes is not touched, and it is noted while the Engine has a request to answer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What the Engine was asked and not answered yet, and for how long in all there was something.
#[derive(Debug, Default)]
struct Account {
    waiting: usize,
    since: Option<Instant>,
    busy: Duration,
    requests: u64,
}

impl Account {
    fn asked(&mut self) {
        self.requests += 1;
        self.waiting += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    fn answered(&mut self) {
        self.waiting -= 1;
        if self.waiting == 0
            && let Some(since) = self.since.take()
        {
            self.busy += since.elapsed();
        }
    }
}

/// The socket. It is gone with the value.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) socket: PathBuf,
    account: Arc<Mutex<Account>>,
    serving: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Relay {
    pub(crate) fn new(directory: &Path, to: &'static str) -> std::io::Result<Self> {
        let socket = directory.join("engine.sock");
        let listener = UnixListener::bind(&socket)?;
        let account: Arc<Mutex<Account>> = Arc::default();
        let noted = Arc::clone(&account);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(engine) = UnixStream::connect(to).await else { continue };
                // The Engine answers a connection's requests one after the other, and a client waits for each answer.
                let waits = Arc::new(Mutex::new(false));
                let ((from_client, to_client), (from_engine, to_engine)) = (client.into_split(), engine.into_split());
                let (account, asks) = (Arc::clone(&noted), Arc::clone(&waits));
                tokio::spawn(pass(from_client, to_engine, move || {
                    if !std::mem::replace(&mut *lock(&asks), true) {
                        lock(&account).asked();
                    }
                }));
                let account = Arc::clone(&noted);
                tokio::spawn(pass(from_engine, to_client, move || {
                    if std::mem::take(&mut *lock(&waits)) {
                        lock(&account).answered();
                    }
                }));
            }
        });
        Ok(Self { socket, account, serving })
    }

    /// For how long the Engine had something to answer, and how often it was asked, since the last look.
    pub(crate) fn settle(&self) -> (Duration, u64) {
        let mut account = lock(&self.account);
        let running = account.since.map_or(Duration::ZERO, |since| since.elapsed());
        account.since = account.since.map(|_| Instant::now());
        (std::mem::take(&mut account.busy) + running, std::mem::take(&mut account.requests))
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes what comes on, and says each time that something came.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, came: impl Fn()) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        came();
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
