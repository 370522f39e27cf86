//! Instances of a `wasi:http` 0.3 service: each answers many requests, several at one time, and goes when it has nothing to do.
//!
//! A request goes to an instance that is idle, then to one that waits for something, then to a new one while there may be more, and then
//! to whichever has room. One whose client goes away unanswered takes no more: what the guest still does for it cannot be stopped alone.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use crate::exchange::Asked;
use crate::guest::{Guest, settle_last_fuel};
use crate::slices::Itself;

/// Requests that an instance answers in its life: what `wasmtime serve` has.
const REQUESTS_MAX: usize = 128;
/// Requests that it is at at one time: the same.
const AT_ONCE_MAX: usize = 16;
/// How long one stays that has nothing to do: the same.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// The instances of a service.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Arc<Worker>>>);

/// An instance, as those see it who have requests for it.
pub(crate) struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    seats: Mutex<Seats>,
    /// The guest runs, or would if it had another time slice.
    runs: AtomicBool,
    /// Requests that it has begun with.
    begun: AtomicUsize,
    /// Nobody waits for what it still does.
    abandoned: Notify,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("seats", &self.seats).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Seats {
    /// Requests that it is at.
    taken: usize,
    /// Requests in its life.
    given: usize,
    /// It takes no more.
    closed: bool,
    /// Somebody went away unanswered.
    left: bool,
}

/// A request, who waits for its answer, and when the answer was taken to its end.
pub(crate) struct Job {
    request: Request<Asked>,
    answer: oneshot::Sender<Result<Response<WasiBody>, ErrorCode>>,
    done: oneshot::Receiver<()>,
}

/// A request's place in an instance.
#[derive(Debug)]
pub(crate) struct Seat {
    worker: Arc<Worker>,
    /// It was answered to the end.
    finished: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.worker.seats();
        seats.taken -= 1;
        seats.left |= !self.finished;
        seats.closed |= seats.left;
        if seats.left && seats.taken == 0 {
            self.worker.abandoned.notify_one();
        }
    }
}

impl Worker {
    /// One that is at a request already, and the queue of its jobs.
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Job>) {
        // Bounded by the seats.
        let (jobs, queue) = mpsc::unbounded_channel();
        let (seats, runs, abandoned) = (Mutex::default(), AtomicBool::new(false), Notify::new());
        (Arc::new(Self { jobs, seats, runs, begun: AtomicUsize::new(0), abandoned }), queue)
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in it, if it is at no more than so many requests.
    fn seat(self: &Arc<Self>, at_most: usize) -> Option<Seat> {
        let mut seats = self.seats();
        if seats.closed || seats.taken > at_most {
            return None;
        }
        seats.taken += 1;
        seats.given += 1;
        seats.closed = seats.given >= REQUESTS_MAX;
        Some(Seat { worker: Arc::clone(self), finished: false })
    }

    /// Whether all that it is at waits for something outside of it.
    fn waits(&self) -> bool {
        let given = self.seats().given;
        given == self.begun.load(Ordering::Acquire) && !self.runs.load(Ordering::Acquire)
    }

    /// Takes no more requests; false while it is at some.
    fn close_if_idle(&self) -> bool {
        let mut seats = self.seats();
        seats.closed |= seats.taken == 0;
        seats.taken == 0
    }

    fn close(&self) {
        self.seats().closed = true;
    }

    /// Ends when nobody waits any more for what it does.
    pub(crate) async fn abandoned(&self) {
        self.abandoned.notified().await;
    }
}

impl Pool {
    fn workers(&self) -> MutexGuard<'_, Vec<Arc<Worker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in an instance that is there.
    fn seat_in_one(&self, at_most: usize, may_run: bool) -> Option<Seat> {
        let mut workers = self.workers();
        workers.retain(|worker| !worker.seats().closed);
        workers
            .iter()
            .filter(|worker| may_run || worker.waits())
            .min_by_key(|worker| worker.seats().taken)
            .and_then(|worker| worker.seat(at_most))
    }

