//! The downward API: what a pod may know of itself, as variables and as files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use coracle_api::Quantity;
use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};

use crate::NodeConfig;
use crate::pod_spec::{PodView, amount};

/// What the fields are read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Downward<'a> {
    pub(crate) pod: &'a PodView,
    pub(crate) config: &'a NodeConfig,
    /// The pod's address, once it has one.
    pub(crate) address: Option<IpAddr>,
}

impl Downward<'_> {
    /// The value of a `fieldRef`.
    pub(crate) fn field(&self, path: &str) -> Result<String, String> {
        let meta = &self.pod.value["metadata"];
        if let Some((map, key)) = subscript(path) {
            return match map {
                "metadata.labels" => Ok(meta["labels"][key].as_str().unwrap_or_default().into()),
                "metadata.annotations" => Ok(meta["annotations"][key].as_str().unwrap_or_default().into()),
                _ => Err(format!("fieldPath {path:?} does not support subscript")),
            };
        }
        match path {
            "metadata.name" => Ok(self.pod.name().into()),
            "metadata.namespace" => Ok(self.pod.namespace().into()),
            "metadata.uid" => Ok(self.pod.uid.to_string()),
            "metadata.labels" => Ok(map_lines(&meta["labels"])),
            "metadata.annotations" => Ok(map_lines(&meta["annotations"])),
            "spec.nodeName" => Ok(self.pod.spec.node_name.clone().unwrap_or_default()),
            "spec.serviceAccountName" => Ok(self.pod.service_account().into()),
            "status.hostIP" | "status.hostIPs" => Ok(self.config.address.to_string()),
            "status.podIP" | "status.podIPs" => Ok(self.address.map(|address| address.to_string()).unwrap_or_default()),
            _ => Err(format!("unsupported fieldPath: {path}")),
        }
    }

    /// The value of a `resourceFieldRef`; `own` is the container that it stands in, if it stands in one.
    /// Where a container has no limit, the node's allocatable amount stands for it.
    pub(crate) fn resource(&self, field: &ResourceFieldSelector, own: Option<&Container>) -> Result<String, String> {
        let named = field.container_name.as_deref().filter(|name| !name.is_empty());
        let container = match (named, own) {
            (None, Some(own)) => own,
            (name, _) => {
                let name = name.unwrap_or_default();
                let found = self.pod.containers().find(|(_, container)| container.name == name);
                found.ok_or_else(|| format!("container {name} not found"))?.1
            }
        };
        let divisor = field.divisor.as_ref().and_then(|divisor| divisor.0.parse::<Quantity>().ok());
        let divisor = divisor.filter(|divisor| !divisor.is_zero()).unwrap_or(Quantity::from_units(1));
        let (list, resource) = field
            .resource
            .split_once('.')
            .filter(|(list, _)| matches!(*list, "limits" | "requests"))
            .ok_or_else(|| format!("unsupported container resource : {}", field.resource))?;
        let capacity = self.config.capacity;
        let fallback = match (list, resource) {
            ("limits", "cpu") => Quantity::from_millis(capacity.cpu_millis as i64),
            ("limits", "memory") => Quantity::from_units(capacity.memory as i64),
            _ => Quantity::ZERO,
        };
        let value = amount(container, list, resource).unwrap_or(fallback);
        let (value, divisor) =
            if resource == "cpu" { (value.millis(), divisor.millis()) } else { (value.units(), divisor.units()) };
        let divisor = divisor.max(1);
        Ok((value / divisor + i64::from(value % divisor != 0)).to_string())
    }
}

/// `metadata.labels['key']` as its parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// A map as the volume shows it: `key="value"` lines in key order.
fn map_lines(map: &serde_json::Value) -> String {
    let sorted: BTreeMap<_, _> = map.as_object().into_iter().flatten().collect();
    let lines: Vec<String> = sorted.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    lines.join("\n")
}
