//! Events.

use coracle_api::{Attributes, Cause};
use coracle_base::Now;
use serde_json::Value;

use super::value::{object_mut, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::name::{dns_subdomain, qualified_name};

/// The strategy of Events, in the form of the core group.
#[derive(Debug)]
pub(crate) struct EventStrategy;

const COLUMNS: &[Column] = &[
    table::column("Last Seen", "string", descriptions::EVENT_LAST),
    table::column("Type", "string", descriptions::EVENT_TYPE),
    table::column("Reason", "string", descriptions::EVENT_REASON),
    table::column("Object", "string", descriptions::EVENT_OBJECT),
    table::wide("Subobject", descriptions::EVENT_FIELD_PATH),
    table::wide("Source", descriptions::EVENT_SOURCE),
    table::column("Message", "string", descriptions::EVENT_MESSAGE),
    table::wide("First Seen", descriptions::EVENT_FIRST),
    table::wide("Count", descriptions::EVENT_COUNT),
    Column { priority: 1, ..table::NAME },
];

const SELECTABLE: &[&str] = &[
    "involvedObject.apiVersion",
    "involvedObject.fieldPath",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.resourceVersion",
    "involvedObject.uid",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

impl Strategy for EventStrategy {
    fn default(&self, object: &mut Value) {
        for field in ["involvedObject", "source"] {
            object_mut(object, field);
        }
        let Some(map) = object.as_object_mut() else { return };
        for field in ["reportingComponent", "reportingInstance"] {
            map.entry(field).or_insert_with(|| "".into());
        }
        // Times that are not known are written as null.
        for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
            map.entry(field).or_insert(Value::Null);
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        let namespace = text(&object["metadata"], "namespace");
        let involved = text(&object["involvedObject"], "namespace");
        let path = FieldPath::new("involvedObject").child("namespace");
        let timed = !object["eventTime"].is_null();
        let fits = if !involved.is_empty() {
            timed || namespace == involved
        } else if timed {
            matches!(namespace, "default" | "kube-system")
        } else {
            matches!(namespace, "" | "default")
        };
        if !fits {
            causes.invalid(&path, involved, "does not match event.namespace");
        }
        if timed {
            check_new_style(object, &mut causes);
        }
        causes.invalid_each(&FieldPath::new("namespace"), namespace, dns_subdomain(namespace));
        causes.into_vec()
    }

    fn attributes(&self, object: &Value) -> Attributes {
        let value = |field: &str| match field.split_once('.') {
            Some((_, field)) => text(&object["involvedObject"], field),
            None if field == "source" => {
                table::or(text(&object["source"], "component"), text(object, "reportingComponent"))
            }
            None => text(object, field),
        };
        SELECTABLE.iter().map(|field| ((*field).to_owned(), value(field).to_owned())).collect()
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let since = |field: &str| table::since(&object[field], now);
        let first = if object["firstTimestamp"].is_null() { since("eventTime") } else { since("firstTimestamp") };
        let mut last = if object["lastTimestamp"].is_null() { first.clone() } else { since("lastTimestamp") };
        let mut count = object["count"].as_i64().filter(|count| *count != 0).unwrap_or(1);
        let series = &object["series"];
        if !series.is_null() {
            last = table::since(&series["lastObservedTime"], now);
            count = series["count"].as_i64().unwrap_or(0);
        }
        let involved = &object["involvedObject"];
        let kind = text(involved, "kind").to_lowercase();
        let target = match text(involved, "name") {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let source = &object["source"];
        let component = table::or(text(source, "component"), text(object, "reportingComponent"));
        let host = table::or(text(source, "host"), text(object, "reportingInstance"));
        let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
        table::row([
            last.into(),
            text(object, "type").into(),
            text(object, "reason").into(),
            target.into(),
            text(involved, "fieldPath").into(),
            source.into(),
            text(object, "message").trim().into(),
            first.into(),
            count.into(),
            table::name(object),
        ])
    }
}

/// Events with an `eventTime` say who reports what.
fn check_new_style(object: &Value, causes: &mut Causes) {
    let reporter = text(object, "reportingComponent");
    let path = FieldPath::new("reportingComponent");
    if reporter.is_empty() {
        causes.required(&path, "");
    }
    causes.invalid_each(&path, reporter, qualified_name(reporter));
    for (field, limit, needed) in
        [("reportingInstance", 128, true), ("action", 128, true), ("reason", 128, true), ("message", 1024, false)]
    {
        let (value, path) = (text(object, field), FieldPath::new(field));
        if needed && value.is_empty() {
            causes.required(&path, "");
        }
        if value.len() > limit {
            causes.invalid(&path, "", format!("can have at most {limit} characters"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn an_event_is_about_an_object_of_its_namespace() {
        let event =
            |namespace: &str| json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": namespace}});
        assert_eq!(
            texts(EventStrategy.validate(&event("b"), None, "")),
            ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]
        );
        assert!(EventStrategy.validate(&event("a"), None, "").is_empty());
    }

    #[test]
    fn an_event_with_a_time_says_who_reports_what() {
        let event = json!({"metadata": {"namespace": "default"}, "eventTime": "2026-11-22T10:31:34.000000Z"});
        let wrong = texts(EventStrategy.validate(&event, None, ""));
        assert_eq!(wrong[0], "reportingComponent: Required value");
        assert!(wrong.contains(&"action: Required value".to_owned()));
    }

    #[test]
    fn the_row_shows_when_what_happened_to_whom() {
        let event = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Created", "message": " done \n",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
            "source": {"component": "kubelet", "host": "n"}, "count": 2,
            "firstTimestamp": "2026-11-22T10:30:34Z", "lastTimestamp": "2026-11-22T10:31:24Z"});
        assert_eq!(
            cells(&EventStrategy, &event),
            json!(["10s", "Normal", "Created", "pod/p", "spec.containers{a}", "kubelet, n", "done", "60s", 2, "e"])
        );
        let series = json!({"series": {"count": 5, "lastObservedTime": "2026-11-22T10:31:33.000000Z"},
            "eventTime": "2026-11-22T10:31:04.000000Z", "reportingComponent": "c"});
        let row = cells(&EventStrategy, &series);
        assert_eq!((&row[0], &row[5], &row[7], &row[8]), (&json!("1s"), &json!("c"), &json!("30s"), &json!(5)));
    }

    #[test]
    fn fields_of_the_object_can_be_selected() {
        let attributes =
            EventStrategy.attributes(&json!({"involvedObject": {"kind": "Pod"}, "source": {"component": "c"}}));
        assert_eq!((&*attributes["involvedObject.kind"], &*attributes["source"]), ("Pod", "c"));
        assert_eq!(attributes.len(), EventStrategy.selectable_fields().len());
    }
}
