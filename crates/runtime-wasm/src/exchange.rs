//! What a connection of a service is at: whether a service that ends leaves a request unanswered that it has begun.
//!
//! HTTP has no word for "I have not seen your request" when a server closes an idle connection just as the next request comes.
//! In one process there can be one: [`Drained`](coracle_node::runtime::Drained), which this decides about.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wasmtime_wasi_http::WasiBody;

/// How much is read of a request's body that the guest leaves unread, so that the connection can go on: Go's own figure.
const UNREAD_MAX: usize = 256 << 10;

/// The requests of one connection. It is changed by the connection's own task, which closes it too, so that who sees the
/// close sees all of this.
#[derive(Debug, Default)]
pub(crate) struct Exchanges {
    /// Request bodies that are not read to their end, and requests that are not answered to the end.
    open: AtomicUsize,
    /// The service ends.
    ending: AtomicBool,
    /// The client expects the close: it was told of it or asked for it; or an answer broke off.
    expected: AtomicBool,
    /// The client has let the connection go.
    left: Notify,
}

impl Exchanges {
    /// The client reads and writes no more.
    pub(crate) fn leave(&self) {
        self.left.notify_one();
    }

    /// Ends when it does.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }

    /// A request begins.
    pub(crate) fn begin<B>(self: &Arc<Self>, request: &Request<B>) -> Exchange {
        self.open.fetch_add(1, Ordering::AcqRel);
        let asks = |value: &http::HeaderValue| value.to_str().is_ok_and(|text| text.to_lowercase().contains("close"));
        let asks_for_close = request.headers().get_all(http::header::CONNECTION).iter().any(asks);
        if request.version() < Version::HTTP_11 || asks_for_close {
            self.expected.store(true, Ordering::Release);
        }
        Exchange { exchanges: Arc::clone(self), head: request.method() == Method::HEAD, answered: false }
    }

    /// The request's body.
    pub(crate) fn request(self: &Arc<Self>, body: Incoming) -> Asked {
        let exchanges = (!body.is_end_stream()).then(|| {
            self.open.fetch_add(1, Ordering::AcqRel);
            Arc::clone(self)
        });
        Asked { body: Some(body), exchanges }
    }

    /// The service begins to end: before the connection does.
    pub(crate) fn drain(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Whether the connection was closed because its service ends, behind whole answers and before a request was begun,
    /// and the client cannot know.
    pub(crate) fn are_drained(&self) -> bool {
        self.ending.load(Ordering::Acquire)
            && !self.expected.load(Ordering::Acquire)
            && self.open.load(Ordering::Acquire) == 0
    }
}

/// A request that was begun. Dropped before it was answered to the end, it has broken off.
#[derive(Debug)]
pub(crate) struct Exchange {
    exchanges: Arc<Exchanges>,
    head: bool,
    answered: bool,
}

impl Exchange {
    /// Its response, at the moment at which it is sent.
    pub(crate) fn response(mut self, response: Response<WasiBody>) -> Response<Answered> {
        if self.exchanges.ending.load(Ordering::Acquire) {
            // From now on every response says `connection: close`.
            self.exchanges.expected.store(true, Ordering::Release);
        }
        let bodyless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.answered = self.head || bodyless || response.body().is_end_stream();
        response.map(|body| Answered { body, exchange: self })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            self.exchanges.expected.store(true, Ordering::Release);
        }
        self.exchanges.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Until it is dropped.
    body: Option<Incoming>,
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
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if (frame.is_none() || body.is_end_stream())
            && let Some(exchanges) = this.exchanges.take()
        {
            exchanges.open.fetch_sub(1, Ordering::AcqRel);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// A body that the guest leaves unread is read to its end. If it were dropped, the connection would be closed behind the
/// answer, and a client that has not been told would lose its next request.
impl Drop for Asked {
    fn drop(&mut self) {
        let (Some(exchanges), Some(body)) = (self.exchanges.take(), self.body.take()) else { return };
        // Without one the runtime is going, and its connections with it.
        let Ok(handle) = Handle::try_current() else { return };
        let mut rest = Asked { body: Some(body), exchanges: Some(exchanges) };
        handle.spawn(async move {
            let mut read = 0;
            while read <= UNREAD_MAX {
                match rest.frame().await {
                    Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) | None => break,
                }
            }
            // Too much: the connection ends with this request, and its service hears of nothing that is drained.
            drop(rest.exchanges.take());
        });
    }
}

/// The body of a response.
#[derive(Debug)]
pub(crate) struct Answered {
    body: WasiBody,
    exchange: Exchange,
}

impl Body for Answered {
    type Data = <WasiBody as Body>::Data;
    type Error = <WasiBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.exchange.answered |= match &frame {
            Some(frame) => frame.is_ok() && self.body.is_end_stream(),
            None => true,
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