    /// A place for a request; with the permit and the queue of a new instance, where there is to be one. `None`: the node stops.
    pub(crate) async fn seat(&self, instances: &Arc<Semaphore>) -> Option<(Seat, Option<Fresh>)> {
        let waiting = self.seat_in_one(0, true).or_else(|| self.seat_in_one(AT_ONCE_MAX - 1, false));
        if let Some(seat) = waiting {
            return Some((seat, None));
        }
        if let Ok(permit) = Arc::clone(instances).try_acquire_owned() {
            return self.add(permit);
        }
        if let Some(seat) = self.seat_in_one(AT_ONCE_MAX - 1, true) {
            return Some((seat, None));
        }
        self.add(Arc::clone(instances).acquire_owned().await.ok()?)
    }

    fn add(&self, permit: OwnedSemaphorePermit) -> Option<(Seat, Option<Fresh>)> {
        let (worker, queue) = Worker::new();
        let seat = worker.seat(0)?;
        self.workers().push(Arc::clone(&worker));
        Some((seat, Some(Fresh { worker, queue, permit })))
    }
}

/// What a new instance needs.
pub(crate) struct Fresh {
    pub(crate) worker: Arc<Worker>,
    pub(crate) queue: mpsc::UnboundedReceiver<Job>,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Seat {
    /// Has the instance answer a request; `None`: it ended without an answer.
    pub(crate) async fn answer(mut self, request: Request<Asked>) -> Option<Result<Response<WasiBody>, ErrorCode>> {
        let is_head = request.method() == http::Method::HEAD;
        let (answer, answered) = oneshot::channel();
        let (taken, done) = oneshot::channel();
        self.worker.jobs.send(Job { request, answer, done }).ok()?;
        match answered.await {
            Ok(Ok(response)) => {
                // A body that nobody reads is none.
                self.finished = is_head || response.body().is_end_stream();
                Some(Ok(response.map(|body| Taken { body, seat: self, _until: taken }.boxed_unsync())))
            }
            Ok(Err(code)) => {
                self.finished = true;
                Some(Err(code))
            }
            Err(_) => None,
        }
    }
}

/// The body of an answer, and the seat until it was taken.
struct Taken {
    body: WasiBody,
    seat: Seat,
    _until: oneshot::Sender<()>,
}

impl Body for Taken {
    type Data = Bytes;
    type Error = <WasiBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.seat.finished |= frame.is_none() || self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A guest's future that says when it runs.
pub(crate) struct Seen<F> {
    guest: Pin<Box<F>>,
    worker: Arc<Worker>,
}

impl<F> Seen<F> {
    pub(crate) fn new(guest: F, worker: Arc<Worker>) -> Self {
        Self { guest: Box::pin(guest), worker }
    }
}

impl<F: Future> Future for Seen<F> {
    type Output = F::Output;

    /// A guest whose time slice ends wakes itself: it runs until it waits for something.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.worker.runs.store(true, Ordering::Release);
        let itself = Arc::new(Itself::new(cx.waker()));
        let polled = self.guest.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&itself))));
        self.worker.runs.store(polled.is_pending() && itself.was_woken(), Ordering::Release);
        if polled.is_ready() {
            self.worker.close();
        }
        polled
    }
}

/// Whoever looked at it last, it takes no more requests.
impl<F> Drop for Seen<F> {
    fn drop(&mut self) {
        self.worker.close();
    }
}

/// Makes the instance, and has it answer until it goes.
pub(crate) async fn work(
    mut store: Store<Guest>,
    service: ServicePre<Guest>,
    mut queue: mpsc::UnboundedReceiver<Job>,
    worker: Arc<Worker>,
) -> wasmtime::Result<()> {
    let service = service.instantiate_async(&mut store).await?;
    let worked = store.run_concurrent(async |accessor| answer_all(accessor, &service, &mut queue, &worker).await).await;
    settle_last_fuel(&store);
    worked.flatten()
}

