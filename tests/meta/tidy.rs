//! How files look: sizes, headers, words that must not be there, tables in order.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A file with more lines knows too much.
const LINES_MAX: usize = 800;

/// The top of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository")
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files of a kind, as paths from the top, without what is built.
fn files(extension: &str) -> Vec<String> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), extension, &mut found);
    let mut paths: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(root()).expect("below the top").to_str().expect("UTF-8").replace('\\', "/"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are files ending in .{extension}");
    paths
}

/// The Rust files but these, which name what they look for.
fn sources() -> Vec<String> {
    files("rs").into_iter().filter(|path| !path.starts_with("tests/meta/")).collect()
}

/// A module and what lies below it.
pub(crate) fn sources_below(module: &str) -> Vec<String> {
    let (file, folder) = (format!("{module}.rs"), format!("{module}/"));
    let found: Vec<String> = sources().into_iter().filter(|path| *path == file || path.starts_with(&folder)).collect();
    assert!(found.len() > 1, "{module} is a module with others below it");
    found
}

/// `tests.rs`, and what lies below a folder of tests.
fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("tests/")
}

/// Fails with every line that says one of these.
#[track_caller]
fn check_absent(paths: &[String], words: &[&str], why: &str) {
    let mut found = String::new();
    for path in paths {
        for (number, line) in read(path).lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                let _ = writeln!(found, "{path}:{}: {word}", number + 1);
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{found}");
}

#[test]
fn every_module_says_what_it_is() {
    for path in files("rs").iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = read(path);
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        assert!(first.starts_with("//!"), "{path} begins without //!");
    }
}

#[test]
fn no_file_is_too_long() {
    for path in files("rs") {
        let lines = read(&path).lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines");
    }
}

#[test]
fn a_module_lies_beside_its_folder() {
    for path in files("rs") {
        assert!(!path.ends_with("/mod.rs"), "{path}: a module is foo.rs beside foo/");
    }
}

#[test]
fn nothing_is_left_to_do_in_a_macro() {
    check_absent(&sources(), &["todo!(", "unimplemented!(", "dbg!("], "what is not there answers with an error");
}

#[test]
fn no_test_is_skipped_or_passes_by_panicking() {
    check_absent(&sources(), &["#[ignore", "#[should_panic"], "a test runs, and says what it expects");
}

/// Under virtual time a sleep is how time passes, for guests too; and tests of whole processes poll, because a program has no other way to wait for
/// another.
#[test]
fn no_test_sleeps_in_real_time() {
    let tests: Vec<String> = sources()
        .into_iter()
        .filter(|path| {
            is_test(path)
                && !path.starts_with("tests/e2e/")
                && !path.contains("/programs/")
                && !read(path).contains("start_paused = true")
        })
        .collect();
    check_absent(&tests, &["thread::sleep(", "time::sleep("], "a test waits for what it expects, not for a time");
}

/// But for functions that WASI has named.
#[test]
fn nothing_is_got_by_name() {
    let own: Vec<String> = sources().into_iter().filter(|path| !path.contains("/sockets/wasi3/")).collect();
    check_absent(&own, &["fn get_"], "an accessor has the name of what it returns");
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let mut paths = sources();
    for extension in ["md", "toml", "yaml", "json", "tsv", "txt", "wit"] {
        paths.extend(files(extension));
    }
    check_absent(
        &paths,
        &["/root/", "/Users/", "C:\\"],
        "paths are relative to the repository or to the user's folders",
    );
}

/// The Wasm runtime has them as a list of its own, because loading compiled code is unsafe where the workspace forbids it.
#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let own = "crates/runtime-wasm/Cargo.toml";
    let is_member = |path: &String| !["/guests/", "/programs/", "/fuzz/"].iter().any(|folder| path.contains(folder));
    let members = files("toml").into_iter().filter(|path| path.ends_with("/Cargo.toml")).filter(is_member);
    for path in members.filter(|path| path != own) {
        assert!(read(&path).contains("[lints]\nworkspace = true"), "{path} has no lints");
    }
    let lints = read(own);
    for lint in
        ["missing_debug_implementations = \"warn\"", "unsafe_code = \"deny\"", "undocumented_unsafe_blocks = \"warn\""]
    {
        assert!(lints.contains(lint), "{own} is without {lint}");
    }
}

/// The nearest file wins, so a pure crate with one of its own would have no guard.
#[test]
fn only_crates_that_do_io_have_lints_of_their_own() {
    let expected = [
        "benches/clippy.toml",
        "clippy.toml",
        "crates/cli/clippy.toml",
        "crates/coracle/clippy.toml",
        "crates/probe/clippy.toml",
        "crates/runtime-docker/clippy.toml",
        "crates/runtime-wasm/clippy.toml",
        "examples/clippy.toml",
        "tests/clippy.toml",
    ];
    let found: Vec<String> = files("toml").into_iter().filter(|path| path.ends_with("clippy.toml")).collect();
    assert_eq!(found, expected);
}

/// A table that is in order has one place for a new row, and shows a row that is there twice.
#[test]
fn the_table_of_types_is_in_order() {
    let text = read("crates/api/src/schema/builtin.tsv");
    let types: Vec<&str> = text.lines().filter(|line| !line.starts_with(['#', '\t']) && !line.is_empty()).collect();
    assert!(types.len() > 100, "the table has types");
    for pair in types.windows(2) {
        assert!(pair[0] < pair[1], "{} comes before {}", pair[1], pair[0]);
    }
}

#[test]
fn the_table_of_kinds_names_each_kind_once() {
    let text = read("crates/api/src/registry/builtin.tsv");
    let mut kinds: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').take(3).collect())
        .collect();
    let all = kinds.len();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), all, "a kind is there twice");
}
