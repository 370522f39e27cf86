//! A pod as its worker reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resources::PODS;
use coracle_api::{Metadata, ObjectKey, Quantity, Revision, Uid};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde::Deserialize;
use serde_json::Value;

use crate::restart::RestartPolicy;
use crate::runtime::{Limits, PodMetadata};
use crate::{NodeConfig, security};

/// `terminationGracePeriodSeconds` where a pod names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// What Linux lets a hostname be, and what DNS lets a label be.
const FQDN_MAX: usize = 64;
const HOSTNAME_MAX: usize = 63;

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the others from then on.
    Sidecar,
    /// One of `spec.containers`.
    Main,
}

/// A pod, decoded once.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Uid,
    pub(crate) metadata: Metadata,
    pub(crate) spec: Arc<PodSpec>,
    pub(crate) revision: Revision,
    pub(crate) value: Arc<Value>,
}

impl PodView {
    /// Reads a pod; `None` when it has no uid or its spec is none.
    /// A pod of the same generation as `known` has the same spec, which is not decoded again: most changes are of the status.
    pub(crate) fn new(value: Arc<Value>, known: Option<&Self>) -> Option<Self> {
        let metadata = Metadata::of(&value);
        let text = |name: &str| value["metadata"][name].as_str().unwrap_or_default();
        let key = ObjectKey::new(PODS, text("namespace"), text("name"));
        let uid = metadata.uid.clone()?;
        let same = known.filter(|known| known.uid == uid && known.metadata.generation == metadata.generation);
        let spec = if let Some(known) = same.filter(|_| metadata.generation > 0) {
            Arc::clone(&known.spec)
        } else {
            let spec = PodSpec::deserialize(&value["spec"])
                .inspect_err(|error| tracing::error!(%key, %error, "the pod does not decode"));
            Arc::new(spec.ok()?)
        };
        let revision = Revision::parse(text("resourceVersion")).unwrap_or_default();
        Some(Self { key, uid, metadata, spec, revision, value })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.key.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.key.name
    }

    /// `name_namespace(uid)`, as back-off messages name a pod.
    pub(crate) fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid)
    }

    /// What its programs may know of it, on the node of this name.
    pub(crate) fn told_metadata(&self, node: &str) -> PodMetadata {
        let meta = &self.value["metadata"];
        let texts = |map: &Value| -> BTreeMap<String, String> {
            let pairs = map.as_object().into_iter().flatten();
            pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        PodMetadata { node: node.into(), labels: texts(&meta["labels"]), annotations: texts(&meta["annotations"]) }
    }

    pub(crate) fn service_account(&self) -> &str {
        self.spec.service_account_name.as_deref().unwrap_or("default")
    }

    /// The name that the pod's containers see as their host's.
    ///
    /// # Errors
    ///
    /// With `setHostnameAsFQDN`, when the whole name is longer than Linux lets a hostname be.
    pub(crate) fn hostname(&self, cluster_domain: &str) -> Result<String, String> {
        let spec = &self.value["spec"];
        if let Some(name) = spec["hostnameOverride"].as_str().filter(|name| !name.is_empty()) {
            return Ok(name.to_owned());
        }
        let name = self.spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(self.name());
        let short = name.char_indices().nth(HOSTNAME_MAX).map_or(name, |(end, _)| &name[..end]);
        let short = short.trim_end_matches(['-', '.']);
        let subdomain = self.spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
        let (Some(subdomain), Some(true)) = (subdomain, self.spec.set_hostname_as_fqdn) else {
            return Ok(short.to_owned());
        };
        let full = format!("{short}.{subdomain}.{}.svc.{cluster_domain}", self.namespace());
        if full.len() > FQDN_MAX {
            let length = full.len();
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long \
                 ({FQDN_MAX} characters is the max, {length} characters requested)"
            ));
        }
        Ok(full)
    }

    /// What the pod's RuntimeClass and annotations ask to run it: the class by name, and the handler of crun's annotations.
    pub(crate) fn runtime(&self) -> (Option<&str>, Option<&str>) {
        let class = self.spec.runtime_class_name.as_deref().filter(|class| !class.is_empty());
        let annotations = &self.value["metadata"]["annotations"];
        let variant = annotations["module.wasm.image/variant"].as_str();
        let by_variant = variant.filter(|variant| variant.starts_with("compat")).map(|_| "wasm");
        (class, annotations["run.oci.handler"].as_str().or(by_variant))
    }

    pub(crate) fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec.restart_policy.as_deref())
    }

    /// The grace of the spec.
    pub(crate) fn grace(&self) -> Duration {
        self.spec.termination_grace_period_seconds.map_or(DEFAULT_GRACE, seconds)
    }

    /// The grace of a deletion: what the deletion says, else the spec's.
    pub(crate) fn deletion_grace(&self) -> Duration {
        self.metadata.deletion_grace_period_seconds.map_or_else(|| self.grace(), seconds)
    }

    /// Whether the API server has it as ended.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.value["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
    }

    /// Its containers with their roles, init containers first.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (Role, &Container)> {
        let init = self.spec.init_containers.iter().flatten().map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            (if sidecar { Role::Sidecar } else { Role::Init }, container)
        });
        init.chain(self.spec.containers.iter().map(|container| (Role::Main, container)))
    }

    /// `status.qosClass`: what the API server wrote, else worked out from the containers' resources.
    pub(crate) fn qos_class(&self) -> &str {
        if let Some(class) = self.value["status"]["qosClass"].as_str() {
            return class;
        }
        let mut any = false;
        let mut guaranteed = true;
        for (_, container) in self.containers() {
            for name in ["cpu", "memory"] {
                let (request, limit) = (amount(container, "requests", name), amount(container, "limits", name));
                any |= request.or(limit).is_some_and(|amount| !amount.is_zero());
                guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
            }
        }
        match (any, guaranteed) {
            (false, _) => "BestEffort",
            (true, true) => "Guaranteed",
            (true, false) => "Burstable",
        }
    }
}

/// A whole number of seconds of an object; negative counts as none.
pub(crate) fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

/// `resources.limits` or `resources.requests` of one resource; what is no quantity counts as absent.
pub(crate) fn amount(container: &Container, list: &str, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let map = if list == "limits" { resources.limits.as_ref() } else { resources.requests.as_ref() };
    map?.get(resource)?.0.parse().ok()
}

/// What a container of a pod may use.
pub(crate) fn limits(pod: &PodView, container: &Container, config: &NodeConfig) -> Limits {
    let number = |amount: Option<Quantity>| amount.and_then(|amount| u64::try_from(amount.units()).ok());
    let millis = |amount: Option<Quantity>| amount.and_then(|amount| u64::try_from(amount.millis()).ok());
    let cpu_millis = millis(amount(container, "limits", "cpu"));
    Limits {
        memory: number(amount(container, "limits", "memory")),
        cpu_millis,
        cpu_weight: millis(amount(container, "requests", "cpu")).or(cpu_millis).unwrap_or(0),
        fuel: number(amount(container, "limits", "coracle.dev/fuel")),
        fuel_per_second: number(amount(container, "limits", "coracle.dev/fuel-per-second")),
        oom_score_adjust: security::oom_score_adjust(
            pod,
            number(amount(container, "requests", "memory")).unwrap_or(0),
            config.capacity.memory,
        ),
        processes: config.processes_max,
    }
}
