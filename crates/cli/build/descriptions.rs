//! Takes Kubernetes' descriptions of its types out of the k8s-openapi crate that cargo has fetched for this build.
//!
//! That crate writes them into the schemas of its feature `schemars`. Its source is read instead of building it with that
//! feature: nothing is compiled for it, and no text of Kubernetes is in this repository.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// The version whose types the binary chooses, too.
const VERSION: &str = "v1_36";

/// Writes them to a file, compressed: a line each of the type's full name, the field's JSON name (empty for the type
/// itself) and the description, parted by tabs; in a description a line's end and a backslash are `\n` and `\\`.
pub(crate) fn write(file: &Path) {
    let source = source().join("src").join(VERSION);
    let mut files = Vec::new();
    collect(&source, &mut files);
    files.sort();
    let mut lines = String::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        of_file(&text, &mut lines);
    }
    for known in ["io.k8s.api.core.v1.Container\timage\t", "io.k8s.api.apps.v1.Deployment\t\t"] {
        assert!(lines.contains(known), "{} has no descriptions in the form that is looked for", source.display());
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(lines.as_bytes()).expect("text is compressed in memory");
    fs::write(file, encoder.finish().expect("text is compressed in memory")).expect("OUT_DIR can be written");
}

/// The folder of the crate's source: only cargo knows whether it is in the registry's cache or vendored.
fn source() -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What other platforms need may not be there, and is not asked for.
    cargo.args(["metadata", "--format-version", "1", "--filter-platform"]);
    cargo.arg(env::var_os("TARGET").expect("cargo sets TARGET"));
    cargo.current_dir(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let output = cargo.output().expect("cargo can be run");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let package = text.find(r#""name":"k8s-openapi","version":"#).expect("this crate depends on k8s-openapi");
    let manifest = text[package..].split_once(r#""manifest_path":""#).expect("a package has a manifest").1;
    let manifest = literal(manifest).expect("a path is a text").0;
    Path::new(&manifest).parent().expect("a manifest is in a folder").to_owned()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder that is read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Reads the schema of the type that a file is about, if it has one.
///
/// The type's name stands alone in a line below `schema_name`. The type's own description is the first one behind it; a property's
/// name starts a line at the depth of properties, and the next description is its.
fn of_file(text: &str, lines: &mut String) {
    const PROPERTY: &str = "                \"";
    let mut rest = text.lines().skip_while(|line| !line.contains("fn schema_name()")).skip(1);
    let Some((name, _)) = rest.next().and_then(|line| literal(line.trim_start().strip_prefix('"')?)) else { return };
    let mut subject = Some(String::new());
    for line in rest {
        if line == "}" {
            break;
        }
        if let Some((property, behind)) = line.strip_prefix(PROPERTY).and_then(literal)
            && behind.starts_with(": ")
        {
            subject = Some(property);
        }
        let description = [r#""description": ""#, r#"("description".into(), ""#];
        let found = description.iter().find_map(|start| literal(line.split_once(start)?.1));
        if let Some((description, _)) = found
            && let Some(field) = subject.take()
        {
            let description = description.replace('\\', r"\\").replace('\n', r"\n");
            writeln!(lines, "{name}\t{field}\t{description}").expect("a text is written to memory");
        }
    }
}

/// The text of a string literal of Rust or JSON that goes on behind its opening quote, and what follows its closing one.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((out, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'u' => {
                    let (digits, behind) = chars.as_str().strip_prefix('{')?.split_once('}')?;
                    out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                    chars = behind.chars();
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
}
