//! Time slices: guests yield at epoch ticks, their CPU time is measured around each poll, and those over their quota
//! pause.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use wasmtime::{Engine, EngineWeak};

use crate::account::Account;

/// The length of an epoch tick, the unit of time slices.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a running guest after which the ticker sleeps until there is one.
const IDLE_TICKS: u32 = 20;

/// Advances the epoch while guests run, and sleeps while none does.
pub(crate) struct Ticker {
    running: AtomicUsize,
    parked: AtomicBool,
    closed: AtomicBool,
    thread: OnceLock<Thread>,
    engines: Mutex<Vec<EngineWeak>>,
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Ticker {
    /// Starts the ticker's thread.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self {
            running: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            thread: OnceLock::new(),
            engines: Mutex::default(),
        });
        let shared = Arc::clone(&ticker);
        let thread = std::thread::Builder::new().name("coracle-epoch".to_owned()).spawn(move || shared.tick())?;
        let _ = ticker.thread.set(thread.thread().clone());
        Ok(ticker)
    }

    /// Adds an engine whose epoch to advance.
    pub(crate) fn add(&self, engine: &Engine) {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine.weak());
    }

    /// Ends the thread.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn tick(&self) {
        let mut idle = 0;
        while !self.closed.load(Ordering::SeqCst) {
            idle = if self.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
            if idle > IDLE_TICKS {
                // First say that it sleeps, then look again: `enter` counts first and then looks whether it sleeps.
                self.parked.store(true, Ordering::SeqCst);
                if self.running.load(Ordering::SeqCst) == 0 && !self.closed.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.parked.store(false, Ordering::SeqCst);
                idle = 0;
                continue;
            }
            std::thread::sleep(TICK);
            for engine in self.engines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                if let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                }
            }
        }
    }

    fn enter(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(self)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// A guest runs on this thread.
struct Running<'a>(&'a Ticker);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A guest's future that runs within its account.
pub(crate) struct Sliced<F> {
    guest: Pin<Box<F>>,
    account: Arc<Account>,
    ticker: Arc<Ticker>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F> Sliced<F> {
    pub(crate) fn new(guest: F, account: Arc<Account>, ticker: Arc<Ticker>) -> Self {
        Self { guest: Box::pin(guest), account, ticker, pause: None }
    }
}

impl<F: Future> Future for Sliced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.account.pause(Instant::now()) {
                Some(wait) => self.pause = Some(Box::pin(tokio::time::sleep(wait))),
                None => break,
            }
        }
        let this = &mut *self;
        let _running = this.ticker.enter();
        let before = thread_cpu_nanos();
        let polled = this.guest.as_mut().poll(cx);
        this.account.charge_cpu(thread_cpu_nanos().saturating_sub(before));
        polled
    }
}

/// CPU time of this thread, in nanoseconds.
#[cfg(unix)]
fn thread_cpu_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "the standard library has no clock of a thread's CPU time")]
    // SAFETY: `time` is a valid place for the answer, and the clock exists on every Unix that wasmtime runs on.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result == 0 { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 } else { 0 }
}

/// Where a thread's CPU time cannot be asked for, the time it was scheduled for stands in.
#[cfg(not(unix))]
fn thread_cpu_nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Lowers the priority of this thread, so that guests never delay a heartbeat.
#[cfg(target_os = "linux")]
pub(crate) fn lower_priority() {
    /// Enough that the rest of the process goes first, little enough that guests are not starved by other programs.
    const NICENESS: libc::c_int = 5;
    #[expect(unsafe_code, reason = "the standard library cannot set a thread's priority")]
    // SAFETY: the call touches no memory; on Linux 0 means the calling thread only. A refusal changes nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
    }
}

/// Elsewhere niceness belongs to the whole process: guests run at its own priority.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lower_priority() {}
