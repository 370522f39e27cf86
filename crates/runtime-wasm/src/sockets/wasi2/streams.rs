//! The ways of a connection as `wasi:io` streams.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::{Waiting, now};
use crate::sockets::Fault;
use crate::sockets::connection::{Reader, Writer};

/// A connection's way in, which its socket can shut.
#[derive(Clone)]
pub(super) struct In(Arc<Mutex<Reader>>);

/// Its way out.
#[derive(Clone)]
pub(super) struct Out(Arc<Mutex<Writer>>);

impl In {
    pub(super) fn new(reader: Reader) -> Self {
        Self(Arc::new(Mutex::new(reader)))
    }

    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shut(&self) {
        self.lock().shut();
    }
}

impl Out {
    pub(super) fn new(writer: Writer) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shut(&self) {
        self.lock().shut();
    }
}

fn failed(fault: Fault) -> StreamError {
    match fault {
        Fault::InvalidState => StreamError::Closed,
        fault => StreamError::LastOperationFailed(wasmtime::Error::new(fault)),
    }
}

impl InputStream for In {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match now(|cx| self.lock().poll_take(cx, size)) {
            Poll::Pending => Ok(Bytes::new()),
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => Err(StreamError::Closed),
            Poll::Ready(Ok(bytes)) => Ok(bytes),
            Poll::Ready(Err(fault)) => Err(failed(fault)),
        }
    }
}

impl Pollable for In {
    fn ready<'life, 'future>(&'life mut self) -> Waiting<'future>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::poll_fn(|cx| self.lock().poll_fill(cx)))
    }
}

impl OutputStream for Out {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut writer = self.lock();
        if bytes.len() > writer.room().map_err(failed)? {
            return Err(StreamError::Trap(wasmtime::Error::msg("the guest writes more than it may at once")));
        }
        writer.write(bytes).map_err(failed)
    }

    /// What was written goes on by itself.
    fn flush(&mut self) -> StreamResult<()> {
        self.lock().room().map(drop).map_err(failed)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.lock().room().map_err(failed)
    }
}

impl Pollable for Out {
    fn ready<'life, 'future>(&'life mut self) -> Waiting<'future>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::poll_fn(|cx| self.lock().poll_idle(cx).map(drop)))
    }
}
