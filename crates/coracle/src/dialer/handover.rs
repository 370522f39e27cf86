//! A connection to a service that outlives its endpoint: when a pod ends, its connections that wait for nothing go to another.
//!
//! An endpoint that ends says [`Drained`] when it has begun nothing of what was sent since the last byte that it answered.
//! These bytes are kept here, so another endpoint gets them. Nothing is ever sent twice to endpoints that may have acted on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use coracle_node::runtime::{ByteStream, Connecting, Drained};
use futures_io::{AsyncRead, AsyncWrite};

/// How many bytes without an answer are kept: more than an endpoint takes in before it begins with a request.
const KEPT_MAX: usize = 256 << 10;
/// How many endpoints may pass a connection on before one answers.
const HANDOVERS_MAX: u32 = 16;

/// Opens the next connection.
pub(super) type Redial = Box<dyn Fn() -> Connecting + Send>;

/// The connection.
pub(super) struct ServiceStream {
    stream: ByteStream,
    step: Step,
    redial: Redial,
    /// What was sent since the last byte that was received; `None` when it was too much.
    kept: Option<Vec<u8>>,
    /// Whether nothing more will be sent.
    closed: bool,
    handovers: u32,
    /// Who waits for the connection to be whole again.
    waiting: Vec<Waker>,
}

enum Step {
    Connected,
    /// The endpoint is gone and nothing is unanswered: the next is dialed when there is something to send.
    Parked,
    Dialing(Connecting),
    /// What was kept is sent again, from here on.
    Resending(usize),
}

impl ServiceStream {
    /// Of a connection to the first endpoint, and the way to the next ones.
    pub(super) fn new(stream: ByteStream, redial: Redial) -> Self {
        let (kept, waiting) = (Some(Vec::new()), Vec::new());
        Self { stream, step: Step::Connected, redial, kept, closed: false, handovers: 0, waiting }
    }

    /// Takes in why the endpoint failed; `Err` when it is final.
    fn pass_on(&mut self, error: io::Error) -> io::Result<()> {
        match &self.kept {
            Some(kept) if Drained::is_cause_of(&error) && self.handovers < HANDOVERS_MAX => {
                self.step = if kept.is_empty() { Step::Parked } else { Step::Dialing((self.redial)()) };
                self.handovers += 1;
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }

    /// Goes on until there is an endpoint that has all that was sent, or nothing to do without the writer.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.step {
                Step::Connected | Step::Parked => return Poll::Ready(Ok(())),
                Step::Dialing(connecting) => {
                    let Poll::Ready(connected) = connecting.as_mut().poll(cx) else {
                        self.wait(cx);
                        return Poll::Pending;
                    };
                    self.stream = connected.map_err(|error| {
                        io::Error::new(io::ErrorKind::ConnectionAborted, format!("no endpoint takes over: {error}"))
                    })?;
                    self.step = Step::Resending(0);
                }
                Step::Resending(sent) => {
                    let rest = &self.kept.as_deref().unwrap_or_default()[*sent..];
                    let result = if rest.is_empty() {
                        let closed =
                            if self.closed { self.stream.as_mut().poll_close(cx) } else { Poll::Ready(Ok(())) };
                        closed.map_ok(|()| None)
                    } else {
                        self.stream.as_mut().poll_write(cx, rest).map_ok(Some)
                    };
                    match result {
                        Poll::Pending => {
                            self.wait(cx);
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(Some(0))) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Poll::Ready(Ok(Some(count))) => *sent += count,
                        Poll::Ready(Ok(None)) => {
                            self.step = Step::Connected;
                            self.waiting.drain(..).for_each(Waker::wake);
                        }
                        Poll::Ready(Err(error)) => self.pass_on(error)?,
                    }
                }
            }
        }
    }
}

impl AsyncRead for ServiceStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_whole(cx))?;
            if matches!(self.step, Step::Parked) {
                if self.closed {
                    return Poll::Ready(Ok(0));
                }
                self.wait(cx);
                return Poll::Pending;
            }
            match ready!(self.stream.as_mut().poll_read(cx, buffer)) {
                Ok(count) => {
                    if count > 0 {
                        self.handovers = 0;
                        self.kept.get_or_insert_default().clear();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) => self.pass_on(error)?,
            }
        }
    }
}

impl AsyncWrite for ServiceStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if matches!(self.step, Step::Parked) {
                self.step = Step::Dialing((self.redial)());
            }
            ready!(self.poll_whole(cx))?;
            if matches!(self.step, Step::Parked) {
                continue;
            }
            match ready!(self.stream.as_mut().poll_write(cx, bytes)) {
                Ok(count) => {
                    match &mut self.kept {
                        Some(kept) if kept.len() + count <= KEPT_MAX => kept.extend_from_slice(&bytes[..count]),
                        kept => *kept = None,
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) => self.pass_on(error)?,
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_whole(cx))?;
        if matches!(self.step, Step::Parked) {
            return Poll::Ready(Ok(()));
        }
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_whole(cx))?;
        self.closed = true;
        if matches!(self.step, Step::Parked) {
            self.waiting.drain(..).for_each(Waker::wake);
            return Poll::Ready(Ok(()));
        }
        self.stream.as_mut().poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
