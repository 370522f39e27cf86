//! A container from before the agent started: what was kept of it, and what its Kubernetes status says.

use coracle_base::{Instant, Now, Timestamp};
use serde_json::Value;

use super::{Container, ContainerCheckpoint, PodView, Step, lost, reasons};
use crate::Termination;
use crate::context::Context;
use crate::pod_spec::Role;
use crate::restart::CrashLoop;
use crate::runtime::ExistingContainer;

/// What is said of a container that was not found again.
const NOT_FOUND: &str = "The container could not be located after the node restarted";

impl Container {
    /// What to keep of it.
    pub(crate) fn checkpoint(&self, now: Now) -> ContainerCheckpoint {
        let backoff = self.crash_loop.entry().map(|(wait, charged)| {
            (u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), now.wall - now.mono.saturating_since(charged))
        });
        ContainerCheckpoint {
            name: self.spec.name.clone(),
            instance: self.instance,
            running_since: self.running_since,
            terminated: self.terminated.clone(),
            last_termination: self.last.clone(),
            image_id: self.image_id.clone(),
            backoff,
        }
    }

    /// Becomes what it was. A running container that the runtime still has is taken over;
    /// one that it lost starts again as the policy says, without a wait, because it did not fail.
    pub(crate) fn restore(
        &mut self,
        kept: ContainerCheckpoint,
        existing: Option<&ExistingContainer>,
        pod: &PodView,
        context: &mut Context<'_>,
    ) {
        let now = context.now;
        self.instance = kept.instance;
        self.image_id = kept.image_id;
        self.last = kept.last_termination;
        let Some(instance) = kept.instance else { return };
        if let Some((millis, charged)) = kept.backoff {
            let wait = std::time::Duration::from_millis(millis);
            let max = context.shared.config.crash_loop_max;
            self.crash_loop = CrashLoop::resumed(max, wait, mono_of(charged, now));
        }
        match (existing, kept.terminated) {
            (Some(existing), None) if existing.exit.is_none() => {
                self.step = Step::Running;
                self.running_since = existing.started_at.or(kept.running_since);
                self.resume_probing(now.mono);
            }
            (Some(ExistingContainer { id, exit: Some(exit), .. }), None) => {
                self.step = Step::Running;
                self.running_since = kept.running_since;
                self.exited(pod, &id.clone(), exit.clone(), context);
            }
            (_, None) => {
                let end = lost(instance, kept.running_since, NOT_FOUND, now.wall);
                self.finished = now.mono;
                self.step = if self.restart_rules.restarts(end.exit_code, false) { Step::Idle } else { Step::Ended };
                self.terminated = Some(end);
            }
            (_, Some(end)) => self.restore_ended(end, pod, now),
        }
    }

    fn restore_ended(&mut self, end: Termination, pod: &PodView, now: Now) {
        let finished_at = end.finished_at;
        self.finished = mono_of(finished_at, now);
        let restarts = self.restart_rules.restarts(end.exit_code, false);
        self.terminated = Some(end);
        if !restarts {
            self.step = Step::Ended;
        } else if let Some(until) = self
            .crash_loop
            .wait(self.finished)
            .map(|(_, wait)| mono_of(finished_at + wait, now))
            .filter(|until| *until > now.mono)
        {
            self.waiting = Some((reasons::CRASH_LOOP_BACK_OFF, self.crash_loop_message(pod)));
            self.step = Step::BackOff { until, say: None };
        } else {
            self.step = Step::BackOff { until: now.mono, say: None };
        }
    }

    /// Runs again from the beginning, as init containers do in a new sandbox.
    pub(crate) fn run_again(&mut self) {
        if self.role != Role::Main && self.step == Step::Ended {
            self.step = Step::Idle;
        }
    }
}

/// A container as its pod's status in the API has it; `None` when that says nothing of it.
pub(crate) fn from_status(status: &Value, name: &str) -> Option<ContainerCheckpoint> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let found = lists.into_iter().flat_map(|list| status[list].as_array().into_iter().flatten());
    let status = found.into_iter().find(|status| status["name"] == *name)?;
    let restarts = u32::try_from(status["restartCount"].as_u64()?).ok()?;
    let time = |value: &Value| value.as_str().and_then(|text| Timestamp::parse(text).ok());
    let end = |state: &Value, instance: u32| {
        let ended = state.get("terminated")?;
        Some(Termination {
            instance,
            exit_code: ended["exitCode"].as_i64().unwrap_or_default() as i32,
            signal: ended["signal"].as_i64().filter(|signal| *signal != 0).map(|signal| signal as i32),
            reason: ended["reason"].as_str().unwrap_or_default().into(),
            message: ended["message"].as_str().map(str::to_owned),
            started_at: time(&ended["startedAt"]),
            finished_at: time(&ended["finishedAt"])?,
        })
    };
    let running = status["state"].get("running");
    let (state, last) = (end(&status["state"], restarts), end(&status["lastState"], restarts.saturating_sub(1)));
    if running.is_none() && state.is_none() && last.is_none() {
        return None;
    }
    // A container that waits for its next start shows how it ended as its last state.
    let (terminated, last_termination) = if running.is_some() || state.is_some() {
        (state, last)
    } else {
        (last.map(|end| Termination { instance: restarts, ..end }), None)
    };
    Some(ContainerCheckpoint {
        name: name.into(),
        instance: Some(restarts),
        running_since: running.and_then(|running| time(&running["startedAt"])),
        terminated,
        last_termination,
        image_id: status["imageID"].as_str().unwrap_or_default().into(),
        backoff: None,
    })
}

/// A wall time as the monotonic reading that was or will be then.
fn mono_of(wall: Timestamp, now: Now) -> Instant {
    if wall >= now.wall {
        return now.mono + wall.saturating_since(now.wall);
    }
    let ago = u64::try_from(now.wall.saturating_since(wall).as_nanos()).unwrap_or(u64::MAX);
    Instant::from_nanos(now.mono.as_nanos().saturating_sub(ago))
}
