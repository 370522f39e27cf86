//! Ingresses.

use std::net::IpAddr;

use coracle_api::resources::INGRESS_CLASSES;
use coracle_api::{Cause, Status};
use coracle_base::Now;
use serde_json::{Value, json};

use super::table;
use super::value::{items, object_mut, restore, set, text};
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::name::{dns_1035_label, dns_subdomain, port_name, port_number};

/// The strategy of Ingresses.
#[derive(Debug)]
pub(crate) struct IngressStrategy;

/// The annotation that named the class before the field was there.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// The annotation of the class that Ingresses without one get.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How many hosts the table shows.
const HOSTS_SHOWN: usize = 3;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Class",
        "string",
        "The name of the IngressClass resource that should be used for additional configuration",
    ),
    table::column("Hosts", "string", "Hosts that incoming requests are matched against before the ingress rule"),
    table::column("Address", "string", "Address is a list containing ingress points for the load-balancer"),
    table::column("Ports", "string", "Ports of TLS configurations that open"),
    table::AGE,
];

impl Strategy for IngressStrategy {
    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        set(object, "status", json!({"loadBalancer": {}}));
        let annotated = object["metadata"]["annotations"][CLASS_ANNOTATION].is_string();
        let Some(spec) = object_mut(object, "spec") else { return Ok(()) };
        if spec["ingressClassName"].is_null() && !annotated {
            set(spec, "ingressClassName", default_class(context));
        }
        Ok(())
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        restore(object, old, if context.subresource == "status" { "spec" } else { "status" });
        Ok(())
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        if subresource == "status" {
            return causes.into_vec();
        }
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        check_spec(spec, &path, &mut causes);
        let annotation = &object["metadata"]["annotations"][CLASS_ANNOTATION];
        if old.is_none() && annotation.is_string() && spec["ingressClassName"].is_string() {
            let at = FieldPath::new("metadata").child("annotations").child(CLASS_ANNOTATION);
            causes.invalid(&at, annotation.clone(), "can not be set when the class field is also set");
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let spec = &object["spec"];
        let tls = !items(spec, "tls").is_empty();
        table::row([
            table::name(object),
            table::or(text(spec, "ingressClassName"), "<none>").into(),
            hosts(spec).into(),
            addresses(object).into(),
            if tls { "80, 443" } else { "80" }.into(),
            table::age(object, now),
        ])
    }
}

/// The newest of the classes that are the default, as admission chooses it.
fn default_class(context: &StrategyContext<'_>) -> Value {
    let classes = context.view.list(&INGRESS_CLASSES, None);
    let defaults = classes.filter(|class| class.value(None)["metadata"]["annotations"][IS_DEFAULT] == "true");
    let newest = defaults
        .min_by_key(|class| (std::cmp::Reverse(class.metadata().creation_timestamp), class.key().name.to_string()));
    newest.map_or(Value::Null, |class| (*class.key().name).into())
}

fn hosts(spec: &Value) -> String {
    let mut hosts: Vec<&str> = Vec::new();
    for host in items(spec, "rules").iter().map(|rule| text(rule, "host")).filter(|host| !host.is_empty()) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    match hosts.len() {
        0 => "*".into(),
        count if count > HOSTS_SHOWN => format!("{} + {} more...", hosts[..HOSTS_SHOWN].join(","), count - HOSTS_SHOWN),
        _ => hosts.join(","),
    }
}

fn addresses(object: &Value) -> String {
    let ingress = items(&object["status"]["loadBalancer"], "ingress").iter();
    let all = ingress.map(|entry| table::or(text(entry, "ip"), text(entry, "hostname")).to_owned());
    all.filter(|address| !address.is_empty()).collect::<Vec<_>>().join(",")
}

