//! Bytes between a client and a guest: a bounded queue with a guest's end and a client's.
//!
//! The guest's end is a stream of WASI, the client's one of the port. Who finds the queue full waits.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// The most bytes that wait in a queue.
const CAPACITY: usize = 64 << 10;
/// The most that wait to be woken by one end: a guest may poll a stream many times.
const WAITERS_MAX: usize = 64;

/// A queue; each clone is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Nothing more will come.
    ended: bool,
    /// Nobody reads.
    deaf: bool,
    waiting: Vec<Waker>,
}

impl State {
    fn wait(&mut self, waker: &Waker) {
        if self.waiting.iter().any(|known| known.will_wake(waker)) {
            return;
        }
        if self.waiting.len() >= WAITERS_MAX {
            // Woken for nothing, it asks again.
            self.waiting.remove(0).wake();
        }
        self.waiting.push(waker.clone());
    }

    fn changed(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.bytes.len())
    }

    fn take(&mut self, count: usize) -> Bytes {
        let taken = self.bytes.drain(..count.min(self.bytes.len())).collect();
        self.changed();
        taken
    }
}

impl Flow {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more will be written.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.changed();
    }

    fn leave(&self) {
        let mut state = self.lock();
        state.deaf = true;
        state.bytes.clear();
        state.changed();
    }

    /// How much may be written now; `None`: nobody reads any more.
    pub(crate) fn room(&self) -> Option<usize> {
        let state = self.lock();
        (!state.deaf && !state.ended).then(|| state.room())
    }

    /// Writes, whether there is room or not: who writes has asked before.
    pub(crate) fn put(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if !state.deaf && !state.ended {
            state.bytes.extend(bytes);
            state.changed();
        }
    }

    /// Waits until there is room or nobody reads.
    pub(crate) async fn writable(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.lock();
            if state.deaf || state.ended || state.room() > 0 {
                return Poll::Ready(());
            }
            state.wait(context.waker());
            Poll::Pending
        })
        .await;
    }

    /// Whether there is room for so many bytes, or nobody who reads them; asks to be woken when not.
    pub(crate) fn poll_room(&self, context: &Context<'_>, bytes: usize) -> bool {
        let mut state = self.lock();
        let there = state.deaf || state.ended || state.room() >= bytes;
        if !there {
            state.wait(context.waker());
        }
        there
    }

    /// All that is in it.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> Vec<u8> {
        self.lock().take(usize::MAX).to_vec()
    }

    fn poll_take(&self, context: &Context<'_>, count: usize) -> Poll<Bytes> {
        let mut state = self.lock();
        if state.bytes.is_empty() && !state.ended {
            state.wait(context.waker());
            return Poll::Pending;
        }
        Poll::Ready(state.take(count))
    }

    fn poll_put(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if state.deaf || state.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = state.room().min(bytes.len());
        if count == 0 && !bytes.is_empty() {
            state.wait(context.waker());
            return Poll::Pending;
        }
        state.bytes.extend(&bytes[..count]);
        state.changed();
        Poll::Ready(Ok(count))
    }
}

/// The client's end of what a guest writes.
#[derive(Debug)]
pub(crate) struct FromGuest(pub(crate) Flow);

impl futures_io::AsyncRead for FromGuest {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll_take(context, buffer.len()).map(|bytes| {
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        })
    }
}

impl Drop for FromGuest {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// The client's end of what a guest reads.
#[derive(Debug)]
pub(crate) struct ToGuest(pub(crate) Flow);

impl futures_io::AsyncWrite for ToGuest {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_put(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ToGuest {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The end of one of the clients that write what a guest reads: the next one goes on where it left.
#[derive(Debug)]
pub(crate) struct Attached(pub(crate) Flow);

impl futures_io::AsyncWrite for Attached {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_put(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A guest's standard input.
#[derive(Clone, Debug)]
pub(crate) struct GuestIn {
    pub(crate) flow: Flow,
    /// Whether the guest is to take it for a terminal.
    pub(crate) terminal: bool,
}

impl IsTerminal for GuestIn {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdinStream for GuestIn {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

impl InputStream for GuestIn {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut state = self.flow.lock();
        if state.bytes.is_empty() && state.ended {
            return Err(StreamError::Closed);
        }
        Ok(state.take(size))
    }
}

impl Pollable for GuestIn {
    fn ready<'life, 'future>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::poll_fn(|context| {
            let mut state = self.flow.lock();
            if !state.bytes.is_empty() || state.ended {
                return Poll::Ready(());
            }
            state.wait(context.waker());
            Poll::Pending
        }))
    }
}

impl AsyncRead for GuestIn {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.flow.poll_take(context, buffer.remaining()).map(|bytes| {
            buffer.put_slice(&bytes);
            Ok(())
        })
    }
}

/// One of a guest's outputs.
#[derive(Clone, Debug)]
pub(crate) struct GuestOut {
    pub(crate) flow: Flow,
    /// Whether the guest is to take it for a terminal, whose lines end with a carriage return as well.
    pub(crate) terminal: bool,
}

impl GuestOut {
    fn put(&self, bytes: &[u8]) {
        if self.terminal { self.flow.put(&with_returns(bytes)) } else { self.flow.put(bytes) }
    }
}

fn with_returns(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8);
    for byte in bytes {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

impl IsTerminal for GuestOut {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdoutStream for GuestOut {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestOut {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.flow.room().ok_or(StreamError::Closed)
    }
}

impl Pollable for GuestOut {
    fn ready<'life, 'future>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(self.flow.writable())
    }
}

impl AsyncWrite for GuestOut {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.flow.poll_put(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::compat::{FuturesAsyncReadCompatExt as _, FuturesAsyncWriteCompatExt as _};

    use super::*;

    #[tokio::test]
    async fn what_a_guest_writes_arrives_in_order_however_slowly_it_is_read() {
        let flow = Flow::default();
        let (mut out, mut client) =
            (GuestOut { flow: flow.clone(), terminal: false }, FromGuest(flow.clone()).compat());
        let sent: Vec<u8> = (0..3 * CAPACITY).map(|number| number as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            out.write_all(&sent).await.unwrap();
            out.flow.end();
        });
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        writer.await.unwrap();
        assert!(read == expected);
    }

    #[tokio::test]
    async fn a_guest_reads_what_a_client_wrote_and_then_the_end() {
        let flow = Flow::default();
        let mut client = ToGuest(flow.clone()).compat_write();
        client.write_all(b"hello").await.unwrap();
        drop(client);
        let mut read = String::new();
        GuestIn { flow, terminal: false }.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
    }

    #[test]
    fn a_guest_whose_client_is_gone_finds_its_output_closed() {
        let flow = Flow::default();
        drop(FromGuest(flow.clone()));
        assert!(matches!(GuestOut { flow, terminal: false }.check_write(), Err(StreamError::Closed)));
    }

    #[test]
    fn a_terminals_lines_end_with_a_return() {
        assert_eq!(with_returns(b"a\nb"), b"a\r\nb");
    }
}
