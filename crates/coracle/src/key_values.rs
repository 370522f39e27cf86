//! Guests' key-value store: their calls, answered from the newest view or written through the log.
//!
//! What a call comes to is the engine's to say (`coracle_engine::Bucket`). Reads wait until the view has everything that was acknowledged before;
//! writes say in their preconditions what they lean on. A ServiceAccount's writes take turns with each other and have a rate, so that guests do
//! not take the log from everybody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_api::{Status, Uid};
use coracle_engine::{Bucket, Prepared, Rows};
use coracle_node::runtime::{KeyValueAnswer, KeyValueCall, KeyValueError};
use coracle_store::{Refused, Transaction, View};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::process::Process;

/// How often a call is prepared anew when others write the same key: each time one of them has got further.
const TRIES: u32 = 200;
/// After so many it waits a little before each, so that those on slower members get their turn.
const TRIES_AT_ONCE: u32 = 3;
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// The writes of an account that a member has under way; others wait.
const WRITES_MAX: usize = 32;
/// The bytes of log that an account's writes on a member may take in a second, and at once after a pause; others wait. The
/// watch window of all resources has 64 MiB.
const BYTES_A_SECOND: f64 = 2.0 * 1024.0 * 1024.0;
const BYTES_AT_ONCE: f64 = 8.0 * 1024.0 * 1024.0;

/// The ServiceAccounts that write now, or wrote in the last seconds.
#[derive(Debug, Default)]
pub(crate) struct KeyValues {
    accounts: Mutex<BTreeMap<(String, String), Arc<Account>>>,
}

/// What a ServiceAccount has under way on this member.
#[derive(Debug)]
struct Account {
    turns: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What its writes add to its rows.
    reserved: Rows,
    /// The bytes that it may write, and when that was counted; below zero for those that wait.
    room: f64,
    counted: Instant,
}

/// Room for a write that is under way.
#[derive(Debug)]
struct Reserved<'a> {
    account: &'a Account,
    growth: Rows,
}

impl KeyValues {
    /// The account of a bucket. Those that have had nothing to write for a while are forgotten on the way.
    fn account(&self, bucket: &Bucket) -> Arc<Account> {
        let (namespace, name) = bucket.account();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|_, account| Arc::strong_count(account) > 1 || !account.is_rested());
        Arc::clone(accounts.entry((namespace.to_owned(), name.to_owned())).or_default())
    }
}

impl Default for Account {
    fn default() -> Self {
        let state = State { reserved: Rows::default(), room: BYTES_AT_ONCE, counted: Instant::now() };
        Self { turns: Semaphore::new(WRITES_MAX), state: Mutex::new(state) }
    }
}

impl State {
    fn count(&mut self) {
        let now = Instant::now();
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() * BYTES_A_SECOND;
        self.room = (self.room + earned).min(BYTES_AT_ONCE);
        self.counted = now;
    }
}

impl Account {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may write as much as one that never wrote.
    fn is_rested(&self) -> bool {
        let mut state = self.lock();
        state.count();
        state.room >= BYTES_AT_ONCE
    }

    /// Takes so many bytes of its rate, and says how long to wait for them.
    fn take(&self, bytes: usize) -> Duration {
        let mut state = self.lock();
        state.count();
        state.room -= bytes as f64;
        Duration::from_secs_f64((-state.room / BYTES_A_SECOND).max(0.0))
    }

    /// Prepares a call and reserves what it adds: two writes at once do not both take the last room.
    fn prepare(
        &self,
        bucket: &Bucket,
        view: &View,
        call: &KeyValueCall,
    ) -> Result<(Prepared, Reserved<'_>), KeyValueError> {
        let mut state = self.lock();
        let prepared = bucket.prepare(view, call, state.reserved)?;
        let growth = match &prepared {
            Prepared::Write { growth, .. } => *growth,
            Prepared::Answer(_) => Rows::default(),
        };
        state.reserved.count += growth.count;
        state.reserved.bytes += growth.bytes;
        Ok((prepared, Reserved { account: self, growth }))
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut state = self.account.lock();
        state.reserved.count -= self.growth.count;
        state.reserved.bytes -= self.growth.bytes;
    }
}

