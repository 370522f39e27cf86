//! Makes `src/schema/builtin.tsv` and `src/registry/builtin.tsv` out of the published facts about Kubernetes' built-in kinds.
//!
//! `cargo run -p coracle-api --example generate-schema -- FACTS_FOLDER crates/api/src`
//!
//! The facts are three tables (`schema.tsv`, `resources.tsv`, `proto_only.tsv`) extracted from the discovery documents, the
//! OpenAPI v3 documents, the protobuf schemas and the Go type declarations of Kubernetes 1.36. What Coracle serves out of them is
//! decided here, in the constants below. The formats of the two files are described where they are read: `schema/table.rs` and
//! `registry/table.rs`.

#![expect(clippy::disallowed_methods, reason = "a program of its own: it reads the facts and writes the tables")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The API groups whose types are kept, as their names begin.
const PACKAGES: [&str; 15] = [
    "io.k8s.api.apps.v1.",
    "io.k8s.api.authentication.v1.",
    "io.k8s.api.authorization.v1.",
    "io.k8s.api.autoscaling.v1.",
    "io.k8s.api.batch.v1.",
    "io.k8s.api.coordination.v1.",
    "io.k8s.api.core.v1.",
    "io.k8s.api.discovery.v1.",
    "io.k8s.api.events.v1.",
    "io.k8s.api.networking.v1.",
    "io.k8s.api.node.v1.",
    "io.k8s.api.policy.v1.",
    "io.k8s.api.rbac.v1.",
    "io.k8s.api.scheduling.v1.",
    "io.k8s.apimachinery.pkg.apis.meta.v1.",
];

/// The feature gates that are on by default in Kubernetes 1.36; fields of any other are left out.
const GATES_ON: [&str; 10] = [
    "ContainerRestartRules",
    "DynamicResourceAllocation",
    "EnvFiles",
    "HostnameOverride",
    "InPlacePodVerticalScaling",
    "MaxUnavailableStatefulSet",
    "PodLevelResources",
    "SELinuxChangePolicy",
    "SupplementalGroupsPolicy",
    "VolumeAttributesClass",
];

/// The types that are one value under server-side apply wherever they stand (`+structType=atomic`).
const ATOMIC: [&str; 22] = [
    "autoscaling.v1.CrossVersionObjectReference",
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TopologySelectorTerm",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
    "networking.v1.ServiceBackendPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
];

/// What is served: group, plural, and the subresources of the published ones that Coracle has. In the order of discovery's groups.
const SERVED: [(&str, &str, &[&str]); 31] = [
    ("", "bindings", &[]),
    ("", "configmaps", &[]),
    ("", "endpoints", &[]),
    ("", "events", &[]),
    ("", "namespaces", &["finalize", "status"]),
    ("", "nodes", &["status"]),
    ("", "pods", &["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"]),
    ("", "secrets", &[]),
    ("", "serviceaccounts", &["token"]),
    ("", "services", &["proxy", "status"]),
    ("apps", "controllerrevisions", &[]),
    ("apps", "deployments", &["scale", "status"]),
    ("apps", "replicasets", &["scale", "status"]),
    ("events.k8s.io", "events", &[]),
    ("authentication.k8s.io", "selfsubjectreviews", &[]),
    ("authentication.k8s.io", "tokenreviews", &[]),
    ("authorization.k8s.io", "localsubjectaccessreviews", &[]),
    ("authorization.k8s.io", "selfsubjectaccessreviews", &[]),
    ("authorization.k8s.io", "selfsubjectrulesreviews", &[]),
    ("authorization.k8s.io", "subjectaccessreviews", &[]),
    ("networking.k8s.io", "ingressclasses", &[]),
    ("networking.k8s.io", "ingresses", &["status"]),
    ("networking.k8s.io", "networkpolicies", &[]),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &[]),
    ("rbac.authorization.k8s.io", "clusterroles", &[]),
    ("rbac.authorization.k8s.io", "rolebindings", &[]),
    ("rbac.authorization.k8s.io", "roles", &[]),
    ("scheduling.k8s.io", "priorityclasses", &[]),
    ("coordination.k8s.io", "leases", &[]),
    ("node.k8s.io", "runtimeclasses", &[]),
    ("discovery.k8s.io", "endpointslices", &[]),
];

