//! The query as `ListOptions`, `CreateOptions`, `UpdateOptions`, `PatchOptions` and `DeleteOptions`, with Kubernetes' checks.

use coracle_api::{Body, Cause, FieldSelector, LabelSelector, Request, Resource, Revision, Status};
use serde_json::Value;

use crate::error::{field_cause, forbidden_cause, not_supported_cause, required_cause};
use crate::strategy::Strategy;

/// The longest field manager, in characters.
const FIELD_MANAGER_MAX: usize = 128;

/// Whether a parameter is on: `1`, `true`, or given without a value, as Go's conversion of query flags has it.
pub(crate) fn flag(request: &Request, name: &str) -> bool {
    request.param(name).is_some_and(|value| !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F"))
}

/// How a `resourceVersion` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// At least that revision.
    NotOlderThan,
    /// That revision.
    Exact,
}

/// `metav1.ListOptions`.
#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    /// The label selector.
    pub(crate) labels: LabelSelector,
    /// The field selector, every field of which the kind knows.
    pub(crate) fields: FieldSelector,
    /// `limit`; zero is none.
    pub(crate) limit: usize,
    /// `continue`, as it came.
    pub(crate) continue_token: String,
    /// `resourceVersion`; `None` where it is absent.
    pub(crate) revision: Option<Revision>,
    /// `resourceVersionMatch`.
    pub(crate) revision_match: Option<Match>,
    /// `timeoutSeconds`.
    pub(crate) timeout_seconds: Option<u64>,
    /// `allowWatchBookmarks`.
    pub(crate) bookmarks: bool,
    /// `sendInitialEvents`.
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads and checks the options of a LIST (or a deletecollection), or of a watch.
    pub(crate) fn parse(
        request: &Request,
        resource: &Resource,
        strategy: &dyn Strategy,
        watch: bool,
    ) -> Result<Self, Status> {
        let mut options = Self::selectors(request, resource, strategy)?;
        options.limit = number(request, "limit")?.unwrap_or(0) as usize;
        options.timeout_seconds = number(request, "timeoutSeconds")?;
        request.param("continue").unwrap_or_default().clone_into(&mut options.continue_token);
        options.bookmarks = flag(request, "allowWatchBookmarks");
        options.send_initial_events = request.param("sendInitialEvents").map(|_| flag(request, "sendInitialEvents"));
        options.versions(request, watch)?;
        Ok(options)
    }

    fn selectors(request: &Request, resource: &Resource, strategy: &dyn Strategy) -> Result<Self, Status> {
        let labels = LabelSelector::parse(request.param("labelSelector").unwrap_or_default())
            .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let mut fields = FieldSelector::parse(request.param("fieldSelector").unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        for requirement in &mut fields.requirements {
            if resource.is_view() {
                requirement.field = stored_field(&requirement.field);
            }
            check_field(&requirement.field, strategy)?;
        }
        Ok(Self {
            labels,
            fields,
            limit: 0,
            continue_token: String::new(),
            revision: None,
            revision_match: None,
            timeout_seconds: None,
            bookmarks: false,
            send_initial_events: None,
        })
    }

    /// Source: `ValidateListOptions` of `k8s.io/apimachinery`.
    fn versions(&mut self, request: &Request, watch: bool) -> Result<(), Status> {
        let mut causes = Vec::new();
        let version = request.param("resourceVersion").unwrap_or_default();
        let matching = request.param("resourceVersionMatch").unwrap_or_default();
        if watch && self.send_initial_events.is_some() {
            if matching != "NotOlderThan" {
                causes.push(forbidden_cause(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
        } else if watch && !matching.is_empty() {
            causes.push(forbidden_cause(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        } else if !watch && self.send_initial_events.is_some() {
            causes.push(forbidden_cause("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        } else if !matching.is_empty() {
            if version.is_empty() {
                causes.push(forbidden_cause(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.continue_token.is_empty() {
                causes.push(forbidden_cause(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                causes.push(not_supported_cause("resourceVersionMatch", matching, &["Exact", "NotOlderThan"]));
            } else if matching == "Exact" && version == "0" {
                causes.push(forbidden_cause(
                    "resourceVersionMatch",
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes));
        }
        self.revision_match = match matching {
            "Exact" => Some(Match::Exact),
            "NotOlderThan" => Some(Match::NotOlderThan),
            _ => None,
        };
        self.revision = parse_revision(version)?;
        if !self.continue_token.is_empty() && self.revision.is_some_and(|revision| revision.0 != 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(())
    }

    /// Whether anything is selected at all.
    pub(crate) fn selects(&self) -> bool {
        !self.labels.is_everything() || !self.fields.requirements.is_empty()
    }
}

/// Reads a `resourceVersion` parameter; an empty one is none.
pub(crate) fn parse_revision(text: &str) -> Result<Option<Revision>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    Revision::parse(text).map(Some).ok_or_else(|| {
        let cause = field_cause(
            "FieldValueInvalid",
            "resourceVersion",
            format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"),
        );
        Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
    })
}

/// The stored name of a field that `events.k8s.io` names otherwise.
fn stored_field(field: &str) -> String {
    match field.strip_prefix("regarding.") {
        Some(rest) => format!("involvedObject.{rest}"),
        None if field == "reportingController" => "reportingComponent".into(),
        None => field.to_owned(),
    }
}

fn check_field(field: &str, strategy: &dyn Strategy) -> Result<(), Status> {
    if matches!(field, "metadata.name" | "metadata.namespace") || strategy.selectable_fields().contains(&field) {
        return Ok(());
    }
    Err(Status::bad_request(if strategy.selectable_fields().is_empty() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    }))
}

fn number(request: &Request, name: &str) -> Result<Option<u64>, Status> {
    let Some(text) = request.param(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let number: i64 =
        text.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
    Ok(u64::try_from(number).ok())
}

/// How unknown and duplicate fields of a body are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// Dropped in silence.
    Ignore,
    /// Dropped with a warning each.
    Warn,
    /// Refused.
    Strict,
}

/// What `CreateOptions`, `UpdateOptions` and `PatchOptions` have in common.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    /// Nothing is stored.
    pub(crate) dry_run: bool,
    /// What is done about unknown fields.
    pub(crate) validation: FieldValidation,
    /// Who manages the fields that are written.
    pub(crate) manager: String,
    /// `force` of an apply patch.
    pub(crate) force: Option<bool>,
}

impl WriteOptions {
    /// Reads and checks; `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`, `apply` whether it is a server-side apply.
    pub(crate) fn parse(request: &Request, kind: &str, apply: bool) -> Result<Self, Status> {
        let mut causes = dry_run_causes(&dry_run_values(request));
        let manager = request.param("fieldManager").unwrap_or_default();
        let force = request.param("force").map(|_| flag(request, "force"));
        if kind == "PatchOptions" && apply && manager.is_empty() {
            causes.push(required_cause("fieldManager", "is required for apply patch"));
        } else if kind == "PatchOptions" && !apply && force.is_some() {
            causes.push(forbidden_cause("force", "may not be specified for non-apply patch"));
        }
        if manager.chars().count() > FIELD_MANAGER_MAX {
            let message = format!("Too long: may not be more than {FIELD_MANAGER_MAX} bytes");
            causes.push(field_cause("FieldValueTooLong", "fieldManager", message));
        } else if manager.chars().any(char::is_control) {
            let message = format!("Invalid value: {manager:?}: should only contain printable characters");
            causes.push(field_cause("FieldValueInvalid", "fieldManager", message));
        }
        let validation = match request.param("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                causes.push(not_supported_cause("fieldValidation", other, &["Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", causes));
        }
        let manager = if manager.is_empty() { default_manager(request) } else { manager.to_owned() };
        Ok(Self { dry_run: request.param("dryRun").is_some_and(|v| !v.is_empty()), validation, manager, force })
    }
}

/// The part of the user agent before `/`; `unknown` without one.
fn default_manager(request: &Request) -> String {
    let agent = request.user_agent.as_deref().unwrap_or_default();
    let name: String = agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if !name.is_empty() {
        return name.chars().take(FIELD_MANAGER_MAX).collect();
    }
    // A request made in the process has no user agent: its user is the manager.
    let user = request.user.name.rsplit(':').next().unwrap_or_default();
    if user.is_empty() { "unknown".into() } else { user.to_owned() }
}

fn dry_run_values(request: &Request) -> Vec<String> {
    request.query.iter().filter(|(key, value)| key == "dryRun" && !value.is_empty()).map(|(_, v)| v.clone()).collect()
}

fn dry_run_causes(values: &[String]) -> Vec<Cause> {
    if values.iter().all(|value| value == "All") {
        return Vec::new();
    }
    let list = serde_json::to_string(values).unwrap_or_default();
    let message = format!("Unsupported value: {list}: supported values: \"All\"");
    vec![field_cause("FieldValueNotSupported", "dryRun", message)]
}

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    /// Nothing is stored.
    pub(crate) dry_run: bool,
    /// `gracePeriodSeconds`.
    pub(crate) grace_period: Option<i64>,
    /// `propagationPolicy`, or what `orphanDependents` means.
    pub(crate) propagation: Option<Propagation>,
    /// `orphanDependents` was given as false: a deletion that takes time answers 202.
    pub(crate) orphan_false: bool,
    /// `preconditions.uid`.
    pub(crate) uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the options out of a decoded body, or out of the query where there is no body.
    pub(crate) fn parse(request: &Request, body: Option<&Value>) -> Result<Self, Status> {
        let value = match body {
            Some(body) => body.clone(),
            None => Self::from_query(request)?,
        };
        Self::from_value(request, &value)
    }

    fn from_query(request: &Request) -> Result<Value, Status> {
        let mut map = serde_json::Map::new();
        if let Some(text) = request.param("gracePeriodSeconds").filter(|text| !text.is_empty()) {
            let seconds: i64 = text
                .parse()
                .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
            map.insert("gracePeriodSeconds".into(), seconds.into());
        }
        if let Some(policy) = request.param("propagationPolicy") {
            map.insert("propagationPolicy".into(), policy.into());
        }
        if request.param("orphanDependents").is_some() {
            map.insert("orphanDependents".into(), flag(request, "orphanDependents").into());
        }
        Ok(Value::Object(map))
    }

    /// Reads the options out of a value; `dryRun` of the query counts too.
    pub(crate) fn from_value(request: &Request, value: &Value) -> Result<Self, Status> {
        let mut dry_run = dry_run_values(request);
        dry_run.extend(value["dryRun"].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)));
        let mut causes = dry_run_causes(&dry_run);
        let orphan = value["orphanDependents"].as_bool();
        let policy = value["propagationPolicy"].as_str().filter(|policy| !policy.is_empty());
        if orphan.is_some() && policy.is_some() {
            let message =
                "Invalid value: \"propagationPolicy\": orphanDependents and deletionPropagation cannot be both set";
            causes.push(field_cause("FieldValueInvalid", "propagationPolicy", message.into()));
        }
        let propagation = match (policy, orphan) {
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (None, None) => None,
            (Some(other), _) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                causes.push(not_supported_cause("propagationPolicy", other, &supported));
                None
            }
        };
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", causes));
        }
        let text = |name: &str| value["preconditions"][name].as_str().map(str::to_owned);
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            grace_period: value["gracePeriodSeconds"].as_i64(),
            propagation,
            orphan_false: orphan == Some(false),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
        })
    }
}

/// Whether a request has a body at all.
pub(crate) fn has_body(request: &Request) -> bool {
    match &request.body {
        Body::Empty => false,
        Body::Bytes(bytes) => !bytes.is_empty(),
        Body::Value(_) => true,
    }
}

/// The fields that every kind can be selected by, and the kind's own, of one object.
pub(crate) fn field_of<'a>(object: &'a coracle_api::Object, field: &str) -> &'a str {
    match field {
        "metadata.name" => &object.key().name,
        "metadata.namespace" => &object.key().namespace,
        other => object.attribute(other),
    }
}
