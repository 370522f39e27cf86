//! Clients that do not take what is sent to them: a connection on which nothing moves for too long is closed.
//!
//! There are two ways to stall. Bytes that the operating system does not take any more are seen here by the writer ([`Watched`]). A stream
//! of HTTP/2 whose window is never opened again, while the connection answers pings, is seen by its body, which is not asked for more
//! ([`Moving`]); whoever serves the connection looks at [`Movement::is_stalled`] now and then.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How the bodies of one connection move.
#[derive(Debug, Default)]
pub(crate) struct Movement {
    /// Bodies that gave something and were not asked for more, and since when.
    given: Mutex<Given>,
    /// The connection has become a tunnel, whose two ends may be as slow as they are.
    is_tunnel: AtomicBool,
}

#[derive(Debug, Default)]
struct Given {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

impl Movement {
    /// Whether a body waits for longer than this to be asked for more.
    pub(crate) fn is_stalled(&self, longest: Duration) -> bool {
        self.lock().since.values().any(|since| since.elapsed() > longest)
    }

    /// From here on nothing stalls.
    pub(crate) fn become_tunnel(&self) {
        self.is_tunnel.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.given.lock().expect("nothing panics while it holds the lock")
    }
}

/// A body that says when it moves.
pub(crate) struct Moving {
    body: Body,
    id: u64,
    movement: Arc<Movement>,
}

impl Moving {
    pub(crate) fn new(body: Body, movement: Arc<Movement>) -> Self {
        let mut given = movement.lock();
        given.next += 1;
        let id = given.next;
        drop(given);
        Self { body, id, movement }
    }
}

impl HttpBody for Moving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.movement.lock().since.remove(&self.id);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_some() {
            self.movement.lock().since.insert(self.id, Instant::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.movement.lock().since.remove(&self.id);
    }
}

/// A connection whose writes must go on.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    movement: Arc<Movement>,
    longest: Duration,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, movement: Arc<Movement>, longest: Duration) -> Self {
        Self { stream, movement, longest, deadline: None }
    }

    /// What a write came to, unless it has waited for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.movement.is_tunnel.load(Ordering::Relaxed) {
            self.deadline = None;
            return written;
        }
        let longest = self.longest;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(longest)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take what is sent to it")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LONGEST: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_ends_the_connection_and_a_slow_one_does_not() {
        let (mut client, server) = tokio::io::duplex(16);
        let mut server = Watched::new(server, Arc::default(), LONGEST);
        let slow = tokio::spawn(async move {
            let mut piece = [0; 16];
            for _ in 0..4 {
                tokio::time::sleep(LONGEST.mul_f64(0.9)).await;
                client.read_exact(&mut piece).await.unwrap();
            }
            client
        });
        server.write_all(&[7; 64]).await.unwrap();
        let client = slow.await.unwrap();
        server.write_all(&[7; 16]).await.unwrap();
        let error = server.write_all(&[7; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_may_be_as_slow_as_its_ends() {
        let (mut client, server) = tokio::io::duplex(16);
        let movement = Arc::new(Movement::default());
        movement.become_tunnel();
        let mut server = Watched::new(server, movement, LONGEST);
        let writing = tokio::spawn(async move { server.write_all(&[7; 32]).await });
        tokio::time::sleep(10 * LONGEST).await;
        client.read_exact(&mut [0; 32]).await.unwrap();
        writing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_not_asked_for_more_stalls_and_one_that_has_nothing_does_not() {
        let movement = Arc::new(Movement::default());
        let frames = futures_util::stream::iter([Ok::<_, io::Error>("a"), Ok("b")]);
        let endless = futures_util::StreamExt::chain(frames, futures_util::stream::pending());
        let mut body = Moving::new(Body::from_stream(endless), Arc::clone(&movement));
        let _ = body.frame().await.unwrap();
        tokio::time::sleep(LONGEST / 2).await;
        assert!(!movement.is_stalled(LONGEST));
        tokio::time::sleep(LONGEST).await;
        assert!(movement.is_stalled(LONGEST));
        let _ = body.frame().await.unwrap();
        assert!(!movement.is_stalled(LONGEST));
        // It waits for the next event, and so may the client.
        assert!(tokio::time::timeout(2 * LONGEST, body.frame()).await.is_err());
        assert!(!movement.is_stalled(LONGEST));
        drop(body);
        assert!(!movement.is_stalled(Duration::ZERO));
    }
}