/// The resources where a PUT of an object that is not there creates it.
const CREATE_ON_UPDATE: [&str; 10] = [
    "clusterrolebindings",
    "clusterroles",
    "endpoints",
    "events",
    "leases",
    "limitranges",
    "rolebindings",
    "roles",
    "runtimeclasses",
    "services",
];

type Row = BTreeMap<String, String>;
type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(facts), Some(out), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: generate-schema FACTS_FOLDER OUTPUT_FOLDER".into());
    };
    let schema = read_table(&facts.join("schema.tsv"))?;
    let proto_only = read_table(&facts.join("proto_only.tsv"))?;
    let resources = read_table(&facts.join("resources.tsv"))?;
    write(&out.join("schema/builtin.tsv"), &schema_table(&schema, &proto_only)?)?;
    write(&out.join("registry/builtin.tsv"), &registry_table(&resources)?)
}

fn read_table(path: &Path) -> Result<Vec<Row>, AnyError> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let row = |line: &str| {
        let mut cells = line.split('\t');
        header.iter().map(|name| ((*name).to_owned(), cells.next().unwrap_or_default().to_owned())).collect()
    };
    Ok(lines.map(row).collect())
}

fn write(path: &Path, text: &str) -> Result<(), AnyError> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// `io.k8s.api.core.v1.Pod` as the table names it: `core.v1.Pod`.
fn short(name: &str) -> &str {
    name.strip_prefix("io.k8s.api.").or_else(|| name.strip_prefix("io.k8s.apimachinery.pkg.apis.")).unwrap_or(name)
}

/// Whether a row's type is one of the kept groups', and no scalar (which are shapes of their own).
fn type_is_kept(row: &Row) -> bool {
    PACKAGES.iter().any(|package| row["type"].starts_with(package))
        && !(row["field"].is_empty() && shape(&row["type"]).is_ok_and(|shape| !shape.contains('.')))
        && row["type"] != "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
}

fn field_is_kept(row: &Row) -> bool {
    let gate = row["feature_gate"].as_str();
    !row["field"].is_empty() && (gate.is_empty() || GATES_ON.contains(&gate))
}

