//! Time slices: guests yield at epoch ticks, their CPU time is measured around each poll, and those over their quota
//! pause.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use wasmtime::{Engine, EngineWeak};

use crate::account::Account;
use crate::engine::Metering;

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

/// What ends a time slice.
#[derive(Clone, Debug)]
pub(crate) enum Slicing {
    /// A tick; CPU time is measured.
    Ticks(Arc<Ticker>),
    /// A count of instructions, which take the time of a virtual core: whoever runs inline has no thread that could tick.
    Fuel,
}

impl Slicing {
    /// The time, for quotas. tokio's clock is the machine's unless somebody pauses it.
    #[expect(clippy::unused_self, reason = "the clock belongs to the slices that it measures")]
    pub(crate) fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    pub(crate) fn is_by_fuel(&self) -> bool {
        matches!(self, Self::Fuel)
    }

    /// Whether guests that do not ask for it have their instructions counted.
    pub(crate) fn metering(&self) -> Metering {
        if self.is_by_fuel() { Metering::On } else { Metering::Off }
    }

    /// Adds an engine whose guests are to be sliced.
    pub(crate) fn add(&self, engine: &Engine) {
        if let Self::Ticks(ticker) = self {
            ticker.add(engine);
        }
    }

    /// Ends the thread, where there is one.
    pub(crate) fn close(&self) {
        if let Self::Ticks(ticker) = self {
            ticker.close();
        }
    }
}

/// A guest's future that runs within its account.
pub(crate) struct Sliced<F> {
    guest: Pin<Box<F>>,
    account: Arc<Account>,
    slicing: Slicing,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F> Sliced<F> {
    pub(crate) fn new(guest: F, account: Arc<Account>, slicing: Slicing) -> Self {
        Self { guest: Box::pin(guest), account, slicing, pause: None }
    }
}

impl<F: Future> Sliced<F> {
    /// Waits until its quotas let it run.
    fn poll_quotas(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.account.pause(self.slicing.now()) {
                Some(wait) => self.pause = Some(Box::pin(tokio::time::sleep(wait))),
                None => return Poll::Ready(()),
            }
        }
    }

    /// One slice by the clock.
    fn poll_tick(&mut self, ticker: &Ticker, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _running = ticker.enter();
        let before = thread_cpu_nanos();
        let polled = self.guest.as_mut().poll(cx);
        self.account.charge_cpu(thread_cpu_nanos().saturating_sub(before));
        polled
    }

    /// One slice by instructions. A guest whose slice is used up wakes itself while it is polled; it goes on when the time
    /// that the slice takes has passed.
    fn poll_fuel(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let itself = Arc::new(Itself::new(cx.waker()));
        let waker = Waker::from(Arc::clone(&itself));
        let polled = self.guest.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() && itself.was_woken() {
            self.pause = Some(Box::pin(tokio::time::sleep(self.account.charge_slice())));
        }
        polled
    }
}

impl<F: Future> Future for Sliced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        ready!(self.poll_quotas(cx));
        match self.slicing.clone() {
            Slicing::Ticks(ticker) => self.poll_tick(&ticker, cx),
            Slicing::Fuel => self.poll_fuel(cx),
        }
    }
}

/// Notes that a task was woken.
pub(crate) struct Itself {
    woken: AtomicBool,
    task: Waker,
}

impl Itself {
    pub(crate) fn new(task: &Waker) -> Self {
        Self { woken: AtomicBool::new(false), task: task.clone() }
    }

    pub(crate) fn was_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }
}

impl Wake for Itself {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.task.wake_by_ref();
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
