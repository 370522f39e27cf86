//! Whether and when an ended container starts again.
//!
//! Source of the rules: the kubelet's back-off manager and <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>.

use std::time::Duration;

use coracle_base::{Instant, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The first wait of a crash loop. The first restart of all does not wait.
const CRASH_LOOP_INITIAL: Duration = Duration::from_secs(10);

/// How a container ended, as `state.terminated` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// The instance that ended.
    pub instance: u32,
    /// The exit code.
    pub exit_code: i32,
    /// The signal, where one ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, ...
    pub reason: String,
    /// What it left to say.
    pub message: Option<String>,
    /// When it started, where it did.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// The back-off of one container that ends again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrashLoop {
    max: Duration,
    entry: Option<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: Duration,
    charged: Instant,
}

impl CrashLoop {
    /// A container that has not failed yet; waits grow to `max`.
    pub(crate) const fn new(max: Duration) -> Self {
        Self { max, entry: None }
    }

    /// A container that has: `wait` was charged at `charged`.
    pub(crate) fn resumed(max: Duration, wait: Duration, charged: Instant) -> Self {
        Self { max, entry: Some(Entry { wait: wait.min(max), charged }) }
    }

    /// Until when a container that ended at `finished` waits, and how long that wait is; `None`: it starts at once.
    pub(crate) fn wait(&self, finished: Instant) -> Option<(Instant, Duration)> {
        let entry = self.entry.filter(|entry| !self.expired(entry, finished))?;
        Some((finished + entry.wait, entry.wait))
    }

    /// Counts a restart at `now` of a container that ended at `finished`.
    pub(crate) fn charge(&mut self, now: Instant, finished: Instant) {
        let wait = match self.entry {
            Some(entry) if !self.expired(&entry, finished) => entry.wait.saturating_mul(2),
            _ => CRASH_LOOP_INITIAL,
        };
        self.entry = Some(Entry { wait: wait.min(self.max), charged: now });
    }

    /// The present wait and when it was charged.
    pub(crate) fn entry(&self) -> Option<(Duration, Instant)> {
        self.entry.map(|entry| (entry.wait, entry.charged))
    }

    /// Forgets that it failed: what it runs is another image now.
    pub(crate) fn restart(&mut self) {
        self.entry = None;
    }

    /// A container that ran for twice the longest wait starts over.
    fn expired(&self, entry: &Entry, finished: Instant) -> bool {
        finished.saturating_since(entry.charged) > self.max * 2
    }
}

/// `restartPolicy` of a pod, or `Always` for a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with this code starts again.
    pub(crate) const fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// When one container starts again: its own policy or its pod's, and rules on exit codes that come before it.
#[derive(Clone, Debug)]
pub(crate) struct RestartRules {
    policy: RestartPolicy,
    /// Exit codes on which it starts again whatever the policy says, each with whether these are all others instead.
    rules: Vec<(bool, Vec<i64>)>,
}

impl RestartRules {
    /// The rules of a container (as JSON) whose policy is `policy` where it has none of its own.
    pub(crate) fn of(container: &Value, policy: RestartPolicy) -> Self {
        let items = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
        let rules = items(&container["restartPolicyRules"]).into_iter().filter(|rule| rule["action"] == "Restart");
        let rules = rules.map(|rule| {
            let codes = &rule["exitCodes"];
            (codes["operator"] == "NotIn", items(&codes["values"]).iter().filter_map(Value::as_i64).collect())
        });
        Self { policy, rules: rules.collect() }
    }

    /// Whether a container that ended with this code starts again; `unhealthy`: because a probe failed.
    pub(crate) fn restarts(&self, exit_code: i32, unhealthy: bool) -> bool {
        let code = i64::from(exit_code);
        self.rules.iter().any(|(others, codes)| codes.contains(&code) != *others)
            || self.policy.restarts(exit_code)
            || unhealthy && self.policy != RestartPolicy::Never
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`, `1.5s`, `250ms`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 && nanos < 1_000_000 {
        return if nanos == 0 { "0s".into() } else { format!("{}µs", fraction(u64::from(nanos), 1000)) };
    }
    if seconds == 0 {
        return format!("{}ms", fraction(u64::from(nanos), 1_000_000));
    }
    let rest = fraction((seconds % 60) * 1_000_000_000 + u64::from(nanos), 1_000_000_000);
    match (seconds / 3600, seconds % 3600 / 60) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn fraction(number: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let rest = format!("{:0digits$}", number % unit);
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { (number / unit).to_string() } else { format!("{}.{rest}", number / unit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_the_maximum_and_start_over_after_twice_the_maximum_of_running() {
        let mut crash_loop = CrashLoop::new(Duration::from_mins(5));
        let mut now = Instant::ZERO;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let finished = now;
            let wait = crash_loop.wait(finished);
            waits.push(wait.map_or(0, |(_, wait)| wait.as_secs()));
            now = wait.map_or(now, |(until, _)| until);
            crash_loop.charge(now, finished);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let finished = now + Duration::from_secs(601);
        assert_eq!(crash_loop.wait(finished), None);
        crash_loop.charge(finished, finished);
        assert_eq!(crash_loop.wait(finished).unwrap().1.as_secs(), 10);
    }

    #[test]
    fn rules_on_exit_codes_come_before_the_policy() {
        let container = serde_json::json!({"restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [42, 43]}}]});
        let rules = RestartRules::of(&container, RestartPolicy::Never);
        assert!(rules.restarts(42, false) && !rules.restarts(1, false) && !rules.restarts(137, true));
        let others = serde_json::json!({"restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 3]}}]});
        let rules = RestartRules::of(&others, RestartPolicy::Never);
        assert!(rules.restarts(1, false) && !rules.restarts(3, false) && !rules.restarts(0, false));
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (millis, text) in [(0, "0s"), (250, "250ms"), (1500, "1.5s"), (80_000, "1m20s"), (300_000, "5m0s")] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