/// Answers a call of a pod.
pub(crate) async fn answer(
    process: &Process,
    pod: &Uid,
    bucket: &str,
    call: &KeyValueCall,
) -> Result<KeyValueAnswer, KeyValueError> {
    match call {
        KeyValueCall::Open | KeyValueCall::Get(_) | KeyValueCall::Keys { .. } => read(process, pod, bucket, call).await,
        KeyValueCall::Set(_) | KeyValueCall::Delete(_) | KeyValueCall::Increment { .. } => {
            let account = process.key_values.account(&bucket_of(process, pod, bucket).await?);
            let _turn = account.turns.acquire().await.map_err(|error| KeyValueError::Other(error.to_string()))?;
            write(process, &account, pod, bucket, call).await
        }
    }
}

/// The bucket, by a view that has everything that was acknowledged if an older one does not know it.
async fn bucket_of(process: &Process, pod: &Uid, bucket: &str) -> Result<Bucket, KeyValueError> {
    match Bucket::of_pod(&process.view(), pod, bucket) {
        Err(KeyValueError::AccessDenied) => {
            process.read().await.map_err(unanswered)?;
            Bucket::of_pod(&process.view(), pod, bucket)
        }
        found => found,
    }
}

async fn read(
    process: &Process,
    pod: &Uid,
    bucket: &str,
    call: &KeyValueCall,
) -> Result<KeyValueAnswer, KeyValueError> {
    process.read().await.map_err(unanswered)?;
    let view = process.view();
    match Bucket::of_pod(&view, pod, bucket)?.prepare(&view, call, Rows::default())? {
        Prepared::Answer(answer) => Ok(answer),
        Prepared::Write { .. } => Err(KeyValueError::Other("a read came to a write".into())),
    }
}

async fn write(
    process: &Process,
    account: &Account,
    pod: &Uid,
    bucket: &str,
    call: &KeyValueCall,
) -> Result<KeyValueAnswer, KeyValueError> {
    // A view may be older than what was acknowledged: preconditions tell that of a write, and a refusal is looked at again.
    let mut current = false;
    for tries in 0..TRIES {
        let view = process.view();
        let bucket = Bucket::of_pod(&view, pod, bucket);
        let prepared = bucket.and_then(|bucket| account.prepare(&bucket, &view, call));
        let (transaction, answer, _reserved) = match prepared {
            Ok((Prepared::Write { transaction, answer, .. }, reserved)) => (transaction, answer, reserved),
            Ok((Prepared::Answer(answer), _)) => return Ok(answer),
            Err(error) if current => return Err(error),
            Err(_) => {
                process.read().await.map_err(unanswered)?;
                current = true;
                continue;
            }
        };
        let wait = account.take(transaction.size());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        match propose(process, transaction).await? {
            Ok(()) => return Ok(answer),
            Err(refused) if refused.moved_on() => pause(tries).await,
            // The namespace goes away, and all that is in it.
            Err(Refused::Terminating(_)) => return Err(KeyValueError::AccessDenied),
            Err(refused) => return Err(KeyValueError::Other(format!("the write was refused: {refused}"))),
        }
    }
    Err(KeyValueError::Other("others write the same key all the time; try again".into()))
}

async fn propose(process: &Process, transaction: Transaction) -> Result<Result<(), Refused>, KeyValueError> {
    let settled = process.propose_to_a_leader(transaction).await;
    Ok(settled.map_err(unanswered)?.map(drop))
}

async fn pause(tries: u32) {
    if tries >= TRIES_AT_ONCE {
        tokio::time::sleep(Duration::from_millis(u64::from(tries)).min(PAUSE_MAX)).await;
    }
}

/// The cluster did not answer: of a write it is not known whether it was done.
fn unanswered(status: Status) -> KeyValueError {
    KeyValueError::Other(status.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_account_writes_at_once_what_it_has_saved_up_and_then_at_its_rate() {
        let account = Account::default();
        assert!(account.take(8 << 20).is_zero());
        assert_eq!(account.take(2 << 20), Duration::from_secs(1));
        assert_eq!(account.take(2 << 20), Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(account.take(0).is_zero() && !account.is_rested());
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(account.is_rested());
        assert!(account.take(8 << 20).is_zero());
        assert!(!account.take(1).is_zero(), "a minute saves up no more than that");
    }
}
