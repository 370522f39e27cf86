//! One container of a pod, from its image to its end and its next start.
//!
//! It knows its own container only: the order among containers and the pod's end are the pod worker's.

mod image;
mod lifecycle;
mod restore;

pub(crate) use restore::from_status;

use std::net::IpAddr;
use std::time::Duration;

use coracle_base::{Backoff, Instant, Timestamp};
use k8s_openapi::api::core::v1::Container as ContainerSpecView;
use serde_json::Value;

use crate::context::Context;
use crate::downward::Downward;
use crate::env::Environment;
use crate::feature;
use crate::pod_spec::{PodView, Role, limits};
use crate::probe::{ProbeKind, Prober, Verdict};
use crate::reasons;
use crate::restart::{CrashLoop, RestartPolicy, RestartRules, Termination, go_duration};
use crate::runtime::{
    ContainerError, ContainerId, ContainerSpec, Exit, Login, Mount, ProbeId, ProbeResult, Propagation, PullId,
    RuntimeCommand, RuntimeKind, Security, Terminal,
};
use crate::{ContainerCheckpoint, EventType, security};

/// The waits between tries to pull an image, and to create a container that could not be created.
const RETRY_INITIAL: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_mins(5);

/// How long a failure to start shows as `RunContainerError`, which names the cause, before it shows as `CrashLoopBackOff`.
const RUN_ERROR_SHOWN: Duration = Duration::from_secs(10);

/// Where a container is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It has not begun, or begins anew.
    Idle,
    /// Its image was asked for.
    Pulling { pull: PullId },
    /// Its image is there, before its pod has a sandbox: the image says which runtime makes that.
    Pulled,
    /// Its image could not be had; `said` tells whether that is reported as a back-off already.
    PullBackOff { failed: Instant, until: Instant, said: bool },
    /// Something that its spec refers to is missing.
    ConfigError,
    /// It was to be created as this instance.
    Creating { instance: u32 },
    /// It could not be created.
    CreateBackOff { until: Instant },
    /// It was to be started.
    Starting,
    /// It runs; its `postStart` hook may not be over.
    Running,
    /// It ended and waits for its next start; `say`: when that is to be reported, if it was not yet.
    BackOff { until: Instant, say: Option<Instant> },
    /// It will not start (again).
    Ended,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Its pod ends.
    PodEnds,
    /// A probe failed: it starts again unless the policy is Never.
    Unhealthy,
    /// Its image changed: it starts again.
    Changed,
    /// Its `postStart` hook failed: its policy decides.
    HookFailed,
}

/// A stop on its way.
#[derive(Clone, Copy, Debug)]
struct Stop {
    reason: StopReason,
    step: StopStep,
    /// The end of the grace that was asked for.
    asked: Instant,
    /// When it is killed: later than `asked` where its hook used the grace up.
    deadline: Instant,
}

#[derive(Clone, Copy, Debug)]
enum StopStep {
    /// The `preStop` hook: an answer that is waited for, or a sleep until a time.
    Hook { id: Option<ProbeId>, until: Option<Instant> },
    /// It was asked to end.
    Asked,
    /// It was killed.
    Killed,
}

/// A `postStart` hook on its way.
#[derive(Clone, Copy, Debug)]
struct PostStart {
    id: Option<ProbeId>,
    until: Option<Instant>,
}

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) role: Role,
    pub(crate) spec: ContainerSpecView,
    pub(crate) step: Step,
    /// `state.waiting`, where there is something to say beside that it is being created.
    pub(crate) waiting: Option<(&'static str, String)>,
    /// The latest instance; its number is the restart count.
    pub(crate) instance: Option<u32>,
    pub(crate) running_since: Option<Timestamp>,
    /// How the latest instance ended.
    pub(crate) terminated: Option<Termination>,
    /// How the one before ended.
    pub(crate) last: Option<Termination>,
    pub(crate) image_id: String,
    /// As whom it last asked for its image, and whether it was said that it is being pulled.
    logins: Vec<Login>,
    said_pulling: bool,
    /// The runtime of its pod, once that is decided.
    pub(crate) runtime: Option<RuntimeKind>,
    /// Who its image runs as.
    image_user: String,
    /// `started`: it runs, its `postStart` hook is over and its startup probe has succeeded.
    pub(crate) started: bool,
    /// `ready`, as far as its probes are concerned.
    ready: bool,
    /// Its program said that it is not ready.
    says_unready: bool,
    restart_rules: RestartRules,
    finished: Instant,
    began: Instant,
    pull_backoff: Backoff,
    create_backoff: Backoff,
    crash_loop: CrashLoop,
    probers: Vec<Prober>,
    stop: Option<Stop>,
    post_start: Option<PostStart>,
}

