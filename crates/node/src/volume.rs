//! What a pod's volumes hold.

use std::collections::BTreeSet;

use bytes::Bytes;
use coracle_api::resources::{CONFIG_MAPS, SECRETS};
use coracle_api::{ObjectKey, Quantity};
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use crate::credentials;
use crate::downward::Downward;
use crate::objects::{Data, Objects};
use crate::pod_spec::PodView;
use crate::pod_worker::tokens::{self, Tokens};
use crate::runtime::{VolumeFile, VolumeSource};

/// `defaultMode` where a volume names none.
const DEFAULT_MODE: i32 = 0o644;
/// The mode of a file with a token.
const TOKEN_MODE: i32 = 0o600;

/// What a volume is made of; without `tokens` the files that would hold some are left out, and without `host_paths` no volume is a
/// path of the node. The error is the end of the `FailedMount` Event's sentence.
pub(crate) fn contents(
    volume: &Volume,
    objects: &Objects,
    tokens: Option<&Tokens>,
    host_paths: bool,
    downward: Downward<'_>,
) -> Result<VolumeSource, String> {
    let namespace = downward.pod.namespace();
    let mut files = Files { namespace, objects, tokens, downward, mode: DEFAULT_MODE, contents: Vec::new() };
    if let Some(source) = &volume.empty_dir {
        let limit = source.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok());
        let size_limit = limit.and_then(|limit| u64::try_from(limit.units()).ok()).filter(|limit| *limit > 0);
        return Ok(VolumeSource::EmptyDir { size_limit, in_memory: source.medium.as_deref() == Some("Memory") });
    } else if let Some(source) = volume.host_path.as_ref().filter(|_| host_paths) {
        let (path, expects) = (source.path.clone(), source.type_.clone().unwrap_or_default());
        return Ok(VolumeSource::HostPath { path, expects });
    } else if let Some(source) = &volume.config_map {
        files.mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        files.config_map(&source.name, source.items.as_deref(), source.optional)?;
    } else if let Some(source) = &volume.secret {
        files.mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        files.secret(name, source.items.as_deref(), source.optional)?;
    } else if let Some(source) = &volume.downward_api {
        files.mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        files.downward_api(source.items.as_deref().unwrap_or_default())?;
    } else if let Some(source) = &volume.projected {
        files.mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for projection in source.sources.iter().flatten() {
            files.projection(projection)?;
        }
    } else {
        return Err(format!("volumes of type {} are not supported by this node", type_of(volume)));
    }
    Ok(VolumeSource::Files(files.contents))
}

/// The ConfigMaps and Secrets that a pod reads, in volumes and variables, and the Secrets that it pulls images with.
pub(crate) fn references(pod: &PodView) -> BTreeSet<ObjectKey> {
    let mut keys = BTreeSet::new();
    let mut config_map = |name: &str| keys.insert(ObjectKey::new(CONFIG_MAPS, pod.namespace(), name));
    let projections = || {
        let projected = pod.spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
        projected.flat_map(|projected| projected.sources.iter().flatten())
    };
    let env_from = || pod.containers().flat_map(|(_, container)| container.env_from.iter().flatten());
    let env = || {
        let variables = pod.containers().flat_map(|(_, container)| container.env.iter().flatten());
        variables.filter_map(|variable| variable.value_from.as_ref())
    };
    for volume in pod.spec.volumes.iter().flatten() {
        volume.config_map.iter().for_each(|source| _ = config_map(&source.name));
    }
    projections().filter_map(|p| p.config_map.as_ref()).for_each(|source| _ = config_map(&source.name));
    env_from().filter_map(|source| source.config_map_ref.as_ref()).for_each(|source| _ = config_map(&source.name));
    env().filter_map(|source| source.config_map_key_ref.as_ref()).for_each(|source| _ = config_map(&source.name));
    let mut secret = |name: &str| keys.insert(ObjectKey::new(SECRETS, pod.namespace(), name));
    for volume in pod.spec.volumes.iter().flatten() {
        volume.secret.iter().filter_map(|source| source.secret_name.as_ref()).for_each(|name| _ = secret(name));
    }
    projections().filter_map(|p| p.secret.as_ref()).for_each(|source| _ = secret(&source.name));
    env_from().filter_map(|source| source.secret_ref.as_ref()).for_each(|source| _ = secret(&source.name));
    env().filter_map(|source| source.secret_key_ref.as_ref()).for_each(|source| _ = secret(&source.name));
    credentials::pull_secrets(pod).for_each(|name| _ = secret(name));
    keys
}

