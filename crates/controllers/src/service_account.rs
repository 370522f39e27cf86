//! What every namespace must have before a pod can run in it: the ServiceAccount `default` and the cluster's root certificate.

use coracle_api::resources::{CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS};
use coracle_api::{Object, ObjectKey};
use coracle_store::View;
use serde_json::json;

use crate::object::{patch, read};
use crate::{Action, Context, Controller, Outcome, Watch};

const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// What the ConfigMap says of itself, in Kubernetes' words.
const ABOUT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as \
    the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// Keeps the ServiceAccount `default` in every namespace.
#[derive(Debug, Default)]
pub struct ServiceAccountController;

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let namespace = |view: &View, object: &Object| namespace_of(view, object, DEFAULT);
        vec![Watch::own(NAMESPACES), Watch::of(SERVICE_ACCOUNTS, namespace)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let account = ObjectKey::new(SERVICE_ACCOUNTS, &key.name, DEFAULT);
        if !is_open(context.view, key) || context.view.object(&account).is_some() {
            return Outcome::default();
        }
        let object = json!({
            "kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": DEFAULT, "namespace": &*key.name},
        });
        vec![Action::Create { key: account, object }].into()
    }
}

/// Keeps the ConfigMap `kube-root-ca.crt` in every namespace.
#[derive(Debug)]
pub struct RootCaPublisher {
    certificate: String,
}

impl RootCaPublisher {
    /// Publishes this certificate (PEM).
    pub fn new(certificate: impl Into<String>) -> Self {
        Self { certificate: certificate.into() }
    }
}

impl Controller for RootCaPublisher {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher"
    }

    fn watches(&self) -> Vec<Watch> {
        let namespace = |view: &View, object: &Object| namespace_of(view, object, ROOT_CA);
        vec![Watch::own(NAMESPACES), Watch::of(CONFIG_MAPS, namespace)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        if !is_open(context.view, key) {
            return Outcome::default();
        }
        let map = ObjectKey::new(CONFIG_MAPS, &key.name, ROOT_CA);
        let data = json!({"ca.crt": self.certificate});
        let Some((object, value)) = read(context.view, &map) else {
            let object = json!({
                "kind": "ConfigMap",
                "apiVersion": "v1",
                "metadata": {"name": ROOT_CA, "namespace": &*key.name, "annotations": {DESCRIPTION: ABOUT}},
                "data": data,
            });
            return vec![Action::Create { key: map, object }].into();
        };
        if value["data"] == data && value["metadata"]["annotations"][DESCRIPTION] == ABOUT {
            return Outcome::default();
        }
        // Whatever else somebody wrote into it goes.
        let mut wanted = data;
        for name in value["data"].as_object().into_iter().flatten().map(|(name, _)| name) {
            if name != "ca.crt" {
                wanted[name] = serde_json::Value::Null;
            }
        }
        vec![patch(&object, None, json!({"metadata": {"annotations": {DESCRIPTION: ABOUT}}, "data": wanted}))].into()
    }
}

fn namespace_of(_: &View, object: &Object, name: &str) -> Vec<ObjectKey> {
    if &*object.key().name == name { vec![ObjectKey::new(NAMESPACES, "", &object.key().namespace)] } else { Vec::new() }
}

/// Whether things may still be created in the namespace.
fn is_open(view: &View, namespace: &ObjectKey) -> bool {
    view.object(namespace).is_some_and(|object| object.metadata().deletion_timestamp.is_none())
}

#[cfg(test)]
mod tests;
