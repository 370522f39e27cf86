//! What is refused, and with which words.

use super::*;
use crate::engine::{Engines, Metering};
use crate::slices::Slicing;

#[track_caller]
fn refusal(text: &str) -> String {
    check(&wat::parse_str(text).unwrap()).unwrap_err()
}

/// A component that imports a function of this interface.
fn importing(interface: &str) -> String {
    format!(r#"(component (import "{interface}" (instance (export "f" (func)))))"#)
}

#[test]
fn whatever_is_on_offer_is_linked() {
    let flavor = Engines::new(1, Slicing::Fuel).flavor(Metering::On).unwrap();
    let mut components = flavor.components.clone();
    // A name that is there already cannot be defined once more.
    let mut is_free = |name: &str| components.root().func_wrap(name, |_, (): ()| Ok(())).is_ok();
    for package in PACKAGES {
        for interface in package.interfaces {
            let name = with_version(&format!("{}/{interface}", package.name), package.version);
            assert!(!is_free(&name), "{name} is not in the linker");
            assert_eq!(check(&wat::parse_str(importing(&name)).unwrap()), Ok(()));
        }
    }
    assert!(is_free("wasi:cli/nothing@0.2.12"));
}

#[test]
fn compatible_versions_are_one_and_prereleases_are_themselves() {
    for (wanted, offered, matches_it) in [
        ("0.2.0", "0.2.12", true),
        ("0.2.99", "0.2.12", true),
        ("0.3.0", "0.2.12", false),
        ("0.2.0-rc.1", "0.2.12", false),
        ("0.2.0-rc.1", "0.2.0-rc.1", true),
        ("0.2.0-draft2", "0.2.0-draft", false),
        ("1.4.0", "1.0.2", true),
        ("0.0.3", "0.0.4", false),
        ("", "0.2.12", false),
    ] {
        assert_eq!(matches(wanted, offered), matches_it, "{wanted} by {offered}");
    }
}

#[test]
fn the_nearest_version_on_offer_is_named() {
    assert_eq!(
        refusal(&importing("wasi:http/types@0.2.0-rc-2023-11-10")),
        "it imports wasi:http/types@0.2.0-rc-2023-11-10: this node offers wasi:http/types@0.2.12"
    );
    assert_eq!(
        refusal(&importing("wasi:keyvalue/store@0.2.0-draft2")),
        "it imports wasi:keyvalue/store@0.2.0-draft2: this node offers wasi:keyvalue/store@0.2.0-draft"
    );
    assert_eq!(
        refusal(&importing("wasi:clocks/timezone@0.2.0")),
        "it imports wasi:clocks/timezone@0.2.0: this node offers wasi:clocks@0.2.12 without an interface \"timezone\""
    );
    assert_eq!(
        refusal(&importing("wasi:nn/tensor@0.2.0-rc-2024-10-28")),
        "it imports wasi:nn/tensor@0.2.0-rc-2024-10-28: this node offers nothing of wasi:nn"
    );
}

#[test]
fn what_belongs_to_another_platform_is_told_so() {
    assert_eq!(
        refusal(&importing("fermyon:spin/sqlite@2.0.0")),
        "it imports fermyon:spin/sqlite@2.0.0, an interface of Spin, whose applications need Spin's own runtime"
    );
    assert!(refusal(&importing("wasmcloud:messaging/consumer@0.2.0")).contains("need a wasmCloud host"));
    let wat =
        r#"(module (import "env" "teleport" (func)) (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#;
    let told = refusal(wat);
    assert!(told.starts_with("it imports env::teleport (module \"env\" is "), "{told}");
    assert!(told.ends_with("this node offers wasi_snapshot_preview1"), "{told}");
}

#[test]
fn a_few_of_many_are_told_of() {
    let imports: Vec<String> = (0..9).map(|n| format!(r#"(import "of{n}" "f" (func))"#)).collect();
    let told = refusal(&format!("(module {})", imports.join(" ")));
    assert!(told.ends_with("; and 5 more") && !told.contains("of4"), "{told}");
}

#[test]
fn interfaces_of_types_alone_and_what_is_inside_need_nobody() {
    for text in [
        r#"(component (import "my:own/types@1.0.0" (instance (type (record (field "a" u8))) (export "r" (type (eq 0))))))"#,
        r#"(component (core module (import "env" "f" (func))))"#,
        "(component)",
        "(module)",
    ] {
        assert_eq!(check(&wat::parse_str(text).unwrap()), Ok(()), "{text}");
    }
    assert!(refusal(r#"(component (import "f" (func)))"#).contains("of no package"));
    assert_eq!(check(b"\0asm\x0d\0\x01\0broken"), Ok(()), "compiling says what is wrong with it");
}
