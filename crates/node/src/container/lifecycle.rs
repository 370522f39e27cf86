//! A running container: hooks, probes, and how it is stopped.

use super::{
    Container, Context, Duration, EventType, Instant, IpAddr, PodView, PostStart, ProbeId, ProbeKind, ProbeResult,
    Step, Stop, StopReason, StopStep, Verdict, reasons,
};
use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::pod_spec::seconds;
use crate::probe;
use crate::runtime::{ProbeAction, RuntimeCommand};

/// What a container has at least, after its `preStop` hook, to end by itself.
const LEAST_GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);

/// How long a `postStart` hook over HTTP may take; Kubernetes names no limit, but a hook without one would never be reported.
const POST_START_TIMEOUT: Duration = Duration::from_mins(1);

/// What a hook does.
enum Hook {
    Run(ProbeAction),
    Sleep(Duration),
}

impl Container {
    /// Begins the `postStart` hook, or goes on without one.
    pub(super) fn begin_post_start(&mut self, pod: &PodView, address: IpAddr, context: &mut Context<'_>) {
        let handler = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone());
        match handler.map(|handler| self.hook(&handler)) {
            None => self.begin_probing(context.now.mono),
            Some(Ok(Hook::Sleep(time))) => {
                self.post_start = Some(PostStart { id: None, until: Some(context.now.mono + time) });
            }
            Some(Ok(Hook::Run(action))) => {
                let Some(id) = self.id(pod) else { return };
                let id = context.probe(id, address, action, POST_START_TIMEOUT);
                self.post_start = Some(PostStart { id: Some(id), until: None });
            }
            Some(Err(_)) => self.post_start_failed(pod, address, context),
        }
    }

    fn hook(&self, handler: &LifecycleHandler) -> Result<Hook, String> {
        if let Some(get) = &handler.http_get {
            probe::http(get, &self.spec).map(Hook::Run)
        } else if let Some(sleep) = &handler.sleep {
            Ok(Hook::Sleep(seconds(sleep.seconds)))
        } else if let Some(exec) = &handler.exec {
            Ok(Hook::Run(ProbeAction::Exec { command: exec.command.clone().unwrap_or_default() }))
        } else {
            Err("the hook has no handler that this node knows".into())
        }
    }

    fn post_start_failed(&mut self, pod: &PodView, address: IpAddr, context: &mut Context<'_>) {
        self.post_start = None;
        self.event(pod, context, EventType::Warning, reasons::FAILED_POST_START_HOOK, "PostStartHook failed".into());
        self.waiting = Some((reasons::POST_START_HOOK_ERROR, "PostStartHook failed".into()));
        let message = format!("Container {} failed its PostStartHook", self.name());
        self.stop(pod, address, StopReason::HookFailed, pod.grace(), message, context);
    }

    /// From here on the container counts as running: probes begin, or it is started and ready at once.
    fn begin_probing(&mut self, now: Instant) {
        let began = self.began;
        if let Some(startup) = self.probers.iter_mut().find(|prober| prober.kind == ProbeKind::Startup) {
            startup.begin(began, now);
        } else {
            self.become_started(now);
        }
    }

    /// Takes a container over that runs from before.
    pub(super) fn resume_probing(&mut self, now: Instant) {
        self.began = now;
        self.begin_probing(now);
    }

    fn become_started(&mut self, now: Instant) {
        self.started = true;
        self.ready = true;
        let began = self.began;
        for prober in &mut self.probers {
            match prober.kind {
                ProbeKind::Startup => prober.end(),
                ProbeKind::Liveness => prober.begin(began, now),
                ProbeKind::Readiness => {
                    self.ready = false;
                    prober.begin(began, now);
                }
            }
        }
    }

    /// Time has passed while it runs.
    pub(super) fn advance_running(&mut self, pod: &PodView, address: IpAddr, context: &mut Context<'_>) {
        let now = context.now.mono;
        if self.post_start.and_then(|hook| hook.until).is_some_and(|until| until <= now) {
            self.post_start = None;
            self.begin_probing(now);
        }
        self.advance_stop(pod, context);
        self.send_probes(pod, address, context);
    }

    fn send_probes(&mut self, pod: &PodView, address: IpAddr, context: &mut Context<'_>) {
        let now = context.now.mono;
        let Some(id) = self.id(pod) else { return };
        for index in 0..self.probers.len() {
            let prober = &mut self.probers[index];
            if !prober.is_due(now) {
                continue;
            }
            match prober.action.clone() {
                Ok(action) => {
                    let timeout = prober.timeout;
                    let probe = context.probe(id.clone(), address, action, timeout);
                    self.probers[index].sent(probe, now);
                }
                Err(why) => {
                    // Nothing that this instance does would change it.
                    let kind = prober.kind;
                    prober.end();
                    self.say_unhealthy(pod, kind, &ProbeResult::Error(why), context);
                }
            }
        }
    }

    fn say_unhealthy(&self, pod: &PodView, kind: ProbeKind, result: &ProbeResult, context: &mut Context<'_>) {
        let title = kind.title();
        let message = match result {
            ProbeResult::Success => return,
            ProbeResult::Failure(why) => format!("{title} probe failed: {why}"),
            ProbeResult::Error(why) => format!("{title} probe errored and resulted in unknown state: {why}"),
        };
        self.event(pod, context, EventType::Warning, reasons::UNHEALTHY, message);
    }

    /// A probe or a hook was answered; whether it was one of this container's.
    pub(crate) fn probed(
        &mut self,
        pod: &PodView,
        address: IpAddr,
        id: ProbeId,
        result: &ProbeResult,
        context: &mut Context<'_>,
    ) -> bool {
        if self.post_start.is_some_and(|hook| hook.id == Some(id)) {
            self.post_start = None;
            if *result == ProbeResult::Success {
                self.begin_probing(context.now.mono);
            } else {
                self.post_start_failed(pod, address, context);
            }
            return true;
        }
        if let Some(Stop { step: StopStep::Hook { id: Some(hook), .. }, .. }) = self.stop
            && hook == id
        {
            if *result != ProbeResult::Success {
                self.say_pre_stop_failed(pod, context);
            }
            self.ask_to_end(pod, context);
            return true;
        }
        let Some(index) = self.probers.iter_mut().position(|prober| prober.takes(id)) else { return false };
        let kind = self.probers[index].kind;
        self.say_unhealthy(pod, kind, result, context);
        let verdict = self.probers[index].count(result);
        self.judge(pod, address, index, verdict, context);
        true
    }

    fn judge(
        &mut self,
        pod: &PodView,
        address: IpAddr,
        index: usize,
        verdict: Option<Verdict>,
        context: &mut Context<'_>,
    ) {
        let (kind, grace) = (self.probers[index].kind, self.probers[index].grace);
        match (kind, verdict) {
            (_, None) | (ProbeKind::Liveness, Some(Verdict::Passed)) => {}
            (ProbeKind::Readiness, Some(verdict)) => self.ready = verdict == Verdict::Passed,
            (ProbeKind::Startup, Some(Verdict::Passed)) => self.become_started(context.now.mono),
            (ProbeKind::Startup | ProbeKind::Liveness, Some(Verdict::Failed)) => {
                let which = if kind == ProbeKind::Startup { "startup" } else { "liveness" };
                let message = format!("Container {} failed {which} probe, will be restarted", self.name());
                let grace = grace.unwrap_or_else(|| pod.grace());
                self.stop(pod, address, StopReason::Unhealthy, grace, message, context);
            }
        }
    }

    /// Stops it, unless it is being stopped already; then only a shorter grace counts, and that its pod ends.
    /// A container without a process will not start any more if its pod ends.
    pub(crate) fn stop(
        &mut self,
        pod: &PodView,
        address: IpAddr,
        reason: StopReason,
        grace: Duration,
        message: String,
        context: &mut Context<'_>,
    ) {
        let now = context.now.mono;
        if !self.is_alive() {
            if reason == StopReason::PodEnds {
                self.step = Step::Ended;
            }
            return;
        }
        for prober in self.probers.iter_mut().filter(|prober| prober.kind != ProbeKind::Readiness) {
            prober.end();
        }
        if let Some(stop) = &mut self.stop {
            if now + grace < stop.asked {
                stop.asked = now + grace;
                stop.deadline = stop.deadline.min(stop.asked);
            }
            if reason == StopReason::PodEnds {
                stop.reason = reason;
            }
            self.advance_stop(pod, context);
            return;
        }
        self.post_start = None;
        self.event(pod, context, EventType::Normal, reasons::KILLING, message);
        let (step, deadline) = (StopStep::Hook { id: None, until: None }, now + grace);
        self.stop = Some(Stop { reason, step, asked: deadline, deadline });
        self.begin_pre_stop(pod, address, grace, context);
    }

    fn begin_pre_stop(&mut self, pod: &PodView, address: IpAddr, grace: Duration, context: &mut Context<'_>) {
        let handler = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone());
        let hook = handler.filter(|_| grace > Duration::ZERO).map(|handler| self.hook(&handler));
        let step = match hook {
            Some(Ok(Hook::Sleep(time))) => StopStep::Hook { id: None, until: Some(context.now.mono + time) },
            Some(Ok(Hook::Run(action))) => {
                let Some(id) = self.id(pod) else { return };
                StopStep::Hook { id: Some(context.probe(id, address, action, grace)), until: None }
            }
            Some(Err(_)) => {
                self.say_pre_stop_failed(pod, context);
                return self.ask_to_end(pod, context);
            }
            None => return self.ask_to_end(pod, context),
        };
        if let Some(stop) = &mut self.stop {
            stop.step = step;
        }
    }

    fn say_pre_stop_failed(&self, pod: &PodView, context: &mut Context<'_>) {
        self.event(pod, context, EventType::Warning, reasons::FAILED_PRE_STOP_HOOK, "PreStopHook failed".into());
    }

    /// Asks it to end, after the hook; kills it at once when there is no grace at all.
    fn ask_to_end(&mut self, pod: &PodView, context: &mut Context<'_>) {
        let now = context.now.mono;
        let Some(id) = self.id(pod) else { return };
        let Some(stop) = &mut self.stop else { return };
        let had_hook = self.spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
        if had_hook {
            stop.deadline = stop.deadline.max(now + LEAST_GRACE_AFTER_HOOK);
        }
        stop.step = StopStep::Asked;
        if stop.deadline > now {
            context.command(RuntimeCommand::StopContainer(id));
        } else {
            self.advance_stop(pod, context);
        }
    }

    /// Time has passed while it is being stopped.
    pub(crate) fn advance_stop(&mut self, pod: &PodView, context: &mut Context<'_>) {
        let now = context.now.mono;
        let Some(stop) = self.stop else { return };
        match stop.step {
            StopStep::Hook { until, .. } => {
                if stop.deadline <= now || until.is_some_and(|until| until <= now) {
                    self.ask_to_end(pod, context);
                }
            }
            StopStep::Asked if stop.deadline <= now => {
                let Some(id) = self.id(pod) else { return };
                if let Some(stop) = &mut self.stop {
                    stop.step = StopStep::Killed;
                }
                context.command(RuntimeCommand::KillContainer(id));
            }
            StopStep::Asked | StopStep::Killed => {}
        }
    }

    /// Whether it is being stopped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Time has passed while its pod ends: probes, hooks and its own stop go on, and nothing begins.
    pub(crate) fn advance_if_running(&mut self, pod: &PodView, address: IpAddr, context: &mut Context<'_>) {
        match self.step {
            Step::Running => self.advance_running(pod, address, context),
            Step::Starting => self.advance_stop(pod, context),
            _ => {}
        }
    }

    /// Its image changed in the spec: what runs is replaced, what failed is tried again at once.
    pub(crate) fn change_image(
        &mut self,
        spec: &k8s_openapi::api::core::v1::Container,
        pod: &PodView,
        address: IpAddr,
        context: &mut Context<'_>,
    ) {
        self.spec = spec.clone();
        match self.step {
            Step::Starting | Step::Running => {
                let message = format!("Container {} definition changed, will be restarted", self.name());
                self.stop(pod, address, StopReason::Changed, pod.grace(), message, context);
            }
            Step::Pulling { .. } | Step::PullBackOff { .. } | Step::CreateBackOff { .. } | Step::BackOff { .. } => {
                self.pull_backoff.reset();
                self.create_backoff.reset();
                self.crash_loop.restart();
                self.waiting = None;
                self.step = Step::Idle;
            }
            Step::Pulled => self.step = Step::Idle,
            Step::Idle | Step::ConfigError | Step::Creating { .. } | Step::Ended => {}
        }
    }
}
