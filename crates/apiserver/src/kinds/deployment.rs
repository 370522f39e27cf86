//! Deployments.

use coracle_api::{Cause, Status};
use coracle_base::Now;
use serde_json::{Value, json};

use super::pod::{default_template, warnings};
use super::value::{default, default_zero, object_mut, restore, set, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath, same};
use crate::validation::label::{check_selector, is_empty_selector};
use crate::validation::pod_spec::check_template;

/// The strategy of Deployments.
#[derive(Debug)]
pub(crate) struct DeploymentStrategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Ready", "string", "Number of the pod with ready state"),
    table::column("Up-to-date", "string", descriptions::UP_TO_DATE),
    table::column("Available", "string", descriptions::AVAILABLE),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide("Selector", descriptions::DEPLOYMENT_SELECTOR),
];

impl Strategy for DeploymentStrategy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default(spec, "replicas", 1);
        default(spec, "revisionHistoryLimit", 10);
        default(spec, "progressDeadlineSeconds", 600);
        if let Some(strategy) = object_mut(spec, "strategy") {
            default_zero(strategy, "type", "RollingUpdate");
            if text(strategy, "type") == "RollingUpdate"
                && let Some(rolling) = object_mut(strategy, "rollingUpdate")
            {
                default(rolling, "maxUnavailable", "25%");
                default(rolling, "maxSurge", "25%");
            }
        }
        if let Some(template) = object_mut(spec, "template") {
            default_template(template);
        }
        object_mut(object, "status");
    }

    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        set(object, "status", json!({}));
        context.warnings.extend(warnings::of_name(object, "Pod names and hostnames"));
        context.warnings.extend(warnings::of_template(&object["spec"]["template"], "spec.template."));
        Ok(())
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        if context.subresource == "status" {
            restore(object, old, "spec");
            restore(&mut object["metadata"], &old["metadata"], "labels");
        } else {
            restore(object, old, "status");
            if object["spec"] != old["spec"] {
                context.warnings.extend(warnings::of_template(&object["spec"]["template"], "spec.template."));
            }
        }
        Ok(())
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn generation_changed(&self, new: &Value, old: &Value) -> bool {
        new["spec"] != old["spec"] || !same(&new["metadata"]["annotations"], &old["metadata"]["annotations"])
    }

    fn validate(&self, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        if subresource == "status" {
            check_status(object, old, &mut causes);
            return causes.into_vec();
        }
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        causes.nonnegative(&path.child("replicas"), &spec["replicas"]);
        check_selector_and_template(spec, &path, &mut causes);
        check_strategy(&spec["strategy"], &path.child("strategy"), &mut causes);
        for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            causes.nonnegative(&path.child(field), &spec[field]);
        }
        if let Some(deadline) = spec["progressDeadlineSeconds"].as_i64()
            && deadline <= spec["minReadySeconds"].as_i64().unwrap_or(0)
        {
            causes.invalid(&path.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds");
        }
        if let Some(old) = old {
            causes.immutable(&path.child("selector"), &spec["selector"], &old["spec"]["selector"]);
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let (spec, status) = (&object["spec"], &object["status"]);
        let count = |value: &Value| value.as_i64().unwrap_or(0);
        let ready = format!("{}/{}", count(&status["readyReplicas"]), count(&spec["replicas"]));
        let [containers, images] = table::containers(&spec["template"]["spec"]);
        table::row([
            table::name(object),
            ready.into(),
            table::number(&status["updatedReplicas"]),
            table::number(&status["availableReplicas"]),
            table::age(object, now),
            containers,
            images,
            table::selector(&spec["selector"]).into(),
        ])
    }
}