impl Container {
    /// A container that has not begun.
    pub(crate) fn new(role: Role, spec: &ContainerSpecView, pod: &PodView, crash_loop_max: Duration) -> Self {
        let own = spec_value(pod, role, &spec.name);
        let named = own["restartPolicy"].as_str().map(|policy| RestartPolicy::parse(Some(policy)));
        let policy = match (role, named.unwrap_or_else(|| pod.restart_policy())) {
            (Role::Sidecar, _) => RestartPolicy::Always,
            (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
            (_, policy) => policy,
        };
        Self {
            role,
            spec: spec.clone(),
            step: Step::Idle,
            waiting: None,
            instance: None,
            running_since: None,
            terminated: None,
            last: None,
            image_id: String::new(),
            logins: Vec::new(),
            said_pulling: false,
            runtime: None,
            image_user: String::new(),
            started: false,
            ready: false,
            says_unready: false,
            restart_rules: RestartRules::of(own, policy),
            finished: Instant::ZERO,
            began: Instant::ZERO,
            pull_backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            create_backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            crash_loop: CrashLoop::new(crash_loop_max),
            probers: probers(spec),
            stop: None,
            post_start: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(crate) fn image(&self) -> &str {
        self.spec.image.as_deref().unwrap_or_default()
    }

    /// The id of the latest instance.
    pub(crate) fn id(&self, pod: &PodView) -> Option<ContainerId> {
        Some(ContainerId { pod: pod.uid.clone(), container: self.spec.name.clone(), instance: self.instance? })
    }

    /// `ready`: its probes and its program agree.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready && !self.says_unready
    }

    /// Its program said whether it is ready.
    pub(crate) fn readiness_said(&mut self, id: &ContainerId, ready: bool) {
        if self.is_alive() && self.instance == Some(id.instance) {
            self.says_unready = !ready;
        }
    }

    /// Whether there is a process of it, or may be one.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.step, Step::Starting | Step::Running)
    }

    /// Whether it ended for good, successfully.
    pub(crate) fn has_succeeded(&self) -> bool {
        self.step == Step::Ended && self.terminated.as_ref().is_some_and(|end| end.exit_code == 0)
    }

    /// Whether it ended for good, and not successfully.
    pub(crate) fn has_failed(&self) -> bool {
        self.step == Step::Ended && !self.has_succeeded()
    }

    /// Whether an init container lets the next one begin.
    pub(crate) fn lets_next_begin(&self) -> bool {
        if self.role == Role::Sidecar { self.started } else { self.has_succeeded() }
    }

    /// When it wants to be advanced again.
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        let step = match self.step {
            Step::PullBackOff { failed, said: false, until } => Some(until.min(failed + image::ERR_IMAGE_PULL_SHOWN)),
            Step::BackOff { until, say: Some(say) } => Some(until.min(say)),
            Step::PullBackOff { until, .. } | Step::CreateBackOff { until } | Step::BackOff { until, .. } => {
                Some(until)
            }
            _ => None,
        };
        let stop = self.stop.as_ref().and_then(|stop| match stop.step {
            StopStep::Hook { until, .. } => Some(until.map_or(stop.deadline, |until| until.min(stop.deadline))),
            StopStep::Asked => Some(stop.deadline),
            StopStep::Killed => None,
        });
        let hook = self.post_start.and_then(|hook| hook.until);
        let probes = self.probers.iter().filter_map(Prober::next).min();
        [step, stop, hook, probes].into_iter().flatten().min()
    }

    /// Goes on as far as time lets it. `address` is the pod's.
    pub(crate) fn advance(&mut self, pod: &PodView, address: IpAddr, context: &mut Context<'_>) {
        let now = context.now.mono;
        match self.step {
            Step::Idle | Step::PullBackOff { .. } => self.advance_pull(pod, context),
            Step::Pulled => self.create(pod, address, context),
            Step::CreateBackOff { until } if until <= now => self.begin_pull(pod, context),
            Step::BackOff { until, .. } if until <= now => {
                self.crash_loop.charge(now, self.finished);
                self.begin_pull(pod, context);
            }
            Step::BackOff { until, say: Some(say) } if say <= now => {
                self.step = Step::BackOff { until, say: None };
                self.say_back_off(pod, context);
            }
            Step::Starting => self.advance_stop(pod, context),
            Step::Running => self.advance_running(pod, address, context),
            _ => {}
        }
    }

