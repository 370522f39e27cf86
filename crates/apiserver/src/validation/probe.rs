//! Probes and lifecycle hooks.

use serde_json::Value;

use super::field::{Causes, FieldPath};
use super::name::{port_name, port_number};
use crate::kinds::value::{items, text};

/// Which probe it is; each may do something that the others may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `livenessProbe`.
    Liveness,
    /// `readinessProbe`.
    Readiness,
    /// `startupProbe`.
    Startup,
}

/// Checks a probe; `grace` is the pod's `terminationGracePeriodSeconds`.
pub(crate) fn check_probe(probe: &Value, kind: Kind, grace: Option<i64>, path: &FieldPath, causes: &mut Causes) {
    if probe.is_null() {
        return;
    }
    check_handler(probe, grace, path, causes);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        causes.nonnegative(&path.child(field), &probe[field]);
    }
    let own_grace = probe["terminationGracePeriodSeconds"].as_i64();
    let at = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = own_grace.filter(|seconds| *seconds <= 0) {
        causes.invalid(&at, seconds, "must be greater than 0");
    }
    if kind == Kind::Readiness {
        if let Some(seconds) = own_grace {
            causes.invalid(&at, seconds, "must not be set for readinessProbes");
        }
    } else if let Some(threshold) = probe["successThreshold"].as_i64().filter(|threshold| *threshold != 1) {
        causes.invalid(&path.child("successThreshold"), threshold, "must be 1");
    }
}

/// Checks `lifecycle`.
pub(crate) fn check_lifecycle(lifecycle: &Value, grace: Option<i64>, path: &FieldPath, causes: &mut Causes) {
    for hook in ["postStart", "preStop"] {
        if !lifecycle[hook].is_null() {
            check_handler(&lifecycle[hook], grace, &path.child(hook), causes);
        }
    }
}

/// Checks that there is exactly one handler, and that one.
fn check_handler(handler: &Value, grace: Option<i64>, path: &FieldPath, causes: &mut Causes) {
    let mut first = true;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let (action, path) = (&handler[kind], path.child(kind));
        if action.is_null() {
            continue;
        }
        if !first {
            causes.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        first = false;
        match kind {
            "exec" if items(action, "command").is_empty() => causes.required(&path.child("command"), ""),
            "exec" => {}
            "httpGet" => check_http_get(action, &path, causes),
            "sleep" => check_sleep(action, grace, &path, causes),
            _ => check_port(&action["port"], &path.child("port"), causes),
        }
    }
    if first {
        causes.required(path, "must specify a handler type");
    }
}

fn check_http_get(action: &Value, path: &FieldPath, causes: &mut Causes) {
    if text(action, "path").is_empty() {
        causes.required(&path.child("path"), "");
    }
    check_port(&action["port"], &path.child("port"), causes);
    let scheme = text(action, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        causes.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in items(action, "httpHeaders") {
        let name = text(header, "name");
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', \
                regex used for validation is '[-A-Za-z0-9]+')";
            causes.invalid(&path.child("httpHeaders"), name, why);
        }
    }
}

fn check_sleep(action: &Value, grace: Option<i64>, path: &FieldPath, causes: &mut Causes) {
    let seconds = action["seconds"].as_i64().unwrap_or(0);
    if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        causes.invalid(path, seconds, why);
    }
}

/// Checks a port given by number or name.
pub(crate) fn check_port(port: &Value, path: &FieldPath, causes: &mut Causes) {
    if let Some(name) = port.as_str() {
        causes.invalid_each(path, name, port_name(name));
    } else {
        let number = port.as_i64().unwrap_or(0);
        causes.invalid_each(path, number, port_number(number));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::texts;

    fn wrong(probe: &Value, kind: Kind) -> Vec<String> {
        let mut causes = Causes::new();
        check_probe(probe, kind, Some(30), &FieldPath::new("p"), &mut causes);
        texts(causes.into_vec())
    }

    #[test]
    fn a_probe_has_one_handler() {
        assert_eq!(wrong(&json!({}), Kind::Liveness), ["p: Required value: must specify a handler type"]);
        let two = json!({"exec": {}, "tcpSocket": {"port": 1}});
        assert_eq!(
            wrong(&two, Kind::Liveness),
            ["p.exec.command: Required value", "p.tcpSocket: Forbidden: may not specify more than 1 handler type"]
        );
    }

    #[test]
    fn handlers_and_thresholds_are_checked() {
        let probe = json!({"httpGet": {"path": "/", "port": 70000, "scheme": "FTP", "httpHeaders": [{"name": "a b"}]},
            "periodSeconds": -1, "successThreshold": 2});
        let texts = wrong(&probe, Kind::Startup);
        assert_eq!(texts[0], "p.httpGet.port: Invalid value: 70000: must be between 1 and 65535, inclusive");
        assert_eq!(texts[1], "p.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"");
        assert!(
            texts[2].starts_with("p.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of")
        );
        assert_eq!(texts[3], "p.periodSeconds: Invalid value: -1: must be greater than or equal to 0");
        assert_eq!(texts[4], "p.successThreshold: Invalid value: 2: must be 1");
        let ready = json!({"tcpSocket": {"port": "http"}, "terminationGracePeriodSeconds": 0, "successThreshold": 2});
        assert_eq!(
            wrong(&ready, Kind::Readiness),
            [
                "p.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
                "p.terminationGracePeriodSeconds: Invalid value: 0: must not be set for readinessProbes",
            ]
        );
    }

    #[test]
    fn a_hook_sleeps_no_longer_than_the_grace() {
        let mut causes = Causes::new();
        check_lifecycle(&json!({"preStop": {"sleep": {"seconds": 31}}}), Some(30), &FieldPath::new("l"), &mut causes);
        assert_eq!(
            texts(causes.into_vec()),
            [
                "l.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"
            ]
        );
    }
}