async fn answer_all(
    accessor: &Accessor<Guest>,
    service: &Service,
    queue: &mut mpsc::UnboundedReceiver<Job>,
    worker: &Worker,
) -> wasmtime::Result<()> {
    let mut under_way = FuturesUnordered::new();
    loop {
        let is_idle = under_way.is_empty();
        tokio::select! {
            biased;
            Some(answered) = under_way.next() => answered?,
            Some(job) = queue.recv() => {
                worker.begun.fetch_add(1, Ordering::AcqRel);
                under_way.push(answer(accessor, service, job));
            }
            () = idle(accessor, worker), if is_idle => if worker.close_if_idle() { return Ok(()) },
        }
    }
}

/// Ends when the guest has had nothing to do for a while, or at once when it gets nothing more to do.
async fn idle(accessor: &Accessor<Guest>, worker: &Worker) {
    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
    let is_closed = worker.seats().closed;
    if !is_closed {
        tokio::time::sleep(IDLE_MAX).await;
    }
}

/// Whether a request was read without trouble.
type Sent = Pin<Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>>;

/// Answers one request, until its answer was taken.
async fn answer(accessor: &Accessor<Guest>, service: &Service, job: Job) -> wasmtime::Result<()> {
    let Job { request, answer, done } = job;
    let (request, sent) = accessor.with(|mut access| {
        let (request, sent) = p3::Request::from_http(access.data_mut().http().hooks, request);
        (request, Box::pin(sent) as Sent)
    });
    match service.handle(accessor, request).await? {
        Ok(response) => {
            let response = accessor.with(|mut access| response.into_http(&mut access, sent))?;
            let _ = answer.send(Ok(response));
        }
        Err(code) => _ = answer.send(Err(code)),
    }
    let _ = done.await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seat(pool: &Pool, instances: &Arc<Semaphore>) -> (Seat, Option<Fresh>) {
        pool.seat(instances).await.unwrap()
    }

    #[tokio::test]
    async fn an_instance_that_waits_takes_sixteen_and_one_that_runs_none_while_there_may_be_more() {
        let (pool, instances) = (Pool::default(), Arc::new(Semaphore::new(2)));
        let (first, fresh) = seat(&pool, &instances).await;
        let (fresh, mut kept) = (fresh.unwrap(), vec![first]);
        for number in 1..AT_ONCE_MAX {
            fresh.worker.begun.store(number, Ordering::Release);
            let (seat, other) = seat(&pool, &instances).await;
            assert!(other.is_none());
            kept.push(seat);
        }
        // One that has not begun with what it has may run for long.
        kept.pop().unwrap().finished = true;
        let (_second, other) = seat(&pool, &instances).await;
        assert!(other.is_some());
        // No third may be made: whichever has room.
        assert!(seat(&pool, &instances).await.1.is_none());
    }

    #[tokio::test]
    async fn an_instance_answers_so_many_requests_and_no_more() {
        let (pool, instances) = (Pool::default(), Arc::new(Semaphore::new(2)));
        let mut made = Vec::new();
        for number in 0..=REQUESTS_MAX {
            let (mut seat, fresh) = seat(&pool, &instances).await;
            seat.finished = true;
            assert_eq!(fresh.is_some(), number == 0 || number == REQUESTS_MAX, "{number}");
            made.extend(fresh);
        }
        assert!(made[0].worker.close_if_idle());
    }

    #[tokio::test]
    async fn an_instance_whose_client_goes_away_ends_with_its_last_request() {
        let (pool, instances) = (Pool::default(), Arc::new(Semaphore::new(1)));
        let (gone, fresh) = seat(&pool, &instances).await;
        let (mut other, _) = seat(&pool, &instances).await;
        let worker = fresh.unwrap().worker;
        drop(gone);
        assert!(worker.seats().closed && !worker.close_if_idle());
        other.finished = true;
        drop(other);
        worker.abandoned().await;
    }
}
