//! The user's kubeconfig: a cluster, a user and a context named `coracle` in it, and everything else left as it was.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle::api::yaml;
use serde_json::{Map, Value, json};

/// The name of the cluster, the user and the context.
pub(crate) const CONTEXT: &str = "coracle";

/// The file: the one that was named, the first of $KUBECONFIG, or ~/.kube/config.
pub(crate) fn path(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let from_environment = std::env::var_os("KUBECONFIG");
    let first = from_environment
        .as_ref()
        .and_then(|paths| std::env::split_paths(paths).find(|path| !path.as_os_str().is_empty()));
    match first {
        Some(path) => Ok(path),
        None => Ok(dirs::home_dir()
            .context("this user has no home directory; name a file with --kubeconfig")?
            .join(".kube/config")),
    }
}

/// How to reach a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `https://127.0.0.1:6443`
    pub(crate) server: String,
    /// The authority's certificate, PEM.
    pub(crate) ca_certificate: String,
    /// The administrator's token.
    pub(crate) token: String,
    /// Every server of the cluster, where there are several: what speaks to one may speak to any.
    pub(crate) servers: Vec<String>,
}

impl Entry {
    /// Whether two lead to the same server as the same user.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.server == other.server && self.ca_certificate == other.ca_certificate && self.token == other.token
    }
}

/// Where a cluster's entry has all its servers: kubectl knows one, and keeps extensions as they are.
const SERVERS: &str = "servers.coracle.dev";

/// What an entry says of its cluster.
fn cluster_of(entry: &Entry) -> Value {
    let ca = base64(entry.ca_certificate.as_bytes());
    let mut cluster = json!({"server": entry.server, "certificate-authority-data": ca});
    if is_here(&entry.server) {
        // Compressing takes longer than sending where nothing is sent over a network.
        cluster["disable-compression"] = true.into();
    }
    if entry.servers.len() > 1 {
        cluster["extensions"] = json!([{"name": SERVERS, "extension": entry.servers}]);
    }
    cluster
}

/// A kubeconfig with this cluster alone.
pub(crate) fn text(entry: &Entry) -> String {
    yaml::to_string(&alone(entry, CONTEXT, &json!({"token": entry.token})))
}

fn alone(entry: &Entry, name: &str, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": cluster_of(entry)}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": name}}],
        "users": [{"name": name, "user": user}],
    })
}

/// Writes the entry; returns another context that stays the current one, if there is one.
pub(crate) fn write(path: &Path, entry: &Entry) -> Result<Option<String>> {
    let mut config = read(path)?;
    put(&mut config, "clusters", "cluster", Some(cluster_of(entry)))?;
    put(&mut config, "users", "user", Some(json!({"token": entry.token})))?;
    put(&mut config, "contexts", "context", Some(json!({"cluster": CONTEXT, "user": CONTEXT})))?;
    let current = config.get("current-context").and_then(Value::as_str).unwrap_or_default().to_owned();
    if current.is_empty() {
        config.insert("current-context".into(), CONTEXT.into());
    }
    save(path, &config)?;
    Ok(Some(current).filter(|current| !current.is_empty() && current != CONTEXT))
}

/// Whether a server is on this machine.
fn is_here(server: &str) -> bool {
    let address = server.strip_prefix("https://").and_then(|address| address.parse::<std::net::SocketAddr>().ok());
    address.is_some_and(|address| address.ip().is_loopback())
}

/// Writes a file of its own for another user: the cluster of an entry, and the user's own credentials.
pub(crate) fn write_new(path: &Path, entry: &Entry, name: &str, user: &Value) -> Result<()> {
    let config = alone(entry, name, user);
    save(path, &config.as_object().cloned().unwrap_or_default())
}

/// Takes the entry out again.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let mut config = read(path)?;
    for (list, field) in [("clusters", "cluster"), ("users", "user"), ("contexts", "context")] {
        put(&mut config, list, field, None)?;
    }
    if config.get("current-context").and_then(Value::as_str) == Some(CONTEXT) {
        config.insert("current-context".into(), "".into());
    }
    save(path, &config)
}

