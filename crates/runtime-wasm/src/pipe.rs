//! Byte streams: tokio's on this side of the port, `futures_io`'s on the other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use coracle_node::runtime::{ByteStream, Drained};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::exchange::Exchanges;

/// Bytes in flight each way before the writer waits.
const BUFFER: usize = 64 << 10;

/// Two connected ends: one for the other side of the port, one for here, whose requests are counted.
pub(crate) fn pair(exchanges: &Arc<Exchanges>) -> (ByteStream, DuplexStream) {
    let (stream, ours) = tokio::io::duplex(BUFFER);
    (Box::pin(Outside { stream, exchanges: Arc::clone(exchanges) }), ours)
}

/// A stream of ours as the port wants it.
struct Outside {
    stream: DuplexStream,
    exchanges: Arc<Exchanges>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.exchanges.leave();
    }
}

impl futures_io::AsyncRead for Outside {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let room = bytes.len();
        let mut buffer = ReadBuf::new(bytes);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        match buffer.filled().len() {
            0 if room > 0 && self.exchanges.are_drained() => Poll::Ready(Err(Drained.into())),
            read => Poll::Ready(Ok(read)),
        }
    }
}

impl futures_io::AsyncWrite for Outside {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
            Err(_) if self.exchanges.are_drained() => Poll::Ready(Err(Drained.into())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A stream of the port as tokio and hyper want it.
pub(crate) struct Inside(pub(crate) ByteStream);

impl AsyncRead for Inside {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(self.0.as_mut().poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inside {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_close(cx)
    }
}