fn check_spec(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    let (rules, backend) = (items(spec, "rules"), &spec["defaultBackend"]);
    if rules.is_empty() && backend.is_null() {
        causes.invalid(path, spec["rules"].clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if !backend.is_null() {
        check_backend(backend, &path.child("defaultBackend"), causes);
    }
    for (index, rule) in rules.iter().enumerate() {
        check_rule(rule, &path.child("rules").index(index), causes);
    }
    for (index, tls) in items(spec, "tls").iter().enumerate() {
        let at = path.child("tls").index(index);
        for (index, host) in items(tls, "hosts").iter().enumerate() {
            check_host(host.as_str().unwrap_or_default(), &at.child("hosts").index(index), causes);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            causes.invalid_each(&at.child("secretName"), secret, dns_subdomain(secret));
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        causes.invalid_each(&path.child("ingressClassName"), class, dns_subdomain(class));
    }
}

fn check_host(host: &str, path: &FieldPath, causes: &mut Causes) {
    let rest = host.strip_prefix("*.").unwrap_or(host);
    if rest.contains('*') {
        let why = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
                   lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        causes.invalid(path, host, why);
    } else {
        causes.invalid_each(path, host, dns_subdomain(rest));
    }
}

fn check_rule(rule: &Value, path: &FieldPath, causes: &mut Causes) {
    let host = text(rule, "host");
    if host.parse::<IpAddr>().is_ok() {
        causes.invalid(&path.child("host"), host, "must be a DNS name, not an IP address");
    } else if !host.is_empty() {
        check_host(host, &path.child("host"), causes);
    }
    if rule["http"].is_null() {
        return;
    }
    let (paths, at) = (items(&rule["http"], "paths"), path.children(&["http", "paths"]));
    if paths.is_empty() {
        causes.required(&at, "");
    }
    for (index, one) in paths.iter().enumerate() {
        check_path(one, &at.index(index), causes);
        check_backend(&one["backend"], &at.index(index).child("backend"), causes);
    }
}

fn check_path(one: &Value, path: &FieldPath, causes: &mut Causes) {
    let (value, at) = (text(one, "path"), path.child("path"));
    let is_absolute = value.starts_with('/');
    match one["pathType"].as_str() {
        None => causes.required(&path.child("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !is_absolute {
                causes.invalid(&at, value, "must be an absolute path");
            }
            if value.is_empty() {
                return;
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|s| value.contains(s)) {
                causes.invalid(&at, value, format!("must not contain '{sequence}'"));
            }
            for suffix in ["/..", "/."].into_iter().filter(|suffix| value.ends_with(suffix)) {
                causes.invalid(&at, value, format!("cannot end with '{suffix}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !is_absolute {
                causes.invalid(&at, value, "must be an absolute path");
            }
        }
        Some(other) => {
            causes.not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]);
        }
    }
}

fn check_backend(backend: &Value, path: &FieldPath, causes: &mut Causes) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_null(), resource.is_null()) {
        (true, true) => causes.required(path, "resource or service backend is required"),
        (false, false) => causes.invalid(path, "", "cannot set both resource and service backends"),
        (true, false) => {
            for field in ["kind", "name"].into_iter().filter(|field| text(resource, field).is_empty()) {
                causes.required(&path.child("resource").child(field), "");
            }
        }
        (false, true) => {
            let (name, at) = (text(service, "name"), path.child("service"));
            if name.is_empty() {
                causes.required(&at.child("name"), "");
            } else {
                causes.invalid_each(&at.child("name"), name, dns_1035_label(name));
            }
            let (port, at) = (&service["port"], at.child("port"));
            let (named, number) = (text(port, "name"), port["number"].as_i64().unwrap_or(0));
            if !named.is_empty() && number != 0 {
                causes.invalid(&at, port.clone(), "cannot set both port name & port number");
            } else if !named.is_empty() {
                causes.invalid_each(&at.child("name"), named, port_name(named));
            } else if number != 0 {
                causes.invalid_each(&at.child("number"), number, port_number(number));
            } else {
                causes.required(&at, "port name or number is required");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{World, cells, texts};

    fn ingress() -> Value {
        json!({"metadata": {"name": "i", "namespace": "shop"}, "spec": {
            "ingressClassName": "coracle",
            "rules": [{"host": "shop.example", "http": {"paths": [
                {"path": "/api", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
            ]}}],
            "tls": [{"hosts": ["shop.example"], "secretName": "cert"}],
        }, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
    }

    #[track_caller]
    fn wrong(pointer: &str, value: Value) -> Vec<String> {
        let mut object = ingress();
        *object.pointer_mut(pointer).unwrap() = value;
        texts(IngressStrategy.validate(&object, None, ""))
    }

    #[test]
    fn a_sound_ingress_is_taken_and_shown() {
        assert_eq!(texts(IngressStrategy.validate(&ingress(), None, "")), [""; 0]);
        let row = json!(["i", "coracle", "shop.example", "192.0.2.1", "80, 443", "<unknown>"]);
        assert_eq!(cells(&IngressStrategy, &ingress()), row);
    }

    #[test]
    fn what_leads_nowhere_or_cannot_be_a_host_or_path_is_refused() {
        let path = "spec.rules[0].http.paths[0]";
        let at = "/spec/rules/0/http/paths/0";
        assert_eq!(
            wrong("/spec", json!({})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        assert_eq!(
            wrong("/spec/rules/0/host", json!("192.0.2.1")),
            ["spec.rules[0].host: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address"]
        );
        assert_eq!(
            wrong(&format!("{at}/pathType"), Value::Null),
            [format!("{path}.pathType: Required value: pathType must be specified")]
        );
        assert_eq!(
            wrong(&format!("{at}/path"), json!("api")),
            [format!("{path}.path: Invalid value: \"api\": must be an absolute path")]
        );
        assert_eq!(
            wrong(&format!("{at}/path"), json!("/a//b")),
            [format!("{path}.path: Invalid value: \"/a//b\": must not contain '//'")]
        );
        assert_eq!(
            wrong(&format!("{at}/backend"), json!({})),
            [format!("{path}.backend: Required value: resource or service backend is required")]
        );
        assert_eq!(
            wrong(&format!("{at}/backend/service/port"), json!({})),
            [format!("{path}.backend.service.port: Required value: port name or number is required")]
        );
    }

    #[test]
    fn an_ingress_without_a_class_gets_the_default_one() {
        let class = json!({"metadata": {"name": "coracle", "annotations": {IS_DEFAULT: "true"}}});
        let mut world = World::new().with(&INGRESS_CLASSES, class);
        let mut object = ingress();
        object["spec"]["ingressClassName"] = Value::Null;
        world.create(&IngressStrategy, &mut object).unwrap();
        assert_eq!(object["spec"]["ingressClassName"], "coracle");
        assert_eq!(object["status"], json!({"loadBalancer": {}}));
    }
}
