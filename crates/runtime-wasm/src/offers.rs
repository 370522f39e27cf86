//! What guests may import, and what is said to those that import something else.
//!
//! A component takes seconds to compile, so its imports are compared with the tables here before that. They say what `engine.rs` puts
//! into the linkers; a test holds the two together. Functions that an interface does not have are found when the program is linked.
//!
//! Versions match as wasmtime matches them: all `0.2.x` are one, `0.3.x` another, a prerelease is itself only.

use std::collections::BTreeSet;

use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::{Parser, Payload, ValidPayload, Validator, WasmFeatures};

/// A package of interfaces on offer.
pub(crate) struct Package {
    /// As in `wasi:cli`.
    pub(crate) name: &'static str,
    /// The version that is linked; empty for none.
    pub(crate) version: &'static str,
    pub(crate) interfaces: &'static [&'static str],
}

/// What components may import.
pub(crate) const PACKAGES: &[Package] = &[
    Package { name: "coracle:pod", version: "0.1.0", interfaces: &["lifecycle"] },
    Package {
        name: "wasi:cli",
        version: "0.2.12",
        interfaces: &[
            "environment",
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
        ],
    },
    Package {
        name: "wasi:cli",
        version: "0.3.0",
        interfaces: &[
            "environment",
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
        ],
    },
    Package { name: "wasi:clocks", version: "0.2.12", interfaces: &["monotonic-clock", "wall-clock"] },
    Package { name: "wasi:clocks", version: "0.3.0", interfaces: &["monotonic-clock", "system-clock"] },
    Package { name: "wasi:config", version: "0.2.0-rc.1", interfaces: &["store"] },
    Package { name: "wasi:filesystem", version: "0.2.12", interfaces: &["preopens", "types"] },
    Package { name: "wasi:filesystem", version: "0.3.0", interfaces: &["preopens", "types"] },
    Package { name: "wasi:http", version: "0.2.12", interfaces: &["outgoing-handler", "types"] },
    Package { name: "wasi:http", version: "0.3.0", interfaces: &["client", "types"] },
    Package { name: "wasi:io", version: "0.2.12", interfaces: &["error", "poll", "streams"] },
    Package { name: "wasi:keyvalue", version: "0.2.0-draft", interfaces: &["atomics", "batch", "store"] },
    Package { name: "wasi:logging", version: "0.1.0-draft", interfaces: &["logging"] },
    Package { name: "wasi:logging", version: "", interfaces: &["logging"] },
    Package { name: "wasi:random", version: "0.2.12", interfaces: &["insecure", "insecure-seed", "random"] },
    Package { name: "wasi:random", version: "0.3.0", interfaces: &["insecure", "insecure-seed", "random"] },
    Package {
        name: "wasi:sockets",
        version: "0.2.12",
        interfaces: &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    },
    Package { name: "wasi:sockets", version: "0.3.0", interfaces: &["ip-name-lookup", "types"] },
];

/// What core modules may import from.
pub(crate) const MODULES: &[&str] = &["wasi_snapshot_preview1"];

/// Whose interfaces these are, where people will wonder: the start of a name, and what it is.
const FOREIGN: &[(&str, &str)] = &[
    ("fermyon:spin/", "an interface of Spin, whose applications need Spin's own runtime"),
    ("fermyon:", "an interface of Spin, whose applications need Spin's own runtime"),
    ("spin:", "an interface of Spin, whose applications need Spin's own runtime"),
    ("wasmcloud:", "an interface of wasmCloud, whose components need a wasmCloud host"),
    ("wrpc:", "an interface of wasmCloud, whose components need a wasmCloud host"),
    ("fastly:", "an interface of Fastly Compute, whose services need Fastly's own runtime"),
    ("golem:", "an interface of Golem, whose workers need Golem's own runtime"),
];

/// What the modules are that core programs often import from.
const FOREIGN_MODULES: &[(&str, &str)] = &[
    ("wasi_unstable", "an early WASI from before 0.1; build the program with a newer toolchain"),
    ("env", "what a linker did not find, or what Emscripten brings; build the program for wasm32-wasip1"),
    ("wbg", "for browsers, by wasm-bindgen; build the program for wasm32-wasip1 or wasm32-wasip2"),
    ("__wbindgen_placeholder__", "for browsers, by wasm-bindgen; build the program for wasm32-wasip1 or wasm32-wasip2"),
    ("gojs", "for browsers, by Go; build the program with GOOS=wasip1"),
];

/// The most missing imports that are told of.
const TOLD_MAX: usize = 4;

/// Compares a program's imports with what is on offer. The error is a sentence with each that is missing and the nearest there is.
///
/// A binary that cannot be read passes: compiling it says better what is wrong.
pub(crate) fn check(binary: &[u8]) -> Result<(), String> {
    let missing = if crate::program::is_component(binary) { of_component(binary) } else { of_module(binary) };
    let missing = missing.unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let more = missing.len().saturating_sub(TOLD_MAX);
    let mut told: Vec<String> = missing.into_iter().take(TOLD_MAX).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Err(format!("it imports {}", told.join("; ")))
}