/// Checks the selector and the template of a Deployment or a ReplicaSet, and that the one selects the other.
pub(super) fn check_selector_and_template(spec: &Value, path: &FieldPath, causes: &mut Causes) {
    let (selector, at) = (&spec["selector"], path.child("selector"));
    if selector.is_null() {
        causes.required(&at, "");
    } else {
        check_selector(selector, &at, causes);
        if is_empty_selector(selector) {
            causes.invalid(&at, selector.clone(), "empty selector is invalid for deployment");
        }
    }
    let Ok(parsed) = coracle_api::LabelSelector::from_value(selector) else {
        causes.invalid(&at, selector.clone(), "invalid label selector");
        return;
    };
    let (template, at) = (&spec["template"], path.child("template"));
    let labels = coracle_api::Metadata::of(template).labels;
    if !is_empty_selector(selector) && !parsed.matches(&labels) {
        let why = "`selector` does not match template `labels`";
        causes.invalid(&at.children(&["metadata", "labels"]), template["metadata"]["labels"].clone(), why);
    }
    check_template(template, &at, causes);
    let (pod, at) = (&template["spec"], at.child("spec"));
    let policy = text(pod, "restartPolicy");
    if policy != "Always" {
        causes.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
    }
    if !pod["activeDeadlineSeconds"].is_null() {
        let why = "activeDeadlineSeconds in ReplicaSet is not Supported";
        causes.forbidden(&at.child("activeDeadlineSeconds"), why);
    }
}

fn check_strategy(strategy: &Value, path: &FieldPath, causes: &mut Causes) {
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            causes.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            check_count_or_percent(unavailable, &at.child("maxUnavailable"), causes);
            check_count_or_percent(surge, &at.child("maxSurge"), causes);
            if amount(unavailable) == 0 && amount(surge) == 0 {
                let why = "may not be 0 when `maxSurge` is 0";
                causes.invalid(&at.child("maxUnavailable"), unavailable.clone(), why);
            }
            if percent(unavailable).is_some_and(|percent| percent > 100) {
                causes.invalid(&at.child("maxUnavailable"), unavailable.clone(), "must not be greater than 100%");
            }
        }
        _ => causes.not_supported(path, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}

fn check_count_or_percent(value: &Value, path: &FieldPath, causes: &mut Causes) {
    match value {
        Value::String(text) if percent(value).is_none() => {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                regex used for validation is '[0-9]+%')";
            causes.invalid(path, text.as_str(), why);
        }
        value => causes.nonnegative(path, value),
    }
}

fn percent(value: &Value) -> Option<u64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn amount(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| percent(value).map_or(0, |percent| percent as i64))
}

fn check_status(object: &Value, old: Option<&Value>, causes: &mut Causes) {
    let (status, path) = (&object["status"], FieldPath::new("status"));
    let fields = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    check_counts(status, &path, &fields, &["updatedReplicas", "readyReplicas", "availableReplicas"], causes);
    let collisions = |object: &Value| object["status"]["collisionCount"].as_i64().unwrap_or(0);
    if old.is_some_and(|old| collisions(object) < collisions(old)) {
        causes.invalid(&path.child("collisionCount"), collisions(object), "cannot be decremented");
    }
}

