//! A watch as a stream: the watcher pulls from the newest view at its own pace, and nothing in the brain knows it.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use coracle_apiserver::Watcher;
use coracle_base::Instant;
use coracle_store::View;
use futures_util::stream;
use http::Response;
use tokio::sync::watch::Receiver;

use super::fair::StreamPlace;
use crate::process::Process;

struct State {
    process: Arc<Process>,
    watcher: Box<Watcher>,
    views: Receiver<View>,
    closed: bool,
    /// Given back when the stream ends.
    _place: Option<Arc<StreamPlace>>,
}

/// The response; its headers go out before the first event.
pub(super) fn respond(
    process: &Arc<Process>,
    watcher: Box<Watcher>,
    place: Option<Arc<StreamPlace>>,
) -> Response<Body> {
    let fields = watcher.headers();
    let state =
        State { process: Arc::clone(process), watcher, views: process.views.clone(), closed: false, _place: place };
    let frames = stream::unfold(state, |mut state| async move {
        let frames = next(&mut state).await?;
        Some((Ok::<_, std::convert::Infallible>(frames), state))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    for (name, value) in fields {
        if let Ok(value) = http::HeaderValue::from_str(&value) {
            headers.append(name, value);
        }
    }
    headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, private"));
    response
}

/// The next frames; `None` at the end.
async fn next(state: &mut State) -> Option<Bytes> {
    while !state.closed {
        let view = state.views.borrow_and_update().clone();
        let poll = state.watcher.poll(&view, state.process.now());
        drop(view);
        state.closed = poll.closed;
        if !poll.frames.is_empty() {
            return Some(join(poll.frames));
        }
        if !state.closed {
            wait(state, poll.wake_at).await;
        }
    }
    None
}

fn join(mut frames: Vec<Bytes>) -> Bytes {
    if frames.len() == 1 {
        return frames.swap_remove(0);
    }
    let mut all = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    for frame in frames {
        all.extend_from_slice(&frame);
    }
    all.freeze()
}

/// Until the watched resource changes, the watcher has something to do, or the server stops.
async fn wait(state: &mut State, wake_at: Option<Instant>) {
    let resource = state.watcher.resource().clone();
    let before = state.views.borrow().last_change(&resource);
    let clock = state.process.clock;
    let timer = async {
        match wake_at {
            Some(instant) => clock.sleep_until(instant).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        changed = state.views.wait_for(|view| view.last_change(&resource) != before) => state.closed |= changed.is_err(),
        () = timer => {}
        () = state.process.shutdown.cancelled() => state.closed = true,
    }
}
