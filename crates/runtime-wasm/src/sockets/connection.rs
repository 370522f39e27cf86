//! The two ways of a connection, as guests read and write them: never waiting, and told when it is worth another try.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use super::{BUFFER, Fault};
use crate::account::Held;
use crate::placement::Spawner;

/// How long what a guest wrote last may take to be taken after the guest has let the connection go.
const LINGER: Duration = Duration::from_secs(10);

/// Any stream of bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The way in.
pub(crate) struct Reader {
    /// `None`: nothing more is read.
    half: Option<ReadHalf<Box<dyn Stream>>>,
    /// What was read to see whether there is something.
    ahead: Bytes,
    broken: bool,
    _held: Arc<Held>,
}

/// The way out.
pub(crate) struct Writer {
    state: Writing,
    io: Spawner,
    held: Arc<Held>,
}

type Out = WriteHalf<Box<dyn Stream>>;

enum Writing {
    Idle(Out),
    /// The rest of what the guest wrote is on its way.
    Busy(JoinHandle<io::Result<Out>>),
    /// Nothing more is written.
    Closed,
    Broken,
}

/// Both ways of a connection; what it holds is given back when both are gone.
pub(super) fn split(stream: Box<dyn Stream>, held: Held, io: &Spawner) -> (Reader, Writer) {
    let (from, to) = tokio::io::split(stream);
    let held = Arc::new(held);
    let reader = Reader { half: Some(from), ahead: Bytes::new(), broken: false, _held: Arc::clone(&held) };
    (reader, Writer { state: Writing::Idle(to), io: io.clone(), held })
}

impl Reader {
    /// Ready when there is something to read, or the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ahead.is_empty() {
            return Poll::Ready(());
        }
        let Some(half) = &mut self.half else { return Poll::Ready(()) };
        let mut room = BytesMut::zeroed(BUFFER);
        let mut buffer = ReadBuf::new(&mut room);
        let read = ready!(Pin::new(half).poll_read(cx, &mut buffer));
        let count = buffer.filled().len();
        match read {
            Ok(()) if count > 0 => {
                room.truncate(count);
                self.ahead = room.freeze();
            }
            Ok(()) => self.half = None,
            Err(_) => {
                self.half = None;
                self.broken = true;
            }
        }
        Poll::Ready(())
    }

    /// At most so many bytes, none at the end.
    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<Bytes, Fault>> {
        ready!(self.poll_fill(cx));
        if self.ahead.is_empty() && self.broken {
            return Poll::Ready(Err(Fault::Broken));
        }
        Poll::Ready(Ok(self.ahead.split_to(max.min(self.ahead.len()))))
    }

    /// Reads no more.
    pub(crate) fn shut(&mut self) {
        (self.half, self.ahead, self.broken) = (None, Bytes::new(), false);
    }
}

impl Writer {
    /// Ready when something may be written, or nothing ever again.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if let Writing::Busy(task) = &mut self.state {
            self.state = match ready!(Pin::new(task).poll(cx)) {
                Ok(Ok(half)) => Writing::Idle(half),
                Ok(Err(_)) | Err(_) => Writing::Broken,
            };
        }
        Poll::Ready(match self.state {
            Writing::Idle(_) => Ok(()),
            Writing::Closed => Err(Fault::InvalidState),
            Writing::Busy(_) | Writing::Broken => Err(Fault::Broken),
        })
    }

    /// The most that may be written now; 0: wait until it is idle.
    pub(crate) fn room(&mut self) -> Result<usize, Fault> {
        match self.poll_idle(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Pending => Ok(0),
            Poll::Ready(Ok(())) => Ok(BUFFER),
            Poll::Ready(Err(fault)) => Err(fault),
        }
    }

    /// Writes all of it: at once what is taken at once, and the rest on its own.
    pub(crate) fn write(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        let mut half = match std::mem::replace(&mut self.state, Writing::Closed) {
            Writing::Idle(half) => half,
            other => {
                let fault = if matches!(other, Writing::Broken) { Fault::Broken } else { Fault::InvalidState };
                self.state = other;
                return Err(fault);
            }
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while bytes.has_remaining() {
            match Pin::new(&mut half).poll_write(&mut cx, &bytes) {
                Poll::Ready(Ok(count)) if count > 0 => bytes.advance(count),
                Poll::Ready(_) => {
                    self.state = Writing::Broken;
                    return Err(Fault::Broken);
                }
                Poll::Pending => {
                    let held = Arc::clone(&self.held);
                    self.state = Writing::Busy(self.io.spawn(async move {
                        let _held = held;
                        half.write_all(&bytes).await?;
                        half.flush().await?;
                        Ok(half)
                    }));
                    return Ok(());
                }
            }
        }
        let _ = Pin::new(&mut half).poll_flush(&mut cx);
        self.state = Writing::Idle(half);
        Ok(())
    }

    /// Writes as much as is taken at once.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Fault>> {
        ready!(self.poll_idle(cx))?;
        let Writing::Idle(half) = &mut self.state else { return Poll::Ready(Err(Fault::Broken)) };
        match ready!(Pin::new(&mut *half).poll_write(cx, bytes)) {
            Ok(count) if count > 0 => {
                let _ = Pin::new(half).poll_flush(cx);
                Poll::Ready(Ok(count))
            }
            _ => {
                self.state = Writing::Broken;
                Poll::Ready(Err(Fault::Broken))
            }
        }
    }

    /// Writes no more: the other side reads the end behind what was written.
    pub(crate) fn shut(&mut self) {
        let state = std::mem::replace(&mut self.state, Writing::Closed);
        let held = Arc::clone(&self.held);
        match state {
            Writing::Idle(half) => _ = self.io.spawn(async move { end(half, held).await }),
            Writing::Busy(task) => {
                self.io.spawn(async move {
                    let abort = task.abort_handle();
                    match tokio::time::timeout(LINGER, task).await {
                        Ok(Ok(Ok(half))) => end(half, held).await,
                        _ => abort.abort(),
                    }
                });
            }
            Writing::Closed | Writing::Broken => self.state = state,
        }
    }
}

/// What was written last has its time, and then the connection ends.
impl Drop for Writer {
    fn drop(&mut self) {
        if matches!(self.state, Writing::Busy(_)) {
            self.shut();
        }
    }
}

async fn end(mut half: Out, _held: Arc<Held>) {
    let _ = tokio::time::timeout(LINGER, half.shutdown()).await;
}