/// The field of a volume that says what it is.
fn type_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut fields = value.as_object().into_iter().flatten().map(|(name, _)| name);
    fields.find(|name| *name != "name").map_or("unknown", String::as_str).to_owned()
}

/// The files of a volume as they come together.
struct Files<'a> {
    namespace: &'a str,
    objects: &'a Objects,
    tokens: Option<&'a Tokens>,
    downward: Downward<'a>,
    mode: i32,
    contents: Vec<VolumeFile>,
}

impl Files<'_> {
    fn projection(&mut self, projection: &VolumeProjection) -> Result<(), String> {
        if let Some(source) = &projection.config_map {
            self.config_map(&source.name, source.items.as_deref(), source.optional)
        } else if let Some(source) = &projection.secret {
            self.secret(&source.name, source.items.as_deref(), source.optional)
        } else if let Some(source) = &projection.downward_api {
            self.downward_api(source.items.as_deref().unwrap_or_default())
        } else if let Some(source) = &projection.service_account_token {
            let Some(tokens) = self.tokens else { return Ok(()) };
            let text = tokens.text(&tokens::key_of(source)).unwrap_or_else(|| Err("the token is on its way".into()))?;
            // With a group of the pod's own its members read it and nobody else, whatever the mode of the volume; without one whoever the
            // containers run as must be able to (as kubelets write it).
            let grouped = self.downward.pod.value["spec"]["securityContext"]["fsGroup"].is_number();
            self.add(&source.path, text, grouped.then_some(TOKEN_MODE))
        } else {
            Err("a source of the projected volume is not supported by this node".into())
        }
    }

    fn config_map(&mut self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<(), String> {
        let data = self.objects.config_map(self.namespace, name);
        self.keys(data, items, optional, ("configmap", "config"), name)
    }

    fn secret(&mut self, name: &str, items: Option<&[KeyToPath]>, optional: Option<bool>) -> Result<(), String> {
        let data = self.objects.secret(self.namespace, name);
        self.keys(data, items, optional, ("secret", "secret"), name)
    }

    fn keys(
        &mut self,
        data: Option<Data>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        (kind, key_kind): (&str, &str),
        name: &str,
    ) -> Result<(), String> {
        let optional = optional == Some(true);
        let Some(data) = data else {
            return if optional { Ok(()) } else { Err(format!("{kind} {name:?} not found")) };
        };
        let Some(items) = items else {
            for (key, contents) in data {
                self.add(&key, contents, None)?;
            }
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(contents) => self.add(&item.path, contents.clone(), item.mode)?,
                None if optional => {}
                None => return Err(format!("references non-existent {key_kind} key: {}", item.key)),
            }
        }
        Ok(())
    }

    fn downward_api(&mut self, items: &[DownwardAPIVolumeFile]) -> Result<(), String> {
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                self.downward.field(&field.field_path)?
            } else if let Some(field) = &item.resource_field_ref {
                self.downward.resource(field, None)?
            } else {
                return Err(format!("the file {} has no source", item.path));
            };
            self.add(&item.path, Bytes::from(text), item.mode)?;
        }
        Ok(())
    }

    /// Adds a file; one of the same path replaces the one before, as later sources of a projected volume do.
    fn add(&mut self, path: &str, contents: Bytes, mode: Option<i32>) -> Result<(), String> {
        if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(format!("the path {path:?} leads out of the volume"));
        }
        let mode = mode.unwrap_or(self.mode).cast_unsigned();
        self.contents.retain(|file| file.path != path);
        self.contents.push(VolumeFile { path: path.into(), contents, mode });
        Ok(())
    }
}
