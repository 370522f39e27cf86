//! A container's environment: references resolved, `$(NAME)` expanded, service variables added.
//!
//! Source of the order and the texts: the kubelet's `makeEnvironmentVariables`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar};
use serde_json::Value;

use crate::downward::Downward;
use crate::objects::{Data, Objects};

/// The environment in the order in which it was defined; a later definition of a name replaces an earlier one in its place.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pairs: Vec<(String, String)>,
}

impl Environment {
    /// Resolves a container's environment. The error is the message of `CreateContainerConfigError`.
    pub(crate) fn resolve(container: &Container, objects: &Objects, downward: Downward<'_>) -> Result<Self, String> {
        let namespace = downward.pod.namespace();
        let links = downward.pod.spec.enable_service_links.unwrap_or(true);
        let services = service_variables(objects, links.then_some(namespace));
        let mut environment = Self::default();
        environment.add_sources(container, objects, namespace)?;
        // `$(NAME)` in a value means a variable of `env` above it or a service variable, not one of `envFrom`.
        let mut defined = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            let value = match &variable.value_from {
                None => {
                    let lookup = |name: &str| defined.get(name).or_else(|| services.get(name)).map(String::as_str);
                    Some(expand(variable.value.as_deref().unwrap_or_default(), lookup))
                }
                Some(_) => value_from(variable, container, objects, downward)?,
            };
            if let Some(value) = value {
                defined.insert(variable.name.clone(), value.clone());
                environment.set(&variable.name, value);
            }
        }
        for (name, value) in services {
            if environment.value(&name).is_none() {
                environment.pairs.push((name, value));
            }
        }
        Ok(environment)
    }

    /// The value of a variable.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Expands `$(NAME)` in a text, as in `command` and `args`.
    pub(crate) fn expand(&self, text: &str) -> String {
        expand(text, |name| self.value(name))
    }

    /// The pairs.
    pub(crate) fn into_pairs(self) -> Vec<(String, String)> {
        self.pairs
    }

    fn set(&mut self, name: &str, value: String) {
        match self.pairs.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.pairs.push((name.into(), value)),
        }
    }

    fn add_sources(&mut self, container: &Container, objects: &Objects, namespace: &str) -> Result<(), String> {
        for source in container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let data = if let Some(reference) = &source.config_map_ref {
                let found = objects.config_map(namespace, &reference.name);
                present(found, reference.optional, || format!("configmap {:?} not found", reference.name))?
            } else if let Some(reference) = &source.secret_ref {
                let found = objects.secret(namespace, &reference.name);
                present(found, reference.optional, || format!("secret {:?} not found", reference.name))?
            } else {
                None
            };
            for (key, value) in data.into_iter().flatten() {
                self.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
            }
        }
        Ok(())
    }
}

/// What was found; nothing where it may be missing; else the error.
fn present<T>(found: Option<T>, optional: Option<bool>, error: impl FnOnce() -> String) -> Result<Option<T>, String> {
    match found {
        None if optional != Some(true) => Err(error()),
        found => Ok(found),
    }
}

fn value_from(
    variable: &EnvVar,
    container: &Container,
    objects: &Objects,
    downward: Downward<'_>,
) -> Result<Option<String>, String> {
    let Some(source) = &variable.value_from else { return Ok(None) };
    let namespace = downward.pod.namespace();
    let pick = |data: Option<Data>, key: &str| {
        data.and_then(|mut data| data.remove(key)).map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    if let Some(field) = &source.field_ref {
        downward.field(&field.field_path).map(Some)
    } else if let Some(field) = &source.resource_field_ref {
        downward.resource(field, Some(container)).map(Some)
    } else if let Some(reference) = &source.config_map_key_ref {
        let (name, key) = (&reference.name, &reference.key);
        let data = objects.config_map(namespace, name);
        let data = present(data, reference.optional, || format!("configmap {name:?} not found"))?;
        present(pick(data, key), reference.optional, || {
            format!("couldn't find key {key} in ConfigMap {namespace}/{name}")
        })
    } else if let Some(reference) = &source.secret_key_ref {
        let (name, key) = (&reference.name, &reference.key);
        let data = objects.secret(namespace, name);
        let data = present(data, reference.optional, || format!("secret {name:?} not found"))?;
        present(pick(data, key), reference.optional, || format!("couldn't find key {key} in Secret {namespace}/{name}"))
    } else {
        Err(format!("the source of variable {} is not supported", variable.name))
    }
}

/// The variables of Services: the API server's always, a namespace's where links are wanted.
fn service_variables(objects: &Objects, namespace: Option<&str>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    if let Some(service) = objects.service("default", "kubernetes") {
        add_service(&mut variables, "kubernetes", &service);
    }
    for (name, service) in namespace.into_iter().flat_map(|namespace| objects.services(namespace)) {
        add_service(&mut variables, name, &service);
    }
    variables
}

fn add_service(variables: &mut BTreeMap<String, String>, name: &str, service: &Value) {
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(first) = ports.first().filter(|_| !matches!(address, "" | "None")) else { return };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(name);
    let number = |port: &Value| port["port"].as_i64().unwrap_or_default();
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_owned();
    let url = |port: &Value| {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        format!("{}://{host}:{}", protocol(port).to_lowercase(), number(port))
    };
    variables.insert(format!("{name}_SERVICE_HOST"), address.into());
    variables.insert(format!("{name}_SERVICE_PORT"), number(first).to_string());
    variables.insert(format!("{name}_PORT"), url(first));
    for port in ports {
        if let Some(port_name) = port["name"].as_str().filter(|name| !name.is_empty()) {
            variables.insert(format!("{name}_SERVICE_PORT_{}", upper(port_name)), number(port).to_string());
        }
        let prefix = format!("{name}_PORT_{}_{}", number(port), protocol(port).to_uppercase());
        variables.insert(prefix.clone(), url(port));
        variables.insert(format!("{prefix}_PROTO"), protocol(port).to_lowercase());
        variables.insert(format!("{prefix}_PORT"), number(port).to_string());
        variables.insert(format!("{prefix}_ADDR"), address.into());
    }
}

/// Replaces `$(NAME)` by the value of a known name; `$$` is one `$`, and what is unknown stays.
fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            if let Some(value) = lookup(name) {
                out.push_str(value);
            } else {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_unless_they_are_escaped_or_unknown() {
        let lookup = |name: &str| (name == "A").then_some("1");
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, lookup), expanded, "{text}");
        }
    }

    #[test]
    fn a_service_gives_the_variables_that_docker_links_gave() {
        let service = serde_json::json!({"spec": {"clusterIP": "10.43.0.7", "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"}]}});
        let mut variables = BTreeMap::new();
        add_service(&mut variables, "my-web", &service);
        let lines: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            lines,
            [
                "MY_WEB_PORT=tcp://10.43.0.7:80",
                "MY_WEB_PORT_80_TCP=tcp://10.43.0.7:80",
                "MY_WEB_PORT_80_TCP_ADDR=10.43.0.7",
                "MY_WEB_PORT_80_TCP_PORT=80",
                "MY_WEB_PORT_80_TCP_PROTO=tcp",
                "MY_WEB_SERVICE_HOST=10.43.0.7",
                "MY_WEB_SERVICE_PORT=80",
                "MY_WEB_SERVICE_PORT_HTTP=80",
            ]
        );
    }
}
