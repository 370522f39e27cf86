//! Figures and their targets, printed as they come.

use std::time::{Duration, Instant};

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// It is told for its own sake.
    None,
}

/// Prints figures, and counts those that miss their target.
#[derive(Debug, Default)]
pub struct Report {
    met: usize,
    missed: usize,
}

impl Report {
    /// A figure in a unit.
    #[expect(clippy::print_stdout, reason = "a bench prints its figures")]
    pub fn figure(&mut self, what: &str, value: f64, unit: &str, target: Target) {
        let (wanted, met) = match target {
            Target::AtMost(most) => (format!("at most {most} {unit}"), Some(value <= most)),
            Target::AtLeast(least) => (format!("at least {least} {unit}"), Some(value >= least)),
            Target::None => (String::new(), None),
        };
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        self.met += usize::from(met == Some(true));
        self.missed += usize::from(met == Some(false));
        println!("{what:<72} {value:>10.2} {unit:<6} {wanted:<24} {verdict}");
    }

    /// A time in milliseconds.
    pub fn time(&mut self, what: &str, time: Duration, target: Target) {
        self.figure(what, time.as_secs_f64() * 1e3, "ms", target);
    }

    /// The last line.
    #[expect(clippy::print_stdout, reason = "a bench prints its figures")]
    pub fn end(&self) {
        println!("{} of {} targets met", self.met, self.met + self.missed);
    }
}

/// The middle one of some times.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// How long a future takes.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (Duration, T) {
    let started = Instant::now();
    let value = future.await;
    (started.elapsed(), value)
}

/// The processor time that this process has used, of all its threads.
pub(crate) fn cpu_time() -> anyhow::Result<Duration> {
    threads_time(|_| true)
}

/// The processor time of the threads that run guests and nothing else.
pub(crate) fn guests_time() -> anyhow::Result<Duration> {
    threads_time(|name| name == "coracle-guest")
}

fn threads_time(counts: impl Fn(&str) -> bool) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    // Threads that ended are only in `stat`, which counts in hundredths of a second: no part measured here ends one.
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let read = |file: &str| std::fs::read_to_string(task.join(file));
        let (Ok(name), Ok(text)) = (read("comm"), read("schedstat")) else { continue };
        if !counts(name.trim_end()) {
            continue;
        }
        nanos += text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    anyhow::ensure!(nanos > 0, "/proc/self/task/*/schedstat tells no processor time");
    Ok(Duration::from_nanos(nanos))
}