/// The entry, where there is one.
pub(crate) fn find(path: &Path) -> Result<Option<Entry>> {
    let config = read(path)?;
    let named = |list: &str, field: &str| {
        let items = config.get(list).and_then(Value::as_array);
        items.into_iter().flatten().find(|item| item["name"] == CONTEXT).map(|item| item[field].clone())
    };
    let (Some(cluster), Some(user)) = (named("clusters", "cluster"), named("users", "user")) else { return Ok(None) };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ca = from_base64(&text(&cluster["certificate-authority-data"])).unwrap_or_default();
    let extensions = cluster["extensions"].as_array().into_iter().flatten();
    let servers = extensions.filter(|extension| extension["name"] == SERVERS);
    let servers = servers.flat_map(|extension| extension["extension"].as_array().into_iter().flatten());
    let servers = servers.filter_map(|server| server.as_str().map(str::to_owned)).collect();
    Ok(Some(Entry { server: text(&cluster["server"]), ca_certificate: ca, token: text(&user["token"]), servers }))
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut documents =
        yaml::parse_documents(&bytes).with_context(|| format!("{} is no kubeconfig", path.display()))?;
    match if documents.is_empty() { Value::Null } else { documents.swap_remove(0) } {
        Value::Null => {
            let empty = json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": [], "preferences": {}});
            Ok(empty.as_object().cloned().unwrap_or_default())
        }
        Value::Object(config) => Ok(config),
        _ => bail!("{} is no kubeconfig", path.display()),
    }
}

/// Puts the entry of one list in its place, or takes it out.
fn put(config: &mut Map<String, Value>, list: &str, field: &str, value: Option<Value>) -> Result<()> {
    let entry = config.entry(list).or_insert_with(|| json!([]));
    if entry.is_null() {
        *entry = json!([]);
    }
    let Some(items) = entry.as_array_mut() else { bail!("the kubeconfig's {list} is no list") };
    items.retain(|item| item["name"] != CONTEXT);
    if let Some(value) = value {
        let mut item = Map::new();
        item.insert("name".into(), CONTEXT.into());
        item.insert(field.into(), value);
        items.push(Value::Object(item));
    }
    Ok(())
}

/// Replaces the file as a whole; it holds a token, so only the user may read it.
fn save(path: &Path, config: &Map<String, Value>) -> Result<()> {
    let text = yaml::to_string(&Value::Object(config.clone()));
    let what = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(what)?;
    }
    // A link stays a link: what it leads to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut unfinished = target.clone().into_os_string();
    unfinished.push(".coracle-unfinished");
    let unfinished = PathBuf::from(unfinished);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&unfinished).with_context(what)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(what)?;
    fs::rename(&unfinished, &target).with_context(what)
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn from_base64(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let servers = vec!["https://127.0.0.1:6443".into(), "https://127.0.0.1:7443".into()];
        Entry { server: "https://127.0.0.1:6443".into(), ca_certificate: "CA".into(), token: "t".into(), servers }
    }

    #[test]
    fn a_new_kubeconfig_has_coracle_as_its_current_context() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/config");
        assert_eq!(write(&path, &entry()).unwrap(), None);
        assert_eq!(find(&path).unwrap(), Some(entry()));
        let config = read(&path).unwrap();
        assert_eq!(config["current-context"], CONTEXT);
        assert_eq!(config["clusters"][0]["cluster"]["disable-compression"], true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_else_is_in_a_kubeconfig_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let other = "apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster: {server: https://work}\n\
            contexts:\n- name: work\n  context: {cluster: work, user: me}\nusers:\n- name: me\n  user: {token: secret}\n";
        fs::write(&path, other).unwrap();
        assert_eq!(write(&path, &entry()).unwrap(), Some("work".into()));
        write(&path, &entry()).unwrap();
        let config = read(&path).unwrap();
        assert_eq!(config["clusters"].as_array().unwrap().len(), 2);
        remove(&path).unwrap();
        let config = read(&path).unwrap();
        assert_eq!(config["clusters"], json!([{"name": "work", "cluster": {"server": "https://work"}}]));
        assert_eq!(config["current-context"], "work");
    }
}