    /// Tries again what failed because something was missing that may be there now.
    pub(crate) fn objects_changed(&mut self, pod: &PodView, address: IpAddr, context: &mut Context<'_>) {
        match self.step {
            Step::ConfigError => self.create(pod, address, context),
            Step::PullBackOff { .. } if context.logins(pod, self.image()).0 != self.logins => {
                self.pull_backoff.reset();
                self.begin_pull(pod, context);
            }
            _ => {}
        }
    }

    /// Creates the next instance.
    fn create(&mut self, pod: &PodView, address: IpAddr, context: &mut Context<'_>) {
        let instance = self.instance.map_or(0, |instance| instance + 1);
        match self.container_spec(pod, instance, address, context) {
            Ok(spec) => {
                if let Some(old) = self.id(pod) {
                    context.command(RuntimeCommand::RemoveContainer(old));
                }
                self.step = Step::Creating { instance };
                context.command(RuntimeCommand::CreateContainer(Box::new(spec)));
            }
            Err(message) => {
                self.step = Step::ConfigError;
                let waiting = Some((reasons::CREATE_CONTAINER_CONFIG_ERROR, message));
                if self.waiting != waiting {
                    self.waiting = waiting;
                    self.fail_event(pod, context);
                }
            }
        }
    }

    fn container_spec(
        &self,
        pod: &PodView,
        instance: u32,
        address: IpAddr,
        context: &Context<'_>,
    ) -> Result<ContainerSpec, String> {
        let shared = &*context.shared;
        let own = spec_value(pod, self.role, self.name());
        let runtime = self.runtime.and_then(|runtime| shared.config.runtimes.get(&runtime));
        let features = runtime.map(|runtime| &runtime.features).ok_or("the pod has no runtime yet")?;
        feature::check(&pod.value["spec"], list_of(self.role), self.name(), features)?;
        let security = match self.runtime {
            Some(RuntimeKind::Container) => security::of(pod, own, &self.image_user)?,
            _ => Security::default(),
        };
        let downward = Downward { pod, config: &shared.config, address: Some(address) };
        let environment = Environment::resolve(&self.spec, &shared.objects, downward)?;
        let expand_all = |texts: &Option<Vec<String>>| -> Vec<String> {
            texts.iter().flatten().map(|text| environment.expand(text)).collect()
        };
        let mounts = self.spec.volume_mounts.iter().flatten().map(|mount| {
            let sub_path = match &mount.sub_path_expr {
                Some(expression) if !expression.is_empty() => Some(environment.expand(expression)),
                _ => mount.sub_path.clone(),
            };
            Mount {
                volume: mount.name.clone(),
                path: mount.mount_path.clone(),
                sub_path: sub_path.filter(|path| !path.is_empty()),
                read_only: mount.read_only.unwrap_or(false),
                propagation: match mount.mount_propagation.as_deref() {
                    Some("HostToContainer") => Propagation::HostToContainer,
                    Some("Bidirectional") => Propagation::Bidirectional,
                    _ => Propagation::None,
                },
            }
        });
        let ports =
            self.spec.ports.iter().flatten().filter(|port| matches!(port.protocol.as_deref(), None | Some("TCP")));
        Ok(ContainerSpec {
            id: ContainerId { pod: pod.uid.clone(), container: self.spec.name.clone(), instance },
            image: self.image().to_owned(),
            command: expand_all(&self.spec.command),
            args: expand_all(&self.spec.args),
            working_dir: self.spec.working_dir.clone().filter(|dir| !dir.is_empty()),
            mounts: mounts.collect(),
            ports: ports.filter_map(|port| u16::try_from(port.container_port).ok()).collect(),
            limits: limits(pod, &self.spec, &shared.config),
            security,
            terminal: Terminal {
                stdin: self.spec.stdin == Some(true),
                stdin_once: self.spec.stdin_once == Some(true),
                tty: self.spec.tty == Some(true),
            },
            pod: pod.told_metadata(&shared.config.name),
            stop_signal: own["lifecycle"]["stopSignal"].as_str().map(str::to_owned),
            termination_message_path: self
                .spec
                .termination_message_path
                .clone()
                .unwrap_or_else(|| "/dev/termination-log".into()),
            env: environment.into_pairs(),
        })
    }

