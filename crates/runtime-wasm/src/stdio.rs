//! A guest's standard output and error, handed to the host as they are written.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use coracle_node::runtime::{ContainerId, LogStream, RuntimeHost};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::flow::Flow;

/// The most a guest may write at once.
const WRITE_MAX: usize = 64 << 10;

/// The most clients that are attached to a container at one time: a further one is in the first one's place.
const ATTACHED_MAX: usize = 16;

/// The clients that are attached to a container. A guest waits for the slowest of them, as it does for a terminal.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    any: AtomicBool,
    attached: Mutex<Vec<(LogStream, Flow)>>,
}

impl Outputs {
    /// Another client reads one of the outputs from now on.
    pub(crate) fn add(&self, stream: LogStream, flow: Flow) {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if attached.len() >= ATTACHED_MAX {
            attached.remove(0).1.end();
        }
        attached.push((stream, flow));
        self.any.store(true, Ordering::Release);
    }

    /// The queues of one output, without those that nobody reads any more.
    fn of(&self, stream: LogStream) -> Vec<Flow> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        attached.retain(|(_, flow)| flow.room().is_some());
        self.any.store(!attached.is_empty(), Ordering::Release);
        attached.iter().filter(|(of, _)| *of == stream).map(|(_, flow)| flow.clone()).collect()
    }

    /// The container has written its last.
    pub(crate) fn end(&self) {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|(_, flow)| flow.end());
    }
}

/// One of a container's outputs.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    host: Arc<dyn RuntimeHost>,
    container: ContainerId,
    stream: LogStream,
    outputs: Arc<Outputs>,
}

impl Log {
    pub(crate) fn new(
        host: Arc<dyn RuntimeHost>,
        container: ContainerId,
        stream: LogStream,
        outputs: Arc<Outputs>,
    ) -> Self {
        Self { host, container, stream, outputs }
    }

    fn put(&self, bytes: &[u8]) {
        self.host.log(&self.container, self.stream, bytes);
        for flow in self.outputs.of(self.stream) {
            flow.put(bytes);
        }
    }

    /// Waits until whoever is attached takes more.
    pub(crate) async fn writable(&self) {
        for flow in self.outputs.of(self.stream) {
            flow.writable().await;
        }
    }

    /// Writes a line of the runtime's own.
    pub(crate) fn line(&self, text: &str) {
        self.put(format!("{}\n", text.trim_end()).as_bytes());
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
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        // Whoever is attached and reads nothing holds the guest up.
        Ok(self.outputs.of(self.stream).iter().filter_map(Flow::room).fold(WRITE_MAX, usize::min))
    }
}

impl Pollable for Log {
    fn ready<'life, 'future>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        let flows = self.outputs.of(self.stream);
        Box::pin(async move {
            for flow in flows {
                flow.writable().await;
            }
        })
    }
}

impl AsyncWrite for Log {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
