//! Which backend a request has: the rules of all Ingresses of a view, in the order in which they count. It opens nothing.

use std::collections::{BTreeMap, BTreeSet};

use coracle_api::resources::{INGRESS_CLASSES, INGRESSES, SECRETS, SERVICES};
use coracle_api::{ObjectKey, Uid};
use coracle_store::View;
use serde::Deserialize;

use crate::dialer;

/// The controller of the classes that are served here.
pub(crate) const CONTROLLER: &str = "coracle.dev/ingress";
/// The annotation that named the class before the field was there.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ingress {
    metadata: Meta,
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    ingress_class_name: Option<String>,
    default_backend: Option<Backend>,
    rules: Option<Vec<Rule>>,
    tls: Option<Vec<Tls>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    host: Option<String>,
    http: Option<Http>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Http {
    paths: Option<Vec<PathRule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PathRule {
    path: Option<String>,
    path_type: Option<String>,
    backend: Backend,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Tls {
    hosts: Option<Vec<String>>,
    secret_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Backend {
    service: Option<ServiceBackend>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceBackend {
    name: String,
    port: BackendPort,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct BackendPort {
    name: Option<String>,
    number: Option<u16>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The service; `None` where the backend is no service, which nobody here serves.
    pub(crate) service: Option<ObjectKey>,
    /// Its port, by number or name.
    pub(crate) port: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    path: String,
    is_exact: bool,
    target: Target,
}

/// What an Ingress lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    pub(crate) ingress: ObjectKey,
    pub(crate) uid: Option<Uid>,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The rules.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// By host, the wildcards with their star; the rules of an empty one are for all.
    hosts: BTreeMap<String, Vec<Route>>,
    fallback: Option<Target>,
    /// The Secret with a host's certificate.
    pub(crate) secrets: BTreeMap<String, ObjectKey>,
    /// The Ingresses that are served.
    pub(crate) ingresses: Vec<ObjectKey>,
    /// What they lack.
    pub(crate) faults: BTreeSet<Fault>,
}

impl Routes {
    /// Those of a view.
    pub(crate) fn of(view: &View) -> Self {
        let classes: BTreeSet<String> = view
            .list(&INGRESS_CLASSES, None)
            .filter(|class| class.value(None)["spec"]["controller"] == CONTROLLER)
            .map(|class| class.key().name.to_string())
            .collect();
        let mut all: Vec<_> =
            view.list(&INGRESSES, None).filter(|o| o.metadata().deletion_timestamp.is_none()).collect();
        // Of two that want the same the older has it.
        all.sort_by_key(|object| (object.metadata().creation_timestamp, object.key().clone()));
        let mut routes = Self::default();
        for object in all {
            let Some(ingress) = view.decode::<Ingress>(object) else { continue };
            let annotations = ingress.metadata.annotations.as_ref();
            let annotated = annotations.and_then(|annotations| annotations.get(CLASS_ANNOTATION));
            let class = ingress.spec.ingress_class_name.as_ref().or(annotated);
            if class.is_some_and(|class| classes.contains(class)) {
                routes.ingresses.push(object.key().clone());
                routes.add(view, object.key(), object.metadata().uid.as_ref(), &ingress.spec);
            }
        }
        for host in routes.hosts.values_mut() {
            // Exact paths first, then the longest; of equal ones the first that came.
            host.sort_by_key(|route| (std::cmp::Reverse(route.is_exact), std::cmp::Reverse(route.path.len())));
        }
        routes
    }

    fn add(&mut self, view: &View, ingress: &ObjectKey, uid: Option<&Uid>, spec: &Spec) {
        let mut faults = Vec::new();
        let mut target = |backend: &Backend| {
            let target = target_of(ingress, backend);
            faults.extend(fault_of(view, &target));
            target
        };
        if let Some(backend) = &spec.default_backend {
            let target = target(backend);
            self.fallback.get_or_insert(target);
        }
        let paths = || spec.rules.iter().flatten().filter_map(|rule| rule.http.as_ref()?.paths.as_ref()).flatten();
        let mut expressions = Vec::new();
        for rule in paths().filter(|rule| !matches!(rule.path_type.as_deref(), Some("Exact" | "Prefix"))) {
            // Other controllers read these as regular expressions; who moves here should hear that this one does not.
            let path = rule.path.as_deref().unwrap_or_default();
            if path.contains(['(', ')', '[', ']', '{', '}', '*', '+', '?', '|', '^', '$', '\\']) {
                let message = format!(
                    "path {path:?} is taken as a prefix, letter by letter: there are no regular expressions here"
                );
                expressions.push(("PathIsNoExpression", message));
            }
        }
        for rule in spec.rules.iter().flatten() {
            let host = rule.host.clone().unwrap_or_default().to_lowercase();
            let routes = self.hosts.entry(host).or_default();
            let paths = rule.http.iter().flat_map(|http| http.paths.iter().flatten());
            routes.extend(paths.map(|rule| Route {
                path: rule.path.clone().unwrap_or_else(|| "/".into()),
                is_exact: rule.path_type.as_deref() == Some("Exact"),
                target: target(&rule.backend),
            }));
        }
        faults.append(&mut expressions);
        for tls in spec.tls.iter().flatten() {
            let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
            let secret = ObjectKey::new(SECRETS, &ingress.namespace, name);
            if view.object(&secret).is_none() {
                let message =
                    format!("Secret {name:?} is not there: its hosts are served with the default certificate");
                faults.push(("SecretNotFound", message));
            }
            let of_rules = || spec.rules.iter().flatten().filter_map(|rule| rule.host.as_ref());
            let hosts: Vec<&String> = match &tls.hosts {
                Some(hosts) if !hosts.is_empty() => hosts.iter().collect(),
                _ => of_rules().collect(),
            };
            for host in hosts {
                self.secrets.entry(host.to_lowercase()).or_insert_with(|| secret.clone());
            }
        }
        let (ingress, uid) = (ingress.clone(), uid.cloned());
        self.faults.extend(faults.into_iter().map(|(reason, message)| Fault {
            ingress: ingress.clone(),
            uid: uid.clone(),
            reason,
            message,
        }));
    }

    /// Blames the Ingresses that name Secrets which hold no certificate.
    pub(crate) fn blame(&mut self, view: &View, unreadable: &BTreeMap<ObjectKey, String>) {
        for key in &self.ingresses {
            let Some(ingress) = view.typed::<Ingress>(key) else { continue };
            for name in ingress.spec.tls.iter().flatten().filter_map(|tls| tls.secret_name.as_deref()) {
                let secret = ObjectKey::new(SECRETS, &key.namespace, name);
                if let Some(why) = unreadable.get(&secret) {
                    self.faults.insert(Fault {
                        ingress: key.clone(),
                        uid: view.object(key).and_then(|object| object.metadata().uid.clone()),
                        reason: "SecretInvalid",
                        message: format!(
                            "Secret {name:?} holds no certificate: {why}; the default certificate is used"
                        ),
                    });
                }
            }
        }
    }

    /// Where a request for a host and a path goes.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Target> {
        let host = host.to_lowercase();
        let wildcard = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let candidates = [Some(host), wildcard, Some(String::new())];
        candidates
            .into_iter()
            .flatten()
            .find_map(|host| self.hosts.get(&host)?.iter().find(|route| route.is_met(path)))
            .map(|route| &route.target)
            .or(self.fallback.as_ref())
    }
}

impl Route {
    /// Whether a path is meant: exactly, or element by element.
    fn is_met(&self, path: &str) -> bool {
        if self.is_exact {
            return path == self.path;
        }
        let prefix = self.path.trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn target_of(ingress: &ObjectKey, backend: &Backend) -> Target {
    let Some(service) = &backend.service else { return Target { service: None, port: String::new() } };
    let port = match (&service.port.name, service.port.number) {
        (Some(name), _) if !name.is_empty() => name.clone(),
        (_, number) => number.unwrap_or_default().to_string(),
    };
    Target { service: Some(ObjectKey::new(SERVICES, &ingress.namespace, &service.name)), port }
}

fn fault_of(view: &View, target: &Target) -> Option<(&'static str, String)> {
    let Some(service) = &target.service else {
        return Some(("BackendNotSupported", "a backend is a resource: only Services are served".into()));
    };
    let name = &service.name;
    if view.object(service).is_none() {
        return Some((
            "ServiceNotFound",
            format!("Service {name:?} is not there: requests for it are answered with 503"),
        ));
    }
    let port = dialer::service_port(view, service, Some(&target.port));
    port.is_none().then(|| {
        let message = format!("Service {name:?} has no port {:?}: requests for it are answered with 503", target.port);
        ("ServicePortNotFound", message)
    })
}

#[cfg(test)]
mod tests;
