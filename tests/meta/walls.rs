//! Who may know whom. A dependency that is missing here is a decision about the design, not an import.

use crate::metadata::Metadata;

/// The crates that are pure: the same inputs give the same outputs, on every member and in every replay.
const PURE: &[&str] = &[
    "coracle-api",
    "coracle-apiserver",
    "coracle-base",
    "coracle-controllers",
    "coracle-engine",
    "coracle-node",
    "coracle-raft",
    "coracle-scheduler",
    "coracle-sim",
    "coracle-store",
];

/// What each crate may use of this workspace outside its tests.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "coracle",
        &[
            "api",
            "apiserver",
            "base",
            "controllers",
            "engine",
            "node",
            "raft",
            "runtime-docker",
            "runtime-wasm",
            "scheduler",
            "store",
        ],
    ),
    ("coracle-api", &["base"]),
    ("coracle-apiserver", &["api", "base", "store"]),
    ("coracle-base", &[]),
    ("coracle-cli", &["coracle"]),
    ("coracle-controllers", &["api", "base", "store"]),
    ("coracle-engine", &["api", "apiserver", "base", "controllers", "node", "raft", "scheduler", "store"]),
    ("coracle-node", &["api", "base"]),
    ("coracle-probe", &["node"]),
    ("coracle-raft", &["base"]),
    ("coracle-runtime-docker", &["api", "base", "node", "probe"]),
    ("coracle-runtime-wasm", &["api", "base", "node", "probe"]),
    ("coracle-scheduler", &["api", "base", "store"]),
    (
        "coracle-sim",
        &["api", "apiserver", "base", "controllers", "engine", "node", "raft", "runtime-wasm", "scheduler", "store"],
    ),
    ("coracle-store", &["api", "base", "raft"]),
];

/// The members that are programs and tests: they may use anything.
const FREE: &[&str] = &["coracle-benches", "coracle-examples", "coracle-tests"];

/// What pure crates may use of the registry: values, codecs and data structures.
const PURE_DEPENDENCIES: &[&str] = &[
    "base64",
    "bytes",
    "fastrand",
    "futures-io", // traits only: a stream of bytes without an async runtime
    "imbl",
    "jiff",
    "json-patch",
    "k8s-openapi",
    "raft",
    "serde",
    "serde-saphyr",
    "serde_json",
    "sha2",
    "slog",
    "thiserror",
    "tracing",
];

/// What the simulation uses beside these: its scenarios are compared with expected text.
const SIM_DEPENDENCIES: &[&str] = &["expect-test"];

/// Async runtimes, sockets and clients: nothing pure may reach one, however indirectly.
const IO: &[&str] =
    &["async-std", "axum", "hyper", "kube", "mio", "rustls", "smol", "socket2", "tempfile", "tokio", "wasmtime"];

#[test]
fn every_crate_knows_only_those_that_the_architecture_lets_it_know() {
    for package in Metadata::read().members().filter(|package| !FREE.contains(&package.name.as_str())) {
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == package.name)
            .unwrap_or_else(|| panic!("{} is new: say in this table what it may know", package.name));
        for dependency in package.normal_dependencies().filter(|dependency| dependency.name.starts_with("coracle")) {
            let short = dependency.name.strip_prefix("coracle-").unwrap_or(&dependency.name);
            assert!(allowed.contains(&short), "{} must not know {}", package.name, dependency.name);
        }
    }
}

#[test]
fn the_simulation_has_real_guests_only_by_a_feature() {
    for package in Metadata::read().members().filter(|package| package.name == "coracle-sim") {
        for dependency in package.normal_dependencies() {
            assert!(
                PURE.contains(&dependency.name.as_str())
                    || PURE_DEPENDENCIES.contains(&dependency.name.as_str())
                    || SIM_DEPENDENCIES.contains(&dependency.name.as_str())
                    || dependency.optional,
                "coracle-sim must have {} by a feature only",
                dependency.name
            );
        }
    }
}

#[test]
fn pure_crates_use_values_and_codecs_of_the_registry_only() {
    for package in Metadata::read().members().filter(|package| PURE.contains(&package.name.as_str())) {
        for dependency in package.normal_dependencies().filter(|dependency| !dependency.optional) {
            let for_sim = package.name == "coracle-sim" && SIM_DEPENDENCIES.contains(&dependency.name.as_str());
            assert!(
                dependency.name.starts_with("coracle-")
                    || PURE_DEPENDENCIES.contains(&dependency.name.as_str())
                    || for_sim,
                "{} must not use {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn pure_crates_reach_no_async_runtime_socket_or_client_however_indirectly() {
    let metadata = Metadata::read();
    for member in PURE.iter().filter(|member| **member != "coracle-sim") {
        let built_from = metadata.built_from(member);
        for io in IO {
            assert!(!built_from.contains(io), "{member} is built from {io}");
        }
    }
}

/// Guests under virtual time are the same function of their inputs in every run, though the crate around them does IO.
#[test]
fn the_simulated_runtime_has_no_clock_thread_file_or_async_runtime() {
    let banned = [
        "tokio",
        "hyper",
        "Instant::now",
        "SystemTime",
        "std::thread",
        "std::fs",
        "std::net",
        "std::env",
        "HashMap",
        "tempfile",
        "fastrand",
        "WasiCtx",
        "add_to_linker",
    ];
    for path in crate::tidy::sources_below("crates/runtime-wasm/src/simulated") {
        let text = crate::tidy::read(&path);
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (line, word) in code.flat_map(|line| banned.iter().map(move |word| (line, word))) {
            assert!(!line.contains(word), "{path} must not know {word}: {line}");
        }
    }
}

/// Its wire types and its parser stay inside one crate, so that either can be replaced there.
#[test]
fn only_the_raft_crate_knows_the_raft_library() {
    for package in Metadata::read().members().filter(|package| package.name != "coracle-raft") {
        let known = package
            .dependencies
            .iter()
            .any(|dependency| ["raft", "raft-proto", "slog"].contains(&dependency.name.as_str()));
        assert!(!known, "{} must not know the raft library", package.name);
    }
}

/// An embedder chooses the version of the typed kinds, so no library of ours may.
#[test]
fn libraries_leave_the_version_of_the_typed_kinds_to_the_embedder() {
    for member in ALLOWED.iter().map(|(name, _)| *name).filter(|name| *name != "coracle-cli") {
        let folder = member.strip_prefix("coracle-").unwrap_or(member);
        let manifest = crate::tidy::read(&format!("crates/{folder}/Cargo.toml"));
        let (normal, _) = manifest.split_once("[dev-dependencies]").unwrap_or((&manifest, ""));
        assert!(!normal.contains("v1_3"), "{member} chooses a version of k8s-openapi");
    }
}
