//! Rules of roles: what one allows, and whether some rules hold others.
//!
//! Sources: `RuleAllows` of Kubernetes' RBAC authorizer, and `Covers`, `CompactRules` and `CompactString` of its rule validation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use super::{Attributes, ResourceAttributes};

/// What stands for everything in a list of verbs, groups, resources or paths.
const ALL: &str = "*";

/// One rule of a Role or ClusterRole: what may be done to which resources, or to which paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRule {
    /// `get`, `list`, ...; `*` for all.
    pub verbs: Vec<String>,
    /// The groups of the resources; `*` for all, empty text for the core group.
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// The only objects that are meant; none for all.
    pub resource_names: Vec<String>,
    /// Paths without a resource; a `*` at the end stands for anything behind.
    pub non_resource_urls: Vec<String>,
}

impl PolicyRule {
    /// A rule out of a role's `rules`.
    pub fn of(value: &Value) -> Self {
        let texts = |field: &str| {
            let texts = value[field].as_array().into_iter().flatten();
            texts.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: texts("verbs"),
            api_groups: texts("apiGroups"),
            resources: texts("resources"),
            resource_names: texts("resourceNames"),
            non_resource_urls: texts("nonResourceURLs"),
        }
    }

    /// The rules of a Role or ClusterRole.
    pub fn all_of(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::of).collect()
    }

    /// The rule as a role has it.
    pub fn to_value(&self) -> Value {
        let mut value = json!({ "verbs": self.verbs });
        for (field, texts) in [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !texts.is_empty() {
                value[field] = json!(texts);
            }
        }
        value
    }

    /// Rules that allow everything there is: `cluster-admin`'s.
    pub fn everything() -> [Self; 2] {
        let all = || vec![ALL.to_owned()];
        [
            Self { verbs: all(), api_groups: all(), resources: all(), ..Self::default() },
            Self { verbs: all(), non_resource_urls: all(), ..Self::default() },
        ]
    }

    /// Whether the rule allows that.
    pub(super) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        match attributes {
            Attributes::Path { verb, path } => {
                has(&self.verbs, verb) && self.non_resource_urls.iter().any(|url| url == ALL || covers_path(url, path))
            }
            Attributes::Resource(asked) => {
                has(&self.verbs, asked.verb)
                    && has(&self.api_groups, asked.group)
                    && self.resources.iter().any(|resource| means(resource, asked))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == asked.name))
            }
        }
    }

    /// Its parts: one for each verb on each resource, object or path.
    fn parts(&self) -> Vec<Self> {
        let mut parts = Vec::new();
        for (group, resource) in self.api_groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r))) {
            for verb in &self.verbs {
                let part = Self {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Self::default()
                };
                let named = |name: &String| Self { resource_names: vec![name.clone()], ..part.clone() };
                if self.resource_names.is_empty() {
                    parts.push(part);
                } else {
                    parts.extend(self.resource_names.iter().map(named));
                }
            }
        }
        for (url, verb) in self.non_resource_urls.iter().flat_map(|u| self.verbs.iter().map(move |v| (u, v))) {
            parts.push(Self { verbs: vec![verb.clone()], non_resource_urls: vec![url.clone()], ..Self::default() });
        }
        parts
    }

    /// Whether this rule alone holds a part of another.
    fn covers(&self, part: &Self) -> bool {
        let names = self.resource_names.is_empty()
            || (!part.resource_names.is_empty() && has_all(&self.resource_names, &part.resource_names));
        let path = |path: &String| self.non_resource_urls.iter().any(|own| covers_path(own, path));
        names
            && (self.verbs.iter().any(|verb| verb == ALL) || has_all(&self.verbs, &part.verbs))
            && (self.api_groups.iter().any(|group| group == ALL) || has_all(&self.api_groups, &part.api_groups))
            && part.resources.iter().all(|resource| self.covers_resource(resource))
            && (self.non_resource_urls.iter().any(|url| url == ALL) || part.non_resource_urls.iter().all(path))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        let any_of_subresource = resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
        self.resources.iter().any(|own| own == ALL || own == resource || Some(own) == any_of_subresource.as_ref())
    }
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`: what a refusal prints.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lead = "{";
        for (name, texts) in [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ] {
            if !texts.is_empty() {
                write!(f, "{lead}{name}:{}", quoted(texts))?;
                lead = ", ";
            }
        }
        f.write_str("}")
    }
}

/// Texts as Go's `%q` prints them: `["a" "b"]`.
pub(super) fn quoted(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(" "))
}

/// The parts of `wanted` that no rule of `held` covers: none when `held` allows all that `wanted` does.
pub fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let parts = wanted.iter().flat_map(PolicyRule::parts);
    parts.filter(|part| !held.iter().any(|rule| rule.covers(part))).collect()
}

/// The same rules in fewer: the verbs of one resource come together.
pub(super) fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut compacted = Vec::new();
    let mut simple: BTreeMap<(String, String, Vec<String>), PolicyRule> = BTreeMap::new();
    for rule in rules {
        let ([group], [resource]) = (rule.api_groups.as_slice(), rule.resources.as_slice()) else {
            compacted.push(rule);
            continue;
        };
        if rule.resource_names.len() > 1 || !rule.non_resource_urls.is_empty() {
            compacted.push(rule);
            continue;
        }
        let key = (group.clone(), resource.clone(), rule.resource_names.clone());
        match simple.get_mut(&key) {
            None => _ = simple.insert(key, rule),
            Some(known) => {
                let seen: BTreeSet<String> = known.verbs.iter().cloned().collect();
                known.verbs.extend(rule.verbs.into_iter().filter(|verb| !seen.contains(verb)));
            }
        }
    }
    compacted.extend(simple.into_values());
    compacted
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == ALL || one == wanted)
}

fn has_all(list: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|one| list.contains(one))
}

/// Whether a rule's resource is the one that is asked for: `pods`, `pods/log`, `*/log`, `*`.
fn means(rule: &str, asked: &ResourceAttributes<'_>) -> bool {
    match rule.split_once('/') {
        None => rule == ALL || (asked.subresource.is_empty() && rule == asked.resource),
        Some((resource, subresource)) => {
            !asked.subresource.is_empty()
                && subresource == asked.subresource
                && (resource == ALL || resource == asked.resource)
        }
    }
}

/// Whether a pattern of paths holds a path, or another pattern.
fn covers_path(pattern: &str, path: &str) -> bool {
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
        let texts = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let api_groups = if groups == "core" { vec![String::new()] } else { texts(groups) };
        PolicyRule {
            verbs: texts(verbs),
            api_groups,
            resources: texts(resources),
            resource_names: texts(names),
            ..PolicyRule::default()
        }
    }

    fn paths(verbs: &str, urls: &[&str]) -> PolicyRule {
        let non_resource_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        PolicyRule { verbs: vec![verbs.into()], non_resource_urls, ..PolicyRule::default() }
    }

    #[track_caller]
    fn check(rule: &PolicyRule, verb: &str, resource: &str, name: &str, expected: bool) {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let asked = ResourceAttributes { verb, resource, subresource, name, ..ResourceAttributes::default() };
        assert_eq!(rule.allows(&Attributes::Resource(asked)), expected);
    }

    #[test]
    fn a_rule_allows_its_verbs_on_its_resources_and_subresources() {
        let pods = rule("get list", "core", "pods pods/log", "");
        check(&pods, "get", "pods", "web", true);
        check(&pods, "get", "pods/log", "web", true);
        check(&pods, "list", "pods", "", true);
        check(&pods, "get", "pods/exec", "web", false);
        check(&pods, "delete", "pods", "web", false);
        check(&pods, "get", "nodes", "web", false);
        check(&rule("get", "apps", "pods", ""), "get", "pods", "web", false);
    }

    #[test]
    fn stars_stand_for_everything_and_for_a_subresource_of_everything() {
        let all = rule("*", "*", "*", "");
        check(&all, "approve", "signers", "x", true);
        check(&all, "get", "pods/log", "x", true);
        let scale = rule("update", "*", "*/scale", "");
        check(&scale, "update", "deployments/scale", "x", true);
        check(&scale, "update", "deployments", "x", false);
        check(&scale, "update", "deployments/status", "x", false);
    }

    #[test]
    fn a_rule_with_names_allows_these_only_and_no_collection() {
        let one = rule("get list create", "core", "secrets", "a b");
        check(&one, "get", "secrets", "a", true);
        check(&one, "get", "secrets", "c", false);
        check(&one, "list", "secrets", "", false);
        check(&one, "create", "secrets", "", false);
    }

    #[test]
    fn paths_match_whole_or_by_their_beginning() {
        let rule = paths("get", &["/healthz", "/api/*"]);
        let allows = |path| rule.allows(&Attributes::Path { verb: "get", path });
        assert!(allows("/healthz") && allows("/api/v1") && allows("/api/"));
        assert!(!allows("/api") && !allows("/healthz/ping"));
        assert!(!rule.allows(&Attributes::Path { verb: "post", path: "/healthz" }));
        assert!(paths("*", &["*"]).allows(&Attributes::Path { verb: "put", path: "/anything" }));
    }

    #[test]
    fn what_is_not_held_is_told_in_compact_parts() {
        let held =
            [rule("get list", "core", "pods", ""), rule("update", "apps", "*/scale", ""), paths("get", &["/api/*"])];
        let told = |wanted: &[PolicyRule]| {
            compact(uncovered(&held, wanted)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(
            told(&[rule("get", "core", "pods", "web"), rule("update", "apps", "deployments/scale", "")]).is_empty()
        );
        assert!(told(&[paths("get", &["/api/v1", "/api/*"])]).is_empty());
        assert_eq!(
            told(&[rule("get create delete", "core", "pods nodes", "")]),
            [
                r#"{APIGroups:[""], Resources:["nodes"], Verbs:["get" "create" "delete"]}"#,
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["create" "delete"]}"#,
            ]
        );
        assert_eq!(told(&[paths("get", &["/metrics"])]), [r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#]);
        assert!(uncovered(&PolicyRule::everything(), &held).is_empty());
        assert_eq!(uncovered(&held, &PolicyRule::everything()).len(), 2);
    }
}