/// Counts are not negative, and the parts not more than the whole.
pub(super) fn check_counts(status: &Value, path: &FieldPath, fields: &[&str], parts: &[&str], causes: &mut Causes) {
    for field in fields {
        causes.nonnegative(&path.child(field), &status[*field]);
    }
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    for part in parts {
        if count(part) > count("replicas") {
            causes.invalid(&path.child(part), count(part), "cannot be greater than status.replicas");
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let why = "cannot be greater than readyReplicas";
        causes.invalid(&path.child("availableReplicas"), count("availableReplicas"), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{World, cells, texts};

    fn deployment() -> Value {
        json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d1", "labels": {"a": "b"}}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "d1"}}, "template": {"metadata": {"labels": {"app": "d1"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1", "ports": [{"containerPort": 80}]}]}}}})
    }

    #[test]
    fn a_new_deployment_is_the_recorded_one() {
        let mut object = deployment();
        object["status"] = json!({"replicas": 9});
        World::new().create(&DeploymentStrategy, &mut object).unwrap();
        let recorded: Value = serde_json::from_str(
            r#"{"replicas":2,"selector":{"matchLabels":{"app":"d1"}},"template":{"metadata":{"labels":{"app":"d1"}},"spec":{"containers":[{"name":"c","image":"nginx:1","ports":[{"containerPort":80,"protocol":"TCP"}],"resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler"}},"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%","maxSurge":"25%"}},"revisionHistoryLimit":10,"progressDeadlineSeconds":600}"#,
        )
        .unwrap();
        assert_eq!(object["spec"], recorded);
        assert_eq!(object["status"], json!({}));
        assert!(DeploymentStrategy.validate(&object, None, "").is_empty());
        let once = object.clone();
        DeploymentStrategy.default(&mut object);
        assert_eq!(object, once);
    }

    #[test]
    fn an_invalid_one_gets_the_recorded_causes() {
        let mut object = json!({"spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": []}}}});
        DeploymentStrategy.default(&mut object);
        assert_eq!(
            texts(DeploymentStrategy.validate(&object, None, "")),
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
                "spec.template.spec.containers: Required value",
            ]
        );
    }

    #[test]
    fn the_selector_is_for_ever() {
        let (mut old, mut new) = (deployment(), deployment());
        new["spec"]["selector"]["matchLabels"]["app"] = "d2".into();
        new["spec"]["template"]["metadata"]["labels"]["app"] = "d2".into();
        DeploymentStrategy.default(&mut old);
        DeploymentStrategy.default(&mut new);
        assert_eq!(
            texts(DeploymentStrategy.validate(&new, Some(&old), "")),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"d2\"}}: field is immutable"]
        );
    }

    #[test]
    fn the_rest_of_the_spec_is_checked() {
        let mut object = deployment();
        DeploymentStrategy.default(&mut object);
        let spec = &mut object["spec"];
        spec["replicas"] = (-1).into();
        spec["selector"] = json!({});
        spec["strategy"]["rollingUpdate"] = json!({"maxUnavailable": 0, "maxSurge": "0%"});
        spec["progressDeadlineSeconds"] = 5.into();
        spec["minReadySeconds"] = 5.into();
        spec["template"]["spec"]["restartPolicy"] = "Never".into();
        assert_eq!(
            texts(DeploymentStrategy.validate(&object, None, "")),
            [
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
            ]
        );
        let strategy = |strategy: Value| {
            let mut object = deployment();
            object["spec"]["strategy"] = strategy;
            DeploymentStrategy.default(&mut object);
            texts(DeploymentStrategy.validate(&object, None, ""))
        };
        assert_eq!(
            strategy(json!({"type": "Recreate", "rollingUpdate": {}})),
            ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
        );
        assert!(strategy(json!({"rollingUpdate": {"maxSurge": "x"}}))[0].contains("a valid percent string must be"));
        assert_eq!(
            strategy(json!({"rollingUpdate": {"maxUnavailable": "101%"}})),
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"]
        );
        assert_eq!(
            strategy(json!({"type": "Blue"})),
            [
                "spec.strategy: Unsupported value: {\"type\":\"Blue\"}: supported values: \"Recreate\", \"RollingUpdate\""
            ]
        );
    }

    #[test]
    fn annotations_raise_the_generation_and_status_does_not() {
        let old = deployment();
        let mut new = old.clone();
        new["status"] = json!({"replicas": 1});
        assert!(!DeploymentStrategy.generation_changed(&new, &old));
        new["metadata"]["annotations"] = json!({"a": "b"});
        assert!(DeploymentStrategy.generation_changed(&new, &old));
    }

    #[test]
    fn counts_of_a_status_make_sense() {
        let object = json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}});
        assert_eq!(
            texts(DeploymentStrategy.validate(&object, None, "status")),
            [
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
            ]
        );
    }

    #[test]
    fn the_row_is_the_recorded_one() {
        let mut object = deployment();
        object["spec"]["replicas"] = 3.into();
        object["status"]["updatedReplicas"] = 3.into();
        object["metadata"]["creationTimestamp"] = "2026-11-22T10:31:23Z".into();
        assert_eq!(cells(&DeploymentStrategy, &object), json!(["d1", "0/3", 3, 0, "11s", "c", "nginx:1", "app=d1"]));
    }
}
