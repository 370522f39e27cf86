//! The audit policy: which requests are recorded, and how much of them. The first rule that fits decides.
//!
//! Source: `audit.k8s.io/v1` `Policy` and `k8s.io/apiserver/pkg/audit/policy`.

use coracle_api::{UserInfo, yaml};
use serde::Deserialize;
use serde_json::Value;

use crate::request::path::{ResourcePath, Target};

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Who, when, what and how it ended, without bodies.
    Metadata,
    /// The request's body too.
    Request,
    /// The answer's too.
    RequestResponse,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Stage {
    /// It is here, and nothing was done yet.
    RequestReceived,
    /// The head of the answer goes out; of watches and tunnels only.
    ResponseStarted,
    /// Nothing more goes out.
    ResponseComplete,
    /// A defect ended it.
    Panic,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

impl Stage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy wants of one request.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) level: Level,
    pub(super) omitted: Vec<Stage>,
    pub(super) omits_managed_fields: bool,
}

impl Policy {
    /// Metadata of every request: what holds where there is no policy.
    pub fn metadata() -> Self {
        let everything = Rule {
            level: Level::Metadata,
            users: Vec::new(),
            user_groups: Vec::new(),
            verbs: Vec::new(),
            resources: Vec::new(),
            namespaces: Vec::new(),
            non_resource_urls: Vec::new(),
            omit_stages: Vec::new(),
            omit_managed_fields: None,
        };
        Self {
            api_version: "audit.k8s.io/v1".into(),
            kind: "Policy".into(),
            _metadata: Value::Null,
            rules: vec![everything],
            omit_stages: Vec::new(),
            omit_managed_fields: false,
        }
    }

    /// Reads a policy, YAML or JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in a line.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let value = yaml::parse(text).map_err(|error| error.to_string())?;
        let policy: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if policy.kind != "Policy" || policy.api_version != "audit.k8s.io/v1" {
            let Self { api_version, kind, .. } = &policy;
            return Err(format!("it is a {kind:?} of {api_version:?}, not a Policy of \"audit.k8s.io/v1\""));
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{index}]: {why}"))?;
        }
        Ok(policy)
    }

    pub(super) fn recorded(&self, user: &UserInfo, verb: &str, path: &str, target: &Target) -> Option<Recorded> {
        let rule = self.rules.iter().find(|rule| rule.fits(user, verb, path, target))?;
        (rule.level > Level::None).then(|| Recorded {
            level: rule.level,
            omitted: [&*self.omit_stages, &*rule.omit_stages].concat(),
            omits_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        })
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let for_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if for_resources && !self.non_resource_urls.is_empty() {
            return Err("rules cannot apply to both regular resources and non-resource URLs".into());
        }
        for url in &self.non_resource_urls {
            let star = url.find('*');
            if url != "*" && (!url.starts_with('/') || star.is_some_and(|at| at + 1 < url.len())) {
                return Err(format!("nonResourceURLs {url:?} must begin with '/', with a '*' at its end only"));
            }
        }
        match self.resources.iter().find(|set| set.resources.is_empty() && !set.resource_names.is_empty()) {
            Some(_) => Err("using resourceNames requires at least one resource".into()),
            None => Ok(()),
        }
    }

    fn fits(&self, user: &UserInfo, verb: &str, path: &str, target: &Target) -> bool {
        let has = |list: &[String], value: &str| list.is_empty() || list.iter().any(|item| item == value);
        let groups = self.user_groups.is_empty() || user.groups.iter().any(|group| self.user_groups.contains(group));
        if !has(&self.users, &user.name) || !groups || !has(&self.verbs, verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let Target::Resource(resource) = target else { return false };
            return has(&self.namespaces, resource.scope())
                && (self.resources.is_empty() || self.resources.iter().any(|set| set.has(resource)));
        }
        let is_path = |url: &String| match url.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == url,
        };
        self.non_resource_urls.is_empty() || (*target == Target::Path && self.non_resource_urls.iter().any(is_path))
    }
}

impl GroupResources {
    fn has(&self, path: &ResourcePath) -> bool {
        if self.group != path.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.contains(&path.name) {
            return false;
        }
        self.resources.iter().any(|resource| match resource.split_once('/') {
            None => resource == "*" || (path.subresource.is_empty() && *resource == path.resource),
            Some(("*", subresource)) => !path.subresource.is_empty() && subresource == path.subresource,
            Some((resource, "*")) => resource == path.resource,
            Some((resource, subresource)) => resource == path.resource && subresource == path.subresource,
        })
    }
}
