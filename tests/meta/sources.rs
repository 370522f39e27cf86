//! Where dependencies come from. `cargo deny` checks more; this holds without it.

use crate::metadata::Metadata;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Minutes of C, a TLS library of the system, and what lost its maintainer: deny.toml has the reasons.
const BANNED: &[&str] = &["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys", "serde_yaml", "sled"];

#[test]
fn every_dependency_comes_from_the_registry() {
    for package in Metadata::read().packages.values().filter(|package| !package.member) {
        assert_eq!(package.source.as_deref(), Some(CRATES_IO), "{}", package.name);
    }
}

#[test]
fn no_dependency_is_one_that_was_decided_against() {
    for package in Metadata::read().packages.values() {
        assert!(!BANNED.contains(&package.name.as_str()), "{} is in the tree", package.name);
    }
}

#[test]
fn every_requirement_names_a_version() {
    for package in Metadata::read().members() {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.source.is_some()) {
            assert_ne!(dependency.requirement, "*", "{} requires any {}", package.name, dependency.name);
        }
    }
}
