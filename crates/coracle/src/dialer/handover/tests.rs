//! Endpoints that come and go, as ends of streams in memory.

use std::sync::{Arc, Mutex};
use std::task::Context;

use coracle_node::runtime::{OpenError, duplex};

use super::*;

/// The endpoint's end of a connection; it is drained or plainly closed.
struct Endpoint {
    end: Option<ByteStream>,
    drained: Arc<Mutex<bool>>,
}

/// The client's end: end of file is `Drained` when the endpoint says so.
struct Ours(ByteStream, Arc<Mutex<bool>>);

impl AsyncRead for Ours {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match ready!(self.0.as_mut().poll_read(cx, buffer))? {
            0 if *self.1.lock().unwrap() => Poll::Ready(Err(Drained.into())),
            count => Poll::Ready(Ok(count)),
        }
    }
}

impl AsyncWrite for Ours {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.0.as_mut().poll_write(cx, bytes)) {
            Err(_) if *self.1.lock().unwrap() => Poll::Ready(Err(Drained.into())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_close(cx)
    }
}

fn endpoint() -> (ByteStream, Endpoint) {
    let (near, far) = duplex(1024);
    let drained = Arc::default();
    (Box::pin(Ours(near, Arc::clone(&drained))), Endpoint { end: Some(far), drained })
}

impl Endpoint {
    fn received(&mut self) -> String {
        let mut buffer = [0; 1024];
        let end = self.end.as_mut().unwrap().as_mut();
        match end.poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Ready(Ok(count)) => String::from_utf8(buffer[..count].to_vec()).unwrap(),
            other => panic!("nothing received: {other:?}"),
        }
    }

    fn answer(&mut self, text: &str) {
        let end = self.end.as_mut().unwrap().as_mut();
        assert!(end.poll_write(&mut Context::from_waker(Waker::noop()), text.as_bytes()).is_ready());
    }

    fn drain(&mut self) {
        *self.drained.lock().unwrap() = true;
        self.end = None;
    }
}

/// A connection to the first of two endpoints.
fn connection() -> (ServiceStream, Endpoint, Endpoint) {
    let (first, one) = endpoint();
    let (second, two) = endpoint();
    let second = Mutex::new(Some(second));
    let redial = move || {
        let next = second.lock().unwrap().take().ok_or_else(|| OpenError("nobody is ready".into()));
        Box::pin(std::future::ready(next)) as Connecting
    };
    (ServiceStream::new(first, Box::new(redial)), one, two)
}

fn send(stream: &mut ServiceStream, text: &str) {
    let written = Pin::new(stream).poll_write(&mut Context::from_waker(Waker::noop()), text.as_bytes());
    assert!(matches!(written, Poll::Ready(Ok(count)) if count == text.len()), "{written:?}");
}

fn receive(stream: &mut ServiceStream) -> Poll<io::Result<String>> {
    let mut buffer = [0; 1024];
    let read = Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
    read.map_ok(|count| String::from_utf8(buffer[..count].to_vec()).unwrap())
}

#[test]
fn what_a_drained_endpoint_has_not_begun_goes_to_the_next() {
    let (mut stream, mut one, mut two) = connection();
    send(&mut stream, "first");
    one.answer("answer");
    assert!(matches!(receive(&mut stream), Poll::Ready(Ok(text)) if text == "answer"));
    send(&mut stream, "sec");
    send(&mut stream, "ond");
    one.drain();
    assert!(receive(&mut stream).is_pending());
    assert_eq!(two.received(), "second", "and nothing of what was answered");
    two.answer("done");
    assert!(matches!(receive(&mut stream), Poll::Ready(Ok(text)) if text == "done"));
}

#[test]
fn an_idle_connection_stays_open_and_moves_with_its_next_request() {
    let (mut stream, mut one, mut two) = connection();
    one.drain();
    assert!(receive(&mut stream).is_pending());
    send(&mut stream, "hello");
    assert_eq!(two.received(), "hello");
}

#[test]
fn a_connection_that_the_endpoint_closed_is_closed() {
    let (mut stream, mut one, _two) = connection();
    send(&mut stream, "begun");
    one.end = None;
    assert!(matches!(receive(&mut stream), Poll::Ready(Ok(text)) if text.is_empty()));
}

#[test]
fn without_another_endpoint_the_connection_breaks() {
    let (mut stream, mut one, mut two) = connection();
    send(&mut stream, "x");
    one.drain();
    assert!(receive(&mut stream).is_pending());
    two.drain();
    let error = match receive(&mut stream) {
        Poll::Ready(Err(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(error, "no endpoint takes over: nobody is ready");
}

#[test]
fn a_closed_idle_connection_ends_with_its_endpoint() {
    let (mut stream, mut one, _two) = connection();
    assert!(Pin::new(&mut stream).poll_close(&mut Context::from_waker(Waker::noop())).is_ready());
    one.drain();
    assert!(matches!(receive(&mut stream), Poll::Ready(Ok(text)) if text.is_empty()));
}
