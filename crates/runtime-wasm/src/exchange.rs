//! What a connection of a service is at: whether a service that ends leaves a request unanswered that it has begun.
//!
//! HTTP has no word for "I have not seen your request" when a server closes an idle connection just as the next request comes.
//! In one process there can be one: [`Drained`](coracle_node::runtime::Drained), which this decides about.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use wasmtime_wasi_http::WasiBody;

/// The requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    /// Request bodies that are not read to their end, and responses that are not all written.
    open: AtomicUsize,
    /// The connection was idle when its service began to end, and no request was begun since.
    drained: AtomicBool,
}

impl Exchanges {
    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Exchange {
        self.drained.store(false, Ordering::Release);
        self.open.fetch_add(1, Ordering::AcqRel);
        Exchange(Arc::clone(self))
    }

    /// The request's body. One that is not read to its end leaves its rest on the connection, which then never is idle again.
    pub(crate) fn request(self: &Arc<Self>, body: Incoming) -> Asked {
        let exchanges = (!body.is_end_stream()).then(|| {
            self.open.fetch_add(1, Ordering::AcqRel);
            Arc::clone(self)
        });
        Asked { body, exchanges }
    }

    /// The service begins to end. Before the connection is closed, so that who sees the close sees this too.
    pub(crate) fn drain(&self) {
        self.drained.store(self.open.load(Ordering::Acquire) == 0, Ordering::Release);
    }

    /// Whether the close of the connection left nothing that was begun.
    pub(crate) fn are_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }
}

/// A request that was begun and is not answered; it is over when this, or the response's body, is dropped.
#[derive(Debug)]
pub(crate) struct Exchange(Arc<Exchanges>);

impl Exchange {
    pub(crate) fn response(self, body: WasiBody) -> Answered {
        Answered { body, _exchange: self }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Asked {
    body: Incoming,
    /// Until it is read to its end.
    exchanges: Option<Arc<Exchanges>>,
}

impl Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(exchanges) = self.exchanges.take()
        {
            exchanges.open.fetch_sub(1, Ordering::AcqRel);
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

/// The body of a response.
#[derive(Debug)]
pub(crate) struct Answered {
    body: WasiBody,
    _exchange: Exchange,
}

impl Body for Answered {
    type Data = <WasiBody as Body>::Data;
    type Error = <WasiBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