fn schema_table(schema: &[Row], proto_only: &[Row]) -> Result<String, AnyError> {
    let mut types: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in schema.iter().filter(|row| type_is_kept(row)) {
        let fields = types.entry(&row["type"]).or_default();
        if field_is_kept(row) {
            fields.push(row);
        }
    }
    let container = types["io.k8s.api.core.v1.Container"].clone();
    let mut by_short: BTreeMap<&str, (&str, Vec<&Row>)> = BTreeMap::new();
    for (name, rows) in types {
        by_short.insert(short(name), (name, rows));
    }
    let mut out = String::from(
        "# Made by the example generate-schema of this crate; its format is described in table.rs. Do not edit.\n",
    );
    for (name, (full, rows)) in by_short {
        let flag = if ATOMIC.contains(&name) { "\ta" } else { "" };
        writeln!(out, "{name}{flag}")?;
        for row in &rows {
            let go = if name == "core.v1.EphemeralContainer" {
                container.iter().copied().find(|other| other["field"] == row["field"]).unwrap_or(row)
            } else {
                row
            };
            writeln!(out, "{}", field_line(row, go)?.trim_end())?;
        }
        for member in proto_only.iter().filter(|member| member["type"] == full) {
            if let Some(line) = nested_line(member, &rows, schema, proto_only) {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(out)
}

fn shape(json_type: &str) -> Result<String, AnyError> {
    let inner = |open, close| json_type.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    if let Some(item) = inner('[', ']') {
        return Ok(format!("[{}]", shape(item)?));
    }
    if let Some(item) = inner('{', '}') {
        return Ok(format!("{{{}}}", shape(item)?));
    }
    Ok(match json_type {
        "string" | "boolean" | "any" => json_type,
        "integer:int32" => "int32",
        "integer:int64" => "int64",
        "number:double" => "number",
        "string:byte" => "bytes",
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => "quantity",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => "int-or-string",
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => "time",
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => "micro-time",
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" | "io.k8s.apimachinery.pkg.runtime.RawExtension" => "any",
        name if name.starts_with("io.k8s.") => short(name),
        other => return Err(format!("no shape for {other:?}").into()),
    }
    .to_owned())
}

/// One field; `go` is the row that knows how Go declares it.
fn field_line(row: &Row, go: &Row) -> Result<String, AnyError> {
    let shape = shape(&row["json_type"])?;
    let mut flags = String::new();
    let mut flag = |set: bool, letter: char| {
        if set {
            flags.push(letter);
        }
    };
    flag(row["required"] == "1", 'r');
    let (pointer, omit_empty) = match (go["go_pointer"].as_str(), go["omitempty"].as_str()) {
        // Declared in an embedded struct: apiVersion, kind and name are texts, the members of unions are pointers.
        ("", _) => (shape.contains('.'), true),
        (pointer, omit_empty) => (pointer == "1", omit_empty == "1"),
    };
    flag(pointer, 'p');
    flag(omit_empty, 'o');
    // The one built-in field with `omitzero`: every other time of value zero is written as null.
    flag(row["field"] == "creationTimestamp" && row["type"].ends_with(".ObjectMeta"), 'z');
    flag(row["map_type"] == "atomic", 'a');
    flag(row["map_type"] == "granular" && shape.contains('.'), 'g');
    let list = match row["list_type"].as_str() {
        "map" => format!("map:{}", row["list_map_keys"]),
        "set" => "set".to_owned(),
        _ => String::new(),
    };
    let mut patch = row["patch_strategy"].clone();
    if !row["patch_merge_key"].is_empty() {
        write!(patch, ":{}", row["patch_merge_key"])?;
    }
    let default = match row["default"].as_str() {
        text if shape == "string" && !text.is_empty() && !text.starts_with('"') => format!("\"{text}\""),
        other => other.to_owned(),
    };
    let number = &row["proto_number"];
    Ok(format!("\t{}\t{shape}\t{flags}\t{number}\t{list}\t{patch}\t{default}\t{}", row["field"], row["enum"]))
}

/// A protobuf member that nests what JSON has side by side: its number, and the numbers and names of its own members.
fn nested_line(member: &Row, fields: &[&Row], schema: &[Row], proto_only: &[Row]) -> Option<String> {
    let (package, _) = member["type"].rsplit_once('.')?;
    let message = format!("{package}.{}", member["proto_type"]);
    let known: BTreeSet<&str> = fields.iter().map(|row| row["field"].as_str()).collect();
    let (in_schema, in_proto) = (schema.iter(), proto_only.iter());
    let members: BTreeMap<u32, &str> = in_schema
        .map(|row| (row, "field"))
        .chain(in_proto.map(|row| (row, "proto_field")))
        .filter(|(row, name)| row["type"] == message && known.contains(row[*name].as_str()))
        .filter_map(|(row, name)| Some((row["proto_number"].parse().ok()?, row[name].as_str())))
        .collect();
    if members.is_empty() {
        return None;
    }
    let members: Vec<String> = members.iter().map(|(number, name)| format!("{number}={name}")).collect();
    Some(format!("\t+\t{}\t{}", member["proto_number"], members.join(",")))
}

fn registry_table(resources: &[Row]) -> Result<String, AnyError> {
    let mut out = String::from(
        "# Made by the example generate-schema of this crate; its format is described in table.rs. Do not edit.\n",
    );
    for (group, plural, subresources) in SERVED {
        let row = resources
            .iter()
            .find(|row| row["group"] == group && row["version"] == "v1" && row["plural"] == plural)
            .ok_or_else(|| format!("no resource {plural:?} of group {group:?}"))?;
        // Events are kept once, as core/v1; events.k8s.io is another view of them.
        let stored_group = if plural == "events" { "" } else { group };
        let published: Vec<&str> = row["subresources"].split(';').collect();
        let kept: Vec<&str> = published
            .into_iter()
            .filter(|entry| subresources.iter().any(|name| entry.starts_with(&format!("{name}="))))
            .collect();
        if kept.len() != subresources.len() {
            return Err(format!("{plural}: not all of {subresources:?} are published").into());
        }
        let put_creates = if CREATE_ON_UPDATE.contains(&plural) { "1" } else { "" };
        let cells = [
            group,
            &row["version"],
            plural,
            &row["singular"],
            &row["kind"],
            &row["scope"],
            &row["short_names"],
            &row["categories"],
            &row["verbs"],
            &kept.join(";"),
            &row["storage_version_hash"],
            put_creates,
            stored_group,
        ];
        writeln!(out, "{}", cells.join("\t").trim_end())?;
    }
    Ok(out)
}
