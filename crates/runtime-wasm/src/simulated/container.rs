//! A simulated container: a guest that is given turns, one at a time, by hand.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coracle_base::{Instant, Now, Rng};
use coracle_node::runtime::{ContainerSpec, Exit, Limits, LogStream, Usage};
use wasmtime::{InstancePre, Store};

use super::folder::Folder;
use super::guest::{Descriptors, Guest, Preopen};
use super::images::Linked;
use super::ledger::{Ledger, Wait};
use crate::account::{InstanceMemory, MemoryAccount, NodeMemory};
use crate::exit;
use crate::virtual_core::{FUEL_A_SECOND, SLICE_FUEL_MAX, core_time};

/// The shortest turn in instructions, for guests with little CPU.
const SLICE_MIN: u64 = FUEL_A_SECOND / 10_000;
/// Turns in a second of a guest with limited CPU: as in production, where the period is 20 milliseconds.
const SLICES_A_SECOND: u64 = 50;
/// The most bytes of a termination message.
const MESSAGE_MAX: usize = 4_096;

type Running = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>;

/// What a container is made of.
pub(super) struct Made {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) preopens: Vec<Preopen>,
    /// Where the termination message will be.
    pub(super) message: (Folder, String),
    pub(super) linked: Linked,
    pub(super) rng: Rng,
}

/// A container.
pub(super) struct Container {
    made: Made,
    limits: Limits,
    memory: Arc<MemoryAccount>,
    state: State,
}