/// What is missing of a component's imports. Interfaces that have nothing but types need nobody to offer them.
fn of_component(binary: &[u8]) -> Option<Vec<String>> {
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let (mut depth, mut names) = (0_u32, Vec::new());
    let mut types = None;
    for payload in Parser::new(0).parse_all(binary) {
        let payload = payload.ok()?;
        match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section.clone() {
                    names.push(import.ok()?.name.name);
                }
            }
            _ => {}
        }
        let is_end = matches!(payload, Payload::End(_));
        // Functions' bodies are not looked at: that would take most of the time.
        match validator.payload(&payload).ok()? {
            ValidPayload::End(found) if depth == 0 => types = Some(found),
            _ if is_end => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    let types = types?;
    let is_thing = |entity: &ComponentEntityType| match entity {
        ComponentEntityType::Type { created, .. } => matches!(created, ComponentAnyTypeId::Resource(_)),
        _ => true,
    };
    let has_something = |name: &&&str| match types.component_item_for_import(name).map(|item| &item.ty) {
        Some(ComponentEntityType::Instance(id)) => types[*id].exports.values().any(|item| is_thing(&item.ty)),
        Some(entity) => is_thing(entity),
        None => true,
    };
    Some(names.iter().filter(has_something).filter_map(|name| wrong_with(name)).collect())
}

fn of_module(binary: &[u8]) -> Option<Vec<String>> {
    let mut missing = BTreeSet::new();
    for payload in Parser::new(0).parse_all(binary) {
        let Payload::ImportSection(section) = payload.ok()? else { continue };
        for import in section.into_imports() {
            let import = import.ok()?;
            if !MODULES.contains(&import.module) {
                missing.insert((import.module, import.name));
            }
        }
        // A module has one.
        break;
    }
    let offered = MODULES.join(", ");
    let told = missing.into_iter().map(|(module, name)| {
        match FOREIGN_MODULES.iter().find(|(foreign, _)| *foreign == module) {
            Some((_, what)) => format!("{module}::{name} (module {module:?} is {what}): this node offers {offered}"),
            None => format!("{module}::{name}: this node offers {offered}"),
        }
    });
    Some(told.collect())
}

/// What is wrong with an import of a component; none when it is on offer.
fn wrong_with(import: &str) -> Option<String> {
    let Some((path, version)) = import.split_once('@').or(Some((import, ""))).filter(|(path, _)| path.contains('/'))
    else {
        return Some(format!("{import}, which is of no package: this node offers interfaces of packages only"));
    };
    let (package, interface) = path.split_once('/').unwrap_or((path, ""));
    let of_package: Vec<&Package> = PACKAGES.iter().filter(|offered| offered.name == package).collect();
    let with_interface =
        || of_package.iter().filter(|offered| offered.interfaces.contains(&interface)).map(|offered| offered.version);
    if with_interface().any(|offered| matches(version, offered)) {
        return None;
    }
    let wanted = Version::parse(version).unwrap_or_default();
    let nearest = |versions: &mut dyn Iterator<Item = &'static str>| {
        versions.min_by_key(|offered| Version::parse(offered).unwrap_or_default().distance(wanted))
    };
    if let Some(nearest) = nearest(&mut with_interface()) {
        return Some(format!("{import}: this node offers {}", with_version(path, nearest)));
    }
    if let Some(nearest) = nearest(&mut of_package.iter().map(|offered| offered.version)) {
        let package = with_version(package, nearest);
        return Some(format!("{import}: this node offers {package} without an interface {interface:?}"));
    }
    let foreign = FOREIGN.iter().find(|(start, _)| import.starts_with(start));
    Some(match foreign {
        Some((_, what)) => format!("{import}, {what}"),
        None => format!("{import}: this node offers nothing of {package}"),
    })
}

fn with_version(name: &str, version: &str) -> String {
    if version.is_empty() { name.to_owned() } else { format!("{name}@{version}") }
}

/// Whether an import of one version is satisfied by another.
fn matches(wanted: &str, offered: &str) -> bool {
    if wanted == offered {
        return true;
    }
    match (Version::parse(wanted), Version::parse(offered)) {
        (Some(wanted), Some(offered)) => !wanted.pre && !offered.pre && wanted.track() == offered.track(),
        _ => false,
    }
}

/// As much of a semantic version as is compared.
#[derive(Clone, Copy, Debug, Default)]
struct Version {
    numbers: [u64; 3],
    pre: bool,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('+').map_or(text, |(text, _)| text);
        let (numbers, pre) = text.split_once('-').map_or((text, false), |(numbers, _)| (numbers, true));
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(Self { numbers, pre })
    }

    /// What compatible versions have in common: the first number that is not zero, and those before it.
    fn track(self) -> [u64; 3] {
        match self.numbers {
            [0, 0, patch] => [0, 0, patch],
            [0, minor, _] => [0, minor, 0],
            [major, ..] => [major, 0, 0],
        }
    }

    fn distance(self, other: Self) -> [u64; 3] {
        std::array::from_fn(|at| self.numbers[at].abs_diff(other.numbers[at]))
    }
}

#[cfg(test)]
mod tests;