    /// The runtime created the instance, or not.
    pub(crate) fn created(
        &mut self,
        pod: &PodView,
        id: &ContainerId,
        result: Result<(), ContainerError>,
        context: &mut Context<'_>,
    ) {
        if self.step != (Step::Creating { instance: id.instance }) {
            return;
        }
        match result {
            Ok(()) => {
                self.instance = Some(id.instance);
                if let Some(end) = self.terminated.take() {
                    self.last = Some(end);
                }
                self.create_backoff.reset();
                self.event(pod, context, EventType::Normal, reasons::CREATED, "Container created".into());
                self.step = Step::Starting;
                context.command(RuntimeCommand::StartContainer(id.clone()));
            }
            Err(ContainerError::Create(message)) => {
                self.waiting = Some((reasons::CREATE_CONTAINER_ERROR, message));
                self.fail_event(pod, context);
                self.step = Step::CreateBackOff { until: context.now.mono + self.create_backoff.next_wait() };
            }
            Err(ContainerError::Run(message)) => {
                self.instance = Some(id.instance);
                self.start_failed(pod, message, context);
            }
        }
    }

    /// The runtime started the instance, or not.
    pub(crate) fn start_answered(
        &mut self,
        pod: &PodView,
        id: &ContainerId,
        address: IpAddr,
        result: Result<(), ContainerError>,
        context: &mut Context<'_>,
    ) {
        if self.step != Step::Starting || self.instance != Some(id.instance) {
            return;
        }
        match result {
            Ok(()) => {
                self.step = Step::Running;
                self.waiting = None;
                self.began = context.now.mono;
                self.running_since = Some(context.now.wall);
                self.event(pod, context, EventType::Normal, reasons::STARTED, "Container started".into());
                self.begin_post_start(pod, address, context);
            }
            Err(error) => self.start_failed(pod, error.message().to_owned(), context),
        }
    }

    fn start_failed(&mut self, pod: &PodView, message: String, context: &mut Context<'_>) {
        self.waiting = Some((reasons::RUN_CONTAINER_ERROR, message.clone()));
        self.fail_event(pod, context);
        let stop = self.stop.take();
        if let Some(before) = self.terminated.take() {
            self.last = Some(before);
        }
        self.terminated = Some(Termination {
            instance: self.instance.unwrap_or_default(),
            exit_code: 128,
            signal: None,
            reason: reasons::START_ERROR.into(),
            message: Some(message),
            started_at: None,
            finished_at: context.now.wall,
        });
        self.decide_restart(pod, stop.map(|stop| stop.reason), context);
    }

    /// The instance ended.
    pub(crate) fn exited(&mut self, pod: &PodView, id: &ContainerId, exit: Exit, context: &mut Context<'_>) {
        if !self.is_alive() || self.instance != Some(id.instance) {
            return;
        }
        let reason = match (exit.reason, exit.code) {
            (Some(reason), _) => reason,
            (None, 0) => reasons::COMPLETED.into(),
            (None, _) => reasons::ERROR.into(),
        };
        let falls_back = self.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let message = exit.message.filter(|message| !message.is_empty());
        let message = message.or_else(|| exit.log_tail.filter(|tail| falls_back && exit.code != 0 && !tail.is_empty()));
        if let Some(before) = self.terminated.take() {
            self.last = Some(before);
        }
        self.terminated = Some(Termination {
            instance: id.instance,
            exit_code: exit.code,
            signal: exit.signal,
            reason,
            message,
            started_at: self.running_since.take(),
            finished_at: context.now.wall,
        });
        let stop = self.stop.take();
        self.decide_restart(pod, stop.map(|stop| stop.reason), context);
    }

