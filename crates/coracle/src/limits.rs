//! What clients may take of a member at one time, so that none of them is in the way of the others.

use std::time::Duration;

/// Bounds on what clients take of each member. A client is a user, as API Priority and Fairness tells flows apart: who several
/// connections belong to does not matter. Programs that embed the cluster and use it without a socket are not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many requests are worked on at one time; more wait for their turn. Watches, logs and tunnels count until they begin only.
    pub requests: usize,
    /// How many of these one client can have: less than all, so that there is always room for others.
    pub requests_per_client: usize,
    /// How many more requests of one client wait. Beyond it the answer is 429 with `Retry-After`.
    pub waiting_per_client: usize,
    /// How long a request waits for its turn before the answer is 429.
    pub wait: Duration,
    /// How many requests one client may make in a second, on average over two. Beyond it the answer is 429.
    pub rate_per_client: u32,
    /// How many watches, logs and tunnels are open at one time.
    pub streams: usize,
    /// How many of these one client can have.
    pub streams_per_client: usize,
    /// How many connections are open at one time; more wait in the operating system's queue.
    pub connections: usize,
    /// How many of these can come from one address; more are closed at once.
    pub connections_per_address: usize,
    /// How long a client may not take what is sent to it, and not send what it has begun to send, before its connection is closed.
    pub stall: Duration,
}

impl Default for Limits {
    /// Far more than kubectl and controllers use, and what a small machine can bear.
    fn default() -> Self {
        Self {
            requests: 256,
            requests_per_client: 192,
            waiting_per_client: 2_048,
            wait: Duration::from_secs(15),
            rate_per_client: 20_000,
            streams: 20_000,
            streams_per_client: 10_000,
            connections: 4_096,
            connections_per_address: 3_072,
            stall: Duration::from_mins(1),
        }
    }
}

impl Limits {
    /// What is wrong with them, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let counts = [
            self.requests,
            self.requests_per_client,
            self.streams,
            self.streams_per_client,
            self.connections,
            self.connections_per_address,
            self.rate_per_client as usize,
        ];
        if counts.contains(&0) || self.stall.is_zero() {
            return Err("a limit of zero would shut everybody out".into());
        }
        Ok(())
    }
}
