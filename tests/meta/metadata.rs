//! What `cargo metadata` says, as far as these tests ask.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// The resolved graph of the workspace, for every platform and with every feature.
pub(crate) struct Metadata {
    /// All packages by cargo's id.
    pub(crate) packages: BTreeMap<String, Package>,
    /// What a package's normal dependencies resolve to, by id.
    normal: BTreeMap<String, Vec<String>>,
}

pub(crate) struct Package {
    pub(crate) name: String,
    /// Part of this workspace.
    pub(crate) member: bool,
    /// `None` for a path.
    pub(crate) source: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Only for tests, examples and benches.
    pub(crate) dev: bool,
    pub(crate) optional: bool,
    /// From the registry or a path, never from a branch.
    pub(crate) source: Option<String>,
    pub(crate) requirement: String,
}

impl Metadata {
    pub(crate) fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--locked", "--all-features"])
            .current_dir(crate::tidy::root())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let value: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
        let members: BTreeSet<&str> = strings(&value["workspace_members"]).collect();
        let packages = array(&value["packages"])
            .iter()
            .map(|package| {
                let id = text(&package["id"]);
                (id.to_owned(), Package::read(package, members.contains(id)))
            })
            .collect();
        let normal =
            array(&value["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]).to_owned(), resolved(node)));
        Self { packages, normal: normal.collect() }
    }

    /// The packages of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.values().filter(|package| package.member)
    }

    /// The names of everything that a member is built from, itself included.
    pub(crate) fn built_from(&self, member: &str) -> BTreeSet<&str> {
        let (start, _) = self
            .packages
            .iter()
            .find(|(_, package)| package.member && package.name == member)
            .unwrap_or_else(|| panic!("no member {member}"));
        let (mut seen, mut todo) = (BTreeSet::from([start]), vec![start]);
        while let Some(id) = todo.pop() {
            todo.extend(self.normal[id].iter().filter(|next| seen.insert(next)));
        }
        seen.into_iter().map(|id| self.packages[id].name.as_str()).collect()
    }
}

impl Package {
    fn read(value: &Value, member: bool) -> Self {
        Self {
            name: text(&value["name"]).to_owned(),
            member,
            source: value["source"].as_str().map(str::to_owned),
            dependencies: array(&value["dependencies"]).iter().map(Dependency::read).collect(),
        }
    }

    /// Outside tests.
    pub(crate) fn normal_dependencies(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|dependency| !dependency.dev)
    }
}

impl Dependency {
    fn read(value: &Value) -> Self {
        Self {
            name: text(&value["name"]).to_owned(),
            dev: value["kind"] == "dev",
            optional: value["optional"] == true,
            source: value["source"].as_str().map(str::to_owned),
            requirement: text(&value["req"]).to_owned(),
        }
    }
}

/// What a node's dependencies resolve to, without those of tests and build scripts.
fn resolved(node: &Value) -> Vec<String> {
    array(&node["deps"])
        .iter()
        .filter(|dependency| array(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()))
        .map(|dependency| text(&dependency["pkg"]).to_owned())
        .collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    array(value).iter().map(text)
}