enum State {
    Created,
    Running {
        guest: Running,
        ledger: Arc<Mutex<Ledger>>,
    },
    /// The guest is over; the time of its end is still to come.
    Ending {
        at: Instant,
        exit: Exit,
        ledger: Arc<Mutex<Ledger>>,
    },
    Ended(Exit),
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("args", &self.made.args).finish_non_exhaustive()
    }
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Container {
    pub(super) fn new(spec: &ContainerSpec, made: Made, node: &Arc<NodeMemory>) -> Self {
        let memory = Arc::new(MemoryAccount::new(spec.limits.memory, Arc::clone(node)));
        Self { made, limits: spec.limits, memory, state: State::Created }
    }

    /// Which import is missing.
    pub(super) fn missing(&self) -> Option<&str> {
        self.made.linked.as_ref().err().map(String::as_str)
    }

    pub(super) fn is_created(&self) -> bool {
        matches!(self.state, State::Created)
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Ending { .. })
    }

    /// How it ended.
    pub(super) fn ended(&self) -> Option<&Exit> {
        match &self.state {
            State::Ended(exit) => Some(exit),
            _ => None,
        }
    }

    /// Ends it so, whatever it is at.
    pub(super) fn end(&mut self, exit: Exit) {
        self.state = State::Ended(exit);
    }

    /// Makes its guest, which has its first turn when it is next asked.
    pub(super) fn start(&mut self, now: Now) -> Result<(), String> {
        let pre = self.made.linked.clone()?;
        let tank = self.limits.fuel.unwrap_or(u64::MAX);
        let slice = (self.pace() / SLICES_A_SECOND).clamp(SLICE_MIN, SLICE_FUEL_MAX);
        let ledger = Arc::new(Mutex::new(Ledger::new(now, tank, slice)));
        let guest = Guest {
            args: self.made.args.clone(),
            env: self.made.env.clone(),
            rng: self.made.rng.clone(),
            descriptors: Descriptors::new(self.made.preopens.clone()),
            memory: InstanceMemory::new(Arc::clone(&self.memory)),
            ledger: Arc::clone(&ledger),
        };
        let mut store = Store::new(pre.module().engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        let filled = store.set_fuel(tank).and_then(|()| store.fuel_async_yield_interval(Some(slice)));
        filled.map_err(|error| format!("{error:#}"))?;
        self.state = State::Running { guest: Box::pin(enter(pre, store)), ledger };
        Ok(())
    }

    /// Instructions a second: a core's, or what the limits leave of them.
    fn pace(&self) -> u64 {
        let cpu = self.limits.cpu_millis.map_or(FUEL_A_SECOND, |millis| millis.saturating_mul(FUEL_A_SECOND / 1_000));
        cpu.min(self.limits.fuel_per_second.unwrap_or(u64::MAX)).clamp(1, FUEL_A_SECOND)
    }

    /// What so many instructions take with what the limits leave of a core.
    fn time(&self, fuel: u64) -> Duration {
        let nanos = u128::from(fuel) * 1_000_000_000 / u128::from(self.pace());
        core_time(fuel).max(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Gives it a turn, or its end when the time has come. Answers when it is next due; never: it has ended.
    pub(super) fn turn(&mut self, now: Now) -> Option<Instant> {
        match &mut self.state {
            State::Created | State::Ended(_) => None,
            State::Ending { at, exit, .. } => {
                let (at, exit) = (*at, exit.clone());
                if at > now.mono {
                    return Some(at);
                }
                self.state = State::Ended(exit);
                None
            }
            State::Running { guest, ledger } => {
                let ledger = Arc::clone(ledger);
                locked(&ledger).begin(now);
                let polled = guest.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                Some(self.turned(now, ledger, polled))
            }
        }
    }

    fn turned(&mut self, now: Now, ledger: Arc<Mutex<Ledger>>, polled: Poll<wasmtime::Result<()>>) -> Instant {
        let mut book = locked(&ledger);
        match polled {
            Poll::Pending => {
                let wait = book.waits();
                if wait.is_none() {
                    book.interrupted();
                }
                let free = now.mono + self.time(book.spent());
                match wait {
                    Some(Wait::Until(due)) => due.max(free),
                    Some(Wait::Turn(_)) | None => free,
                }
            }
            Poll::Ready(result) => {
                if let Err(error) = &result
                    && exit::is_unexplained(error)
                {
                    let line = format!("{}\n", exit::explanation(error).trim_end());
                    book.output.push((LogStream::Stderr, line.into_bytes()));
                }
                let at = now.mono + core_time(book.spent());
                drop(book);
                let ended = exit::of(&result);
                let exit = Exit { message: self.termination_message().or(ended.message), ..ended };
                self.state = State::Ending { at, exit, ledger };
                at
            }
        }
    }

    fn termination_message(&self) -> Option<String> {
        let (folder, path) = &self.made.message;
        let super::folder::Entry::File(file) = folder.find(path).ok()? else { return None };
        let message = file.head(MESSAGE_MAX);
        (!message.is_empty()).then(|| String::from_utf8_lossy(&message).into_owned())
    }

    /// What it wrote since it was last asked.
    pub(super) fn take_output(&mut self) -> Vec<(LogStream, Vec<u8>)> {
        match &self.state {
            State::Running { ledger, .. } | State::Ending { ledger, .. } => std::mem::take(&mut locked(ledger).output),
            State::Created | State::Ended(_) => Vec::new(),
        }
    }

    /// What it uses, while it runs.
    pub(super) fn usage(&self) -> Option<Usage> {
        let State::Running { ledger, .. } = &self.state else { return None };
        let used = locked(ledger).used();
        let metered = self.limits.fuel.is_some() || self.limits.fuel_per_second.is_some();
        Some(Usage {
            cpu_nanos: u64::try_from(core_time(used).as_nanos()).unwrap_or(u64::MAX),
            memory_bytes: self.memory.used(),
            fuel: metered.then_some(used),
        })
    }
}

/// The whole life of a guest.
async fn enter(pre: InstancePre<Guest>, mut store: Store<Guest>) -> wasmtime::Result<()> {
    let result = call(&pre, &mut store).await;
    if let Ok(left) = store.get_fuel() {
        store.data().ledger().left(left);
    }
    result
}

async fn call(pre: &InstancePre<Guest>, store: &mut Store<Guest>) -> wasmtime::Result<()> {
    let instance = pre.instantiate_async(&mut *store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
    start.call_async(&mut *store, ()).await
}