    /// Whether and when it starts again, after it ended just now.
    fn decide_restart(&mut self, pod: &PodView, stopped: Option<StopReason>, context: &mut Context<'_>) {
        let now = context.now.mono;
        self.finished = now;
        self.running_since = None;
        self.started = false;
        self.ready = false;
        self.says_unready = false;
        self.post_start = None;
        self.probers.iter_mut().for_each(Prober::end);
        let code = self.terminated.as_ref().map_or(0, |end| end.exit_code);
        let restarts = match stopped {
            Some(StopReason::PodEnds) => false,
            Some(StopReason::Changed) => true,
            stopped => self.restart_rules.restarts(code, stopped == Some(StopReason::Unhealthy)),
        };
        if !restarts {
            self.waiting = None;
            self.step = Step::Ended;
        } else if let Some((until, _)) = self.crash_loop.wait(now).filter(|(until, _)| *until > now) {
            let could_not_start = matches!(self.waiting, Some((reasons::RUN_CONTAINER_ERROR, _)));
            self.step = Step::BackOff { until, say: could_not_start.then(|| now + RUN_ERROR_SHOWN) };
            if !could_not_start {
                self.say_back_off(pod, context);
            }
        } else {
            self.crash_loop.charge(now, now);
            self.step = Step::Idle;
        }
    }

    /// `state.waiting` of a crash loop.
    fn crash_loop_message(&self, pod: &PodView) -> String {
        let wait = go_duration(self.crash_loop.entry().map_or(Duration::ZERO, |(wait, _)| wait));
        format!("back-off {wait} restarting failed container={} pod={}", self.name(), pod.full_name())
    }

    fn say_back_off(&mut self, pod: &PodView, context: &mut Context<'_>) {
        let (name, full_name) = (self.name(), pod.full_name());
        let namespace = match pod.namespace() {
            "default" => String::new(),
            namespace => format!(" -n {namespace}"),
        };
        // Not Kubernetes' own: the evidence is mostly in the first failure, and nobody finds it without being told.
        let event = format!(
            "Back-off restarting failed container {name} in pod {full_name}; what it printed when it first failed: \
             coracle logs {}{namespace} -c {name} --instance first",
            pod.name()
        );
        self.waiting = Some((reasons::CRASH_LOOP_BACK_OFF, self.crash_loop_message(pod)));
        self.event(pod, context, EventType::Warning, reasons::BACK_OFF, event);
    }

    /// Marks what was never seen to end as lost: its pod is over.
    pub(crate) fn mark_lost(&mut self, message: &str, now: Timestamp) {
        if self.terminated.is_none() {
            self.terminated = Some(lost(self.instance.unwrap_or_default(), self.running_since.take(), message, now));
        }
        self.waiting = None;
    }

    /// `Error: <waiting message>`, as failures to create and start a container are told.
    fn fail_event(&self, pod: &PodView, context: &mut Context<'_>) {
        let message = self.waiting.as_ref().map_or("", |(_, message)| message.as_str());
        self.event(pod, context, EventType::Warning, reasons::FAILED, format!("Error: {message}"));
    }

    pub(crate) fn event(
        &self,
        pod: &PodView,
        context: &mut Context<'_>,
        event_type: EventType,
        reason: &'static str,
        message: String,
    ) {
        let field_path = format!("spec.{}{{{}}}", list_of(self.role), self.name());
        context.event(pod, Some(field_path), event_type, reason, message);
    }
}

/// The list of a pod's spec that containers of a role are in.
const fn list_of(role: Role) -> &'static str {
    match role {
        Role::Main => "containers",
        Role::Init | Role::Sidecar => "initContainers",
    }
}

/// A container as its pod's JSON has it: fields that are newer than the types are there too.
fn spec_value<'a>(pod: &'a PodView, role: Role, name: &str) -> &'a Value {
    let containers = pod.value["spec"][list_of(role)].as_array().map(Vec::as_slice).unwrap_or_default();
    containers.iter().find(|container| container["name"] == *name).unwrap_or(&Value::Null)
}

/// How a container that nobody saw end is shown.
fn lost(instance: u32, started_at: Option<Timestamp>, message: &str, now: Timestamp) -> Termination {
    Termination {
        instance,
        exit_code: 137,
        signal: None,
        reason: reasons::CONTAINER_STATUS_UNKNOWN.into(),
        message: Some(message.into()),
        started_at,
        finished_at: now,
    }
}

fn probers(spec: &ContainerSpecView) -> Vec<Prober> {
    [
        (ProbeKind::Startup, &spec.startup_probe),
        (ProbeKind::Liveness, &spec.liveness_probe),
        (ProbeKind::Readiness, &spec.readiness_probe),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| Some(Prober::new(kind, probe.as_ref()?, spec)))
    .collect()
}
