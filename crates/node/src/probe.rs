//! Probes: when one is due, and what its results add up to. The agent sends, the runtime does.
//!
//! Source of the rules: <https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/> and the kubelet's prober.

use std::time::Duration;

use coracle_base::Instant;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pod_spec::seconds;
use crate::runtime::{ProbeAction, ProbeId, ProbeResult};

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// How Event messages name it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What a probe's results have come to: as often as its threshold in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// One probe of one container.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    pub(crate) kind: ProbeKind,
    pub(crate) action: Result<ProbeAction, String>,
    pub(crate) timeout: Duration,
    /// The grace of a kill that this probe leads to, instead of the pod's.
    pub(crate) grace: Option<Duration>,
    initial_delay: Duration,
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    next: Option<Instant>,
    in_flight: Option<ProbeId>,
    streak: (Verdict, u32),
}

impl Prober {
    pub(crate) fn new(kind: ProbeKind, probe: &Probe, container: &Container) -> Self {
        let number = |number: Option<i32>, default: u32| number.and_then(|n| u32::try_from(n).ok()).unwrap_or(default);
        let at_least_one = |n: Option<i32>, default: u32| number(n, default).max(1);
        Self {
            kind,
            action: action(probe, container),
            timeout: Duration::from_secs(at_least_one(probe.timeout_seconds, 1).into()),
            grace: probe.termination_grace_period_seconds.map(seconds),
            initial_delay: Duration::from_secs(number(probe.initial_delay_seconds, 0).into()),
            period: Duration::from_secs(at_least_one(probe.period_seconds, 10).into()),
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            next: None,
            in_flight: None,
            streak: (Verdict::Failed, 0),
        }
    }

    /// The container started at `started`; probing begins now at the earliest.
    pub(crate) fn begin(&mut self, started: Instant, now: Instant) {
        self.streak = (Verdict::Failed, 0);
        self.in_flight = None;
        self.next = Some((started + self.initial_delay).max(now));
    }

    /// No more probing until [`Self::begin`].
    pub(crate) fn end(&mut self) {
        self.next = None;
        self.in_flight = None;
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.next.filter(|_| self.in_flight.is_none())
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|next| next <= now)
    }

    pub(crate) fn sent(&mut self, id: ProbeId, now: Instant) {
        self.in_flight = Some(id);
        self.next = Some(now + self.period);
    }

    /// Whether this answers the probe in flight; then it is no longer.
    pub(crate) fn takes(&mut self, id: ProbeId) -> bool {
        let mine = self.in_flight == Some(id);
        if mine {
            self.in_flight = None;
        }
        mine
    }

    /// Counts a result; a verdict once there are enough of the same in a row.
    pub(crate) fn count(&mut self, result: &ProbeResult) -> Option<Verdict> {
        let (verdict, threshold) = match result {
            ProbeResult::Success => (Verdict::Passed, self.success_threshold),
            ProbeResult::Failure(_) => (Verdict::Failed, self.failure_threshold),
            ProbeResult::Error(_) => return None,
        };
        let streak = if self.streak.0 == verdict { self.streak.1.saturating_add(1) } else { 1 };
        self.streak = (verdict, streak);
        (streak >= threshold).then_some(verdict)
    }
}

/// A port by number or by name.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named = ports.clone().find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
            match named {
                Some(number) => i64::from(number),
                None => {
                    name.parse().map_err(|_| format!("couldn't find port: {name} in container {}", container.name))?
                }
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// An HTTP request of a probe or a hook.
pub(crate) fn http(get: &HTTPGetAction, container: &Container) -> Result<ProbeAction, String> {
    let headers = get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
    let path = get.path.as_deref().unwrap_or_default();
    Ok(ProbeAction::Http {
        host: get.host.clone().filter(|host| !host.is_empty()),
        port: port(&get.port, container)?,
        path: if path.starts_with('/') { path.into() } else { format!("/{path}") },
        https: get.scheme.as_deref() == Some("HTTPS"),
        headers: headers.collect(),
    })
}

fn action(probe: &Probe, container: &Container) -> Result<ProbeAction, String> {
    if let Some(get) = &probe.http_get {
        http(get, container)
    } else if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.clone().filter(|host| !host.is_empty());
        Ok(ProbeAction::Tcp { host, port: port(&socket.port, container)? })
    } else if let Some(grpc) = &probe.grpc {
        let number = u16::try_from(grpc.port).map_err(|_| format!("invalid port number: {}", grpc.port))?;
        Ok(ProbeAction::Grpc { port: number, service: grpc.service.clone().unwrap_or_default() })
    } else if let Some(exec) = &probe.exec {
        Ok(ProbeAction::Exec { command: exec.command.clone().unwrap_or_default() })
    } else {
        Err(format!("missing probe handler for container {}", container.name))
    }
}
