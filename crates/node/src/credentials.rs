//! Whose password opens which registry: `imagePullSecrets` and docker's configuration files.
//!
//! Which entry is for which image is the kubelet's rule: `*` in a part of a host, equal ports, and a path that the repository begins with; the
//! longest first.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use crate::canonical_image_name;
use crate::context::Context;
use crate::objects::Objects;
use crate::pod_spec::PodView;
use crate::runtime::Login;

/// The two types of Secrets with passwords of registries, and the key that each has them under.
const PULL_SECRETS: [(&str, &str); 2] =
    [("kubernetes.io/dockerconfigjson", ".dockerconfigjson"), ("kubernetes.io/dockercfg", ".dockercfg")];
/// What docker calls its own registry.
const DOCKER_HUB: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// Passwords by what they are for: a host, perhaps with a port and the beginning of a path.
#[derive(Debug, Default)]
pub struct Keyring {
    entries: BTreeMap<String, Vec<Login>>,
}

/// A `config.json` of docker.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// One registry of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
}

impl Keyring {
    /// Adds what a `config.json` of docker holds under `auths`.
    ///
    /// # Errors
    ///
    /// When it is none, or an entry is no user and password.
    pub fn add_docker_config(&mut self, text: &[u8]) -> Result<(), String> {
        let config: DockerConfig = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        self.add_entries(config.auths)
    }

    /// Adds what an old `.dockercfg` holds: the registries without anything around them.
    ///
    /// # Errors
    ///
    /// When it is none, or an entry is no user and password.
    pub fn add_dockercfg(&mut self, text: &[u8]) -> Result<(), String> {
        self.add_entries(serde_json::from_slice(text).map_err(|error| error.to_string())?)
    }

    fn add_entries(&mut self, entries: BTreeMap<String, Entry>) -> Result<(), String> {
        for (server, entry) in entries {
            let login = if entry.auth.is_empty() {
                Login { username: entry.username, password: entry.password }
            } else {
                decode(&entry.auth).ok_or_else(|| format!("the auth of {server:?} is not user:password in base64"))?
            };
            if login.username.is_empty() && login.password.is_empty() {
                continue; // a helper has it, or nobody
            }
            self.entries.entry(key_of(&server)).or_default().push(login);
        }
        Ok(())
    }

    /// As whom to ask for an image, the most particular first. An image whose name is none has nobody.
    pub fn logins(&self, image: &str) -> Vec<Login> {
        let Ok(canonical) = canonical_image_name(image) else { return Vec::new() };
        let repository = repository_of(&canonical);
        let matching = self.entries.iter().rev().filter(|(key, _)| matches(key, repository));
        let mut logins: Vec<Login> = Vec::new();
        for login in matching.flat_map(|(_, logins)| logins) {
            if !logins.contains(login) {
                logins.push(login.clone());
            }
        }
        logins
    }
}

/// The name without tag and digest.
fn repository_of(canonical: &str) -> &str {
    let name = canonical.split('@').next().unwrap_or(canonical);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

fn decode(auth: &str) -> Option<Login> {
    let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Login { username: username.to_owned(), password: password.trim_matches('\0').to_owned() })
}

/// `host[:port][/path]` of a server as people write it: with or without a scheme, with the version of the API behind it.
fn key_of(server: &str) -> String {
    let server = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let (host, path) = server.split_once('/').unwrap_or((server, ""));
    let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
    let path = if matches!(path, "v1" | "v2") { "" } else { path.trim_end_matches('/') };
    let host = if DOCKER_HUB.contains(&host) { "docker.io" } else { host };
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// Whether an entry is for a repository.
fn matches(key: &str, repository: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let (key_name, key_port) = key_host.split_once(':').unwrap_or((key_host, ""));
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let (globs, parts): (Vec<&str>, Vec<&str>) = (key_name.split('.').collect(), name.split('.').collect());
    key_port == port
        && globs.len() == parts.len()
        && globs.iter().zip(parts).all(|(glob, part)| glob_matches(glob, part))
        && path.starts_with(key_path)
}

/// `*` stands for any letters, `?` for one.
fn glob_matches(glob: &str, part: &str) -> bool {
    match glob.chars().next() {
        None => part.is_empty(),
        Some('*') => {
            let rest = &glob[1..];
            part.char_indices().map(|(at, _)| at).chain([part.len()]).any(|at| glob_matches(rest, &part[at..]))
        }
        Some(first) => {
            let mut chars = part.chars();
            chars.next().is_some_and(|c| c == first || first == '?')
                && glob_matches(&glob[first.len_utf8()..], chars.as_str())
        }
    }
}

/// The Secrets that a pod pulls with.
pub(crate) fn pull_secrets(pod: &PodView) -> impl Iterator<Item = &str> {
    pod.spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str()).filter(|name| !name.is_empty())
}

