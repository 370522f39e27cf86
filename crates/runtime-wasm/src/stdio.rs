//! A guest's standard output and error, handed to the host as they are written.

use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use coracle_node::runtime::{ContainerId, LogStream, RuntimeHost};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// The most a guest may write at once.
const WRITE_MAX: usize = 64 << 10;

/// One of a container's outputs.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    host: Arc<dyn RuntimeHost>,
    container: ContainerId,
    stream: LogStream,
}

impl Log {
    pub(crate) fn new(host: Arc<dyn RuntimeHost>, container: ContainerId, stream: LogStream) -> Self {
        Self { host, container, stream }
    }

    /// Writes a line of the runtime's own.
    pub(crate) fn line(&self, text: &str) {
        self.host.log(&self.container, self.stream, format!("{}\n", text.trim_end()).as_bytes());
    }
}

impl IsTerminal for Log {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Log {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    /// Written through at once: a buffer would lose a crashing guest's last words.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Log {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.host.log(&self.container, self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX)
    }
}

impl Pollable for Log {
    fn ready<'life, 'future>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(ready(()))
    }
}

impl AsyncWrite for Log {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.host.log(&self.container, self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
