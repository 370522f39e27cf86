//! Manifests on disk: a file, or a folder's files in the order of their names, and the images that it names.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use coracle::api::yaml;
use serde_json::Value;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    /// The objects in order; a List counts as its items.
    pub(crate) objects: Vec<Value>,
    /// Names and files of images to import first.
    pub(crate) images: Vec<(String, PathBuf)>,
}

/// Reads every path.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Manifests> {
    let mut manifests = Manifests::default();
    for path in paths {
        if path.is_dir() {
            read_folder(path, &mut manifests)?;
        } else {
            read_file(path, &mut manifests)?;
        }
    }
    Ok(manifests)
}

fn read_folder(folder: &Path, manifests: &mut Manifests) -> Result<()> {
    let what = || format!("cannot read {}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(what)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .with_context(what)?;
    files.sort();
    let is_manifest = |path: &&PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
    let before = manifests.objects.len();
    for file in files.iter().filter(is_manifest) {
        read_file(file, manifests)?;
    }
    if manifests.objects.len() == before {
        bail!("{} has no *.yaml, *.yml or *.json with an object in it", folder.display());
    }
    let images = folder.join("images.txt");
    if images.exists() {
        read_images(folder, &images, manifests)?;
    }
    Ok(())
}

fn read_images(folder: &Path, path: &Path, manifests: &mut Manifests) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [name, file] = parts.as_slice() else {
            bail!("{}: line {} is not NAME FILE", path.display(), number + 1);
        };
        manifests.images.push(((*name).to_owned(), folder.join(file)));
    }
    Ok(())
}

fn read_file(path: &Path, manifests: &mut Manifests) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let documents = yaml::parse_documents(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
    let before = manifests.objects.len();
    for document in documents {
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match document {
            Value::Null => {}
            Value::Object(mut list) if is_list && list.get("items").is_some_and(Value::is_array) => {
                if let Some(Value::Array(items)) = list.remove("items") {
                    manifests.objects.extend(items);
                }
            }
            object @ Value::Object(_) => manifests.objects.push(object),
            _ => bail!("{} has a document that is no object", path.display()),
        }
    }
    // What can have no place in a cluster is said before one is started.
    for object in &manifests.objects[before..] {
        coracle::object_path(object).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_the_order_of_names_with_its_images() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let object = |name: &str| format!("{{kind: Secret, apiVersion: v1, metadata: {{name: {name}}}}}");
        file("b.yml", &format!("{}\n---\n{}\n---\n", object("b"), object("c")));
        file("a.yaml", &format!("kind: List\nitems: [{}, {}]\n", object("a1"), object("a2")));
        file("notes.txt", "kind: [");
        file("images.txt", "# guests\nweb:1 web.wasm\n");
        let manifests = read(&[folder.path().to_owned()]).unwrap();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        let names: Vec<String> = manifests.objects.iter().map(name).collect();
        assert_eq!(names, ["a1", "a2", "b", "c"]);
        assert_eq!(manifests.images, [("web:1".into(), folder.path().join("web.wasm"))]);
        file("images.txt", "web:1\n");
        assert!(read(&[folder.path().to_owned()]).unwrap_err().to_string().ends_with("line 1 is not NAME FILE"));
    }

    #[test]
    fn what_can_have_no_place_in_a_cluster_is_refused_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.yaml");
        for (text, why) in [
            (
                "kind: Secret\napiVersion: v1\n",
                "an object of the manifest has no apiVersion, no kind or no metadata.name",
            ),
            ("{kind: Gadget, apiVersion: v1, metadata: {name: x}}", "no matches for kind \"Gadget\" in version \"v1\""),
        ] {
            fs::write(&path, text).unwrap();
            let error = read(std::slice::from_ref(&path)).unwrap_err();
            assert_eq!(format!("{error:#}"), format!("cannot read {}: {why}", path.display()));
        }
    }
}