/// As whom a pod asks for an image, and the names of the Secrets that cannot be used for it.
fn of_pod(pod: &PodView, image: &str, objects: &Objects) -> (Vec<Login>, Vec<String>) {
    let (mut logins, mut missing): (Vec<Login>, Vec<String>) = Default::default();
    for name in pull_secrets(pod) {
        let mut keyring = Keyring::default();
        let usable = match objects.secret_of_type(pod.namespace(), name) {
            None => false,
            Some((kind, data)) => {
                let key = PULL_SECRETS.iter().find(|(known, _)| *known == kind).map(|(_, key)| *key);
                match key.and_then(|key| Some((key, data.get(key)?))) {
                    Some((".dockercfg", text)) => keyring.add_dockercfg(text).is_ok(),
                    Some((_, text)) => keyring.add_docker_config(text).is_ok(),
                    None => true, // of another type: as kubelets do, it is passed over
                }
            }
        };
        if !usable {
            missing.push(name.to_owned());
        }
        logins.extend(keyring.logins(image).into_iter().filter(|login| !logins.contains(login)).collect::<Vec<_>>());
    }
    (logins, missing)
}

impl Context<'_> {
    /// As whom a pod asks for an image, and the names of the Secrets that cannot be used for it.
    pub(crate) fn logins(&self, pod: &PodView, image: &str) -> (Vec<Login>, Vec<String>) {
        of_pod(pod, image, &self.shared.objects)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keyring(auths: serde_json::Value) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add_docker_config(json!({ "auths": auths }).to_string().as_bytes()).unwrap();
        keyring
    }

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        keyring.logins(image).into_iter().map(|login| login.username).collect()
    }

    #[test]
    fn an_entry_is_for_its_registry_and_below_its_path_the_longest_first() {
        let user = |name: &str| json!({"username": name, "password": "p"});
        let keyring = keyring(json!({
            "r.example.com": user("host"), "https://r.example.com/team/": user("team"),
            "r.example.com:5000": user("port"), "*.example.org": user("any"),
        }));
        assert_eq!(users(&keyring, "r.example.com/web:1"), ["host"]);
        assert_eq!(users(&keyring, "r.example.com/team/web"), ["team", "host"]);
        assert_eq!(users(&keyring, "r.example.com:5000/web"), ["port"]);
        assert_eq!(users(&keyring, "a.example.org/web"), ["any"]);
        assert_eq!(users(&keyring, "a.b.example.org/web"), [""; 0]);
        assert_eq!(users(&keyring, "web"), [""; 0]);
    }

    #[test]
    fn dockers_own_registry_has_many_names() {
        for name in ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"] {
            let auth = STANDARD.encode("me:p:w");
            let keyring = keyring(json!({name: {"auth": auth}}));
            let login = Login { username: "me".into(), password: "p:w".into() };
            assert_eq!(keyring.logins("me/web:1"), [login], "{name}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert!(Keyring::default().add_docker_config(b"{").is_err());
        let odd = json!({"auths": {"r": {"auth": "%"}}}).to_string();
        assert!(Keyring::default().add_docker_config(odd.as_bytes()).unwrap_err().contains("\"r\""));
        let mut old = Keyring::default();
        old.add_dockercfg(json!({"r:1": {"username": "u", "password": "p"}}).to_string().as_bytes()).unwrap();
        assert_eq!(users(&old, "r:1/web"), ["u"]);
    }

    #[test]
    fn a_password_is_not_printed() {
        let login = Login { username: "me".into(), password: "hidden".into() };
        assert!(!format!("{login:?}").contains("hidden"));
    }
}
