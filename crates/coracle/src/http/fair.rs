//! Turns: clients that want more than there is get it one after the other, and one that floods waits for itself alone.
//!
//! Slots are given in a circle of clients, not in the order of requests. So whoever asks for little waits for one slot to become
//! free, however much others ask for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use coracle_api::{Reason, Status, StatusDetails};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::limits::Limits;

/// How many clients are remembered that have nothing under way: for their rates.
const IDLE_MAX: usize = 1_000;
/// Over how many seconds a rate is an average.
const RATE_SECONDS: f64 = 2.0;

/// Who may go on.
#[derive(Debug)]
pub(crate) struct FairQueue {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    streams: usize,
    clients: BTreeMap<Arc<str>, Client>,
    /// Clients that wait, each once.
    circle: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Client {
    running: usize,
    streams: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// What is left of the rate, and when that was so.
    tokens: f64,
    at: Instant,
}

/// A slot, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    queue: Arc<FairQueue>,
    client: Arc<str>,
}

/// A place for a stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    queue: Arc<FairQueue>,
    client: Arc<str>,
}

impl FairQueue {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// The bounds.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits for a slot.
    ///
    /// # Errors
    ///
    /// 429 when the client asks too often, too many of its requests wait, or this one waited too long.
    pub(crate) async fn take(self: &Arc<Self>, client: &str) -> Result<Turn, Status> {
        let waiting = match self.ask(client)? {
            Asked::Go(turn) => return Ok(turn),
            Asked::Wait(waiting) => waiting,
        };
        match tokio::time::timeout(self.limits.wait, waiting).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(too_many("the request waited too long for its turn")),
        }
    }

    fn ask(self: &Arc<Self>, name: &str) -> Result<Asked, Status> {
        let mut state = self.lock();
        let State { running, clients, circle, .. } = &mut *state;
        let (key, client) = self.client(clients, name);
        if !client.spend(self.limits.rate_per_client) {
            return Err(too_many("the user makes too many requests a second"));
        }
        // Where a slot is free nobody waits who could have it.
        if *running < self.limits.requests && client.running < self.limits.requests_per_client {
            *running += 1;
            client.running += 1;
            return Ok(Asked::Go(Turn { queue: Arc::clone(self), client: key }));
        }
        if client.waiting.len() >= self.limits.waiting_per_client {
            // Those that gave up are still in the queue.
            client.waiting.retain(|waiting| !waiting.is_closed());
        }
        if client.waiting.len() >= self.limits.waiting_per_client {
            return Err(too_many("too many requests of the user wait"));
        }
        let (sender, receiver) = oneshot::channel();
        if client.waiting.is_empty() {
            circle.push_back(key);
        }
        client.waiting.push_back(sender);
        Ok(Asked::Wait(receiver))
    }

    /// A place for a watch, a log or a tunnel.
    ///
    /// # Errors
    ///
    /// 429 when there is none, or the client has too many.
    pub(crate) fn stream(self: &Arc<Self>, name: &str) -> Result<Arc<StreamPlace>, Status> {
        let mut state = self.lock();
        let State { streams, clients, .. } = &mut *state;
        let (key, client) = self.client(clients, name);
        if *streams >= self.limits.streams {
            return Err(too_many("too many watches, logs and tunnels are open"));
        }
        if client.streams >= self.limits.streams_per_client {
            return Err(too_many("the user has too many watches, logs and tunnels open"));
        }
        *streams += 1;
        client.streams += 1;
        Ok(Arc::new(StreamPlace { queue: Arc::clone(self), client: key }))
    }

    fn client<'a>(&self, clients: &'a mut BTreeMap<Arc<str>, Client>, name: &str) -> (Arc<str>, &'a mut Client) {
        let known = clients.get_key_value(name).map(|(name, _)| Arc::clone(name));
        let key = known.unwrap_or_else(|| {
            if clients.len() > IDLE_MAX {
                clients.retain(|_, client| client.running > 0 || client.streams > 0 || !client.waiting.is_empty());
            }
            name.into()
        });
        let burst = f64::from(self.limits.rate_per_client) * RATE_SECONDS;
        let fresh = || Client { running: 0, streams: 0, waiting: VecDeque::new(), tokens: burst, at: Instant::now() };
        (Arc::clone(&key), clients.entry(key).or_insert_with(fresh))
    }

    /// Gives free slots to who waits, a client after the other.
    fn give(self: &Arc<Self>) {
        let mut given = Vec::new();
        let mut state = self.lock();
        let State { running, clients, circle, .. } = &mut *state;
        // Who has as much as one may have stays in the circle and is passed over.
        let mut passed = 0;
        while *running < self.limits.requests && passed < circle.len() {
            let Some(name) = circle.pop_front() else { break };
            let Some(client) = clients.get_mut(&name) else { continue };
            if client.running >= self.limits.requests_per_client {
                circle.push_back(name);
                passed += 1;
                continue;
            }
            if let Some(waiting) = client.next_waiting() {
                *running += 1;
                client.running += 1;
                given.push((waiting, Turn { queue: Arc::clone(self), client: Arc::clone(&name) }));
                passed = 0;
            }
            if !client.waiting.is_empty() {
                circle.push_back(name);
            }
        }
        drop(state);
        for (waiting, turn) in given {
            // Who gave up at this very moment gives the slot back by dropping it.
            let _ = waiting.send(turn);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

enum Asked {
    Go(Turn),
    Wait(oneshot::Receiver<Turn>),
}

impl Client {
    /// Takes one request off the rate; false when nothing is left of it.
    fn spend(&mut self, rate: u32) -> bool {
        let (now, rate) = (Instant::now(), f64::from(rate));
        let earned = now.duration_since(self.at).as_secs_f64() * rate;
        (self.tokens, self.at) = ((self.tokens + earned).min(rate * RATE_SECONDS), now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    /// The first that still waits.
    fn next_waiting(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(waiting) = self.waiting.pop_front() {
            if !waiting.is_closed() {
                return Some(waiting);
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.running -= 1;
        if let Some(client) = state.clients.get_mut(&self.client) {
            client.running -= 1;
        }
        drop(state);
        self.queue.give();
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.streams -= 1;
        if let Some(client) = state.clients.get_mut(&self.client) {
            client.streams -= 1;
        }
    }
}

/// Kubernetes' words, and why.
fn too_many(why: &str) -> Status {
    let message = format!("Too many requests, please try again later: {why}");
    let details = StatusDetails { retry_after_seconds: 1, ..StatusDetails::default() };
    Status::failure(429, Some(Reason::TooManyRequests), message).with_details(details)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn turns(change: impl FnOnce(&mut Limits)) -> Arc<FairQueue> {
        let mut limits = Limits {
            requests: 4,
            requests_per_client: 3,
            waiting_per_client: 2,
            wait: Duration::from_hours(1),
            ..Limits::default()
        };
        change(&mut limits);
        FairQueue::new(limits)
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_little_goes_before_who_floods() {
        let turns = turns(|limits| limits.waiting_per_client = 100);
        let mut flood = Vec::new();
        for _ in 0..3 {
            flood.push(turns.take("flood").await.unwrap());
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        let mut wait = |client: &'static str| {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let turn = turns.take(client).await.unwrap();
                order.lock().unwrap().push(client);
                drop(turn);
            }));
        };
        let last = turns.take("calm").await.unwrap();
        for _ in 0..10 {
            wait("flood");
        }
        tokio::task::yield_now().await;
        wait("calm");
        tokio::task::yield_now().await;
        drop(last);
        for task in tasks.drain(..).rev().take(1) {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["calm"], "the flood has all that one may have");
        drop(flood);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(order.lock().unwrap().len(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_never_has_every_slot_and_its_queue_is_bounded() {
        let turns = turns(|_| {});
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(turns.take("a").await.unwrap());
        }
        let waiting: Vec<_> = (0..2).map(|_| turns.ask("a").unwrap()).collect();
        assert!(waiting.iter().all(|asked| matches!(asked, Asked::Wait(_))));
        let refused = turns.take("a").await.unwrap_err();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        turns.take("b").await.unwrap();
        // Who gave up makes room.
        drop(waiting);
        assert!(matches!(turns.ask("a").unwrap(), Asked::Wait(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_so_long_and_no_longer() {
        let turns = turns(|limits| (limits.requests, limits.wait) = (1, Duration::from_secs(15)));
        let held = turns.take("a").await.unwrap();
        let begun = Instant::now();
        let refused = turns.take("b").await.unwrap_err();
        assert!(refused.message.ends_with("waited too long for its turn"), "{}", refused.message);
        assert_eq!(begun.elapsed(), Duration::from_secs(15));
        drop(held);
        turns.take("b").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_an_average_of_two_seconds() {
        let turns = turns(|limits| limits.rate_per_client = 10);
        for _ in 0..20 {
            turns.take("a").await.unwrap();
        }
        assert_eq!(turns.take("a").await.unwrap_err().code, 429);
        turns.take("b").await.unwrap();
        tokio::time::sleep(Duration::from_millis(501)).await;
        for _ in 0..5 {
            turns.take("a").await.unwrap();
        }
        assert_eq!(turns.take("a").await.unwrap_err().code, 429);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_counted_apart_and_given_back() {
        let turns = turns(|limits| (limits.streams, limits.streams_per_client) = (3, 2));
        let a = [turns.stream("a").unwrap(), turns.stream("a").unwrap()];
        assert_eq!(turns.stream("a").unwrap_err().code, 429);
        let b = turns.stream("b").unwrap();
        assert_eq!(turns.stream("b").unwrap_err().code, 429, "there are no more");
        turns.take("a").await.unwrap();
        drop((a, b));
        turns.stream("b").unwrap();
    }
}
