//! IngressClasses.

use coracle_api::Cause;
use coracle_base::Now;
use serde_json::Value;

use super::table;
use super::value::text;
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::name::dns_subdomain;

/// The strategy of IngressClasses.
#[derive(Debug)]
pub(crate) struct IngressClassStrategy;

/// How long the name of a controller may be.
const CONTROLLER_MAX: usize = 250;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Controller", "string", "Controller that is responsible for handling this class"),
    table::column("Parameters", "string", "A reference to a resource with additional parameters"),
    table::AGE,
];

impl Strategy for IngressClassStrategy {
    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let (controller, at) = (text(spec, "controller"), path.child("controller"));
        let mut causes = Causes::new();
        if let Some(old) = old {
            causes.immutable(&at, &spec["controller"], &old["spec"]["controller"]);
        }
        if controller.is_empty() {
            causes.required(&at, "");
        } else if controller.len() > CONTROLLER_MAX {
            causes.too_long(&at, CONTROLLER_MAX);
        } else if controller
            .split_once('/')
            .is_none_or(|(domain, rest)| !dns_subdomain(domain).is_empty() || rest.is_empty())
        {
            causes.invalid(&at, controller, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
        check_parameters(&spec["parameters"], &path.child("parameters"), &mut causes);
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let (spec, parameters) = (&object["spec"], &object["spec"]["parameters"]);
        let group = text(parameters, "apiGroup");
        let kind = text(parameters, "kind").to_owned() + if group.is_empty() { "" } else { "." } + group;
        let shown = if parameters.is_null() { "<none>".into() } else { format!("{kind}/{}", text(parameters, "name")) };
        table::row([table::name(object), text(spec, "controller").into(), shown.into(), table::age(object, now)])
    }
}

fn check_parameters(parameters: &Value, path: &FieldPath, causes: &mut Causes) {
    if parameters.is_null() {
        return;
    }
    for field in ["kind", "name"].into_iter().filter(|field| text(parameters, field).is_empty()) {
        causes.required(&path.child(field), "");
    }
    let namespace = &parameters["namespace"];
    match parameters["scope"].as_str() {
        None | Some("Cluster") if !namespace.is_null() => {
            causes.forbidden(&path.child("namespace"), "parameters.scope is set to 'Cluster'");
        }
        Some("Namespace") if namespace.is_null() => {
            causes.required(&path.child("namespace"), "parameters.scope is set to 'Namespace'");
        }
        None | Some("Cluster" | "Namespace") => {}
        Some(other) => causes.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn a_controller_is_a_path_below_a_domain_and_stays() {
        let class = |controller: &str| json!({"metadata": {"name": "c"}, "spec": {"controller": controller}});
        assert_eq!(texts(IngressClassStrategy.validate(&class("coracle.dev/ingress"), None, "")), [""; 0]);
        assert_eq!(texts(IngressClassStrategy.validate(&class(""), None, "")), ["spec.controller: Required value"]);
        let wrong = texts(IngressClassStrategy.validate(&class("a.b/d"), Some(&class("a.b/c")), ""));
        assert_eq!(wrong, ["spec.controller: Invalid value: \"a.b/d\": field is immutable"]);
        assert_eq!(cells(&IngressClassStrategy, &class("a.b/c")), json!(["c", "a.b/c", "<none>", "<unknown>"]));
    }
}
