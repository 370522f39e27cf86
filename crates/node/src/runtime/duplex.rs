//! A two-way byte stream in memory: what an in-process connection is made of.
//!
//! Each direction is a bounded queue. A reader that stops reading stops the writer, so a stream holds at most twice its capacity.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_io::{AsyncRead, AsyncWrite};

use super::ByteStream;

/// Two ends of a stream: what is written at one is read at the other, at most `capacity` bytes (at least one) ahead in each direction.
///
/// Closing an end lets the other read what was written and then end of file; dropping it also fails the other's writes.
pub fn duplex(capacity: usize) -> (ByteStream, ByteStream) {
    let there = Arc::new(Queue::new(capacity));
    let back = Arc::new(Queue::new(capacity));
    let near = End { read: Arc::clone(&back), write: Arc::clone(&there) };
    let far = End { read: there, write: back };
    (Box::pin(near), Box::pin(far))
}

/// One direction.
#[derive(Debug)]
struct Queue {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Nothing more will be written.
    write_closed: bool,
    /// Nobody will read.
    read_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Queue {
    fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A queue of bytes is whole after every statement, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_write(&self) {
        let reader = {
            let mut state = self.lock();
            state.write_closed = true;
            state.reader.take()
        };
        wake(reader);
    }

    fn close_read(&self) {
        let writer = {
            let mut state = self.lock();
            state.read_closed = true;
            state.bytes.clear();
            state.writer.take()
        };
        wake(writer);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[derive(Debug)]
struct End {
    read: Arc<Queue>,
    write: Arc<Queue>,
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        let (count, writer) = {
            let mut state = self.read.lock();
            if state.bytes.is_empty() {
                if state.write_closed || buffer.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                state.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = buffer.len().min(state.bytes.len());
            for (target, byte) in buffer.iter_mut().zip(state.bytes.drain(..count)) {
                *target = byte;
            }
            (count, state.writer.take())
        };
        wake(writer);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let (count, reader) = {
            let mut state = self.write.lock();
            if state.read_closed || state.write_closed {
                return Poll::Ready(Err(Error::from(ErrorKind::BrokenPipe)));
            }
            let room = self.write.capacity - state.bytes.len();
            if room == 0 && !bytes.is_empty() {
                state.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            let count = room.min(bytes.len());
            state.bytes.extend(&bytes[..count]);
            (count, state.reader.take())
        };
        wake(reader);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.write.close_write();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.write.close_write();
        self.read.close_read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(end: &mut ByteStream, bytes: &[u8]) -> Poll<Result<usize>> {
        end.as_mut().poll_write(&mut Context::from_waker(Waker::noop()), bytes)
    }

    fn read(end: &mut ByteStream) -> Poll<Result<Vec<u8>>> {
        let mut buffer = [0; 16];
        end.as_mut()
            .poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer)
            .map_ok(|count| buffer[..count].to_vec())
    }

    #[test]
    fn a_full_queue_stops_the_writer_until_somebody_reads() {
        let (mut near, mut far) = duplex(4);
        assert!(matches!(write(&mut near, b"abcdef"), Poll::Ready(Ok(4))));
        assert!(write(&mut near, b"ef").is_pending());
        assert!(matches!(read(&mut far), Poll::Ready(Ok(bytes)) if bytes == b"abcd"));
        assert!(read(&mut far).is_pending());
        assert!(matches!(write(&mut near, b"ef"), Poll::Ready(Ok(2))));
    }

    #[test]
    fn a_dropped_end_is_end_of_file_for_the_other_and_fails_its_writes() {
        let (mut near, mut far) = duplex(4);
        assert!(matches!(write(&mut near, b"x"), Poll::Ready(Ok(1))));
        drop(near);
        assert!(matches!(read(&mut far), Poll::Ready(Ok(bytes)) if bytes == b"x"));
        assert!(matches!(read(&mut far), Poll::Ready(Ok(bytes)) if bytes.is_empty()));
        assert!(matches!(write(&mut far, b"y"), Poll::Ready(Err(error)) if error.kind() == ErrorKind::BrokenPipe));
    }
}
