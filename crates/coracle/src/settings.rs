//! What a cluster's user has set for all of it: reading it, and writing it into the replicated state.

use coracle_api::settings::{ClusterSettings, SettingsObject};
use coracle_api::{Attributes, Status, canonical_json};
use coracle_store::{Precondition, Transaction, View, Write};
use serde_json::Value;

use crate::process::Process;

/// How often a change is tried, where others change it at the same time.
const TRIES: u32 = 5;

/// The settings.
pub(crate) fn of(view: &View) -> ClusterSettings {
    view.typed::<SettingsObject>(&ClusterSettings::key()).map_or_else(ClusterSettings::default, |object| object.spec)
}

/// Changes those that are named, and says what holds then.
pub(crate) async fn change(process: &Process, asked: &[u8]) -> Result<ClusterSettings, Status> {
    let asked: Value = serde_json::from_slice(asked).map_err(|error| Status::bad_request(error.to_string()))?;
    let known = serde_json::to_value(ClusterSettings::default()).unwrap_or_default();
    let named = asked.as_object().ok_or_else(|| Status::bad_request("settings are an object"))?;
    if let Some(unknown) = named.keys().find(|name| known.get(name.as_str()).is_none()) {
        return Err(Status::bad_request(format!("there is no setting {unknown:?}")));
    }
    for _ in 0..TRIES {
        process.read().await?;
        let view = process.view();
        let mut value = serde_json::to_value(of(&view)).unwrap_or_default();
        for (name, setting) in named {
            value[name.as_str()] = setting.clone();
        }
        let settings: ClusterSettings =
            serde_json::from_value(value).map_err(|error| Status::bad_request(error.to_string()))?;
        settings.check().map_err(Status::bad_request)?;
        if settings == of(&view) || process.propose(put(&view, &settings)).await?.is_ok() {
            return Ok(settings);
        }
    }
    Err(Status::internal("the settings are changed by others at the same time; try again"))
}

fn put(view: &View, settings: &ClusterSettings) -> Transaction {
    let key = ClusterSettings::key();
    let precondition = match view.object(&key) {
        Some(object) => Precondition::At(key.clone(), object.revision()),
        None => Precondition::Absent(key.clone()),
    };
    let put = Write::Put { key, body: canonical_json(&settings.body()).into(), attributes: Attributes::new() };
    Transaction { preconditions: vec![precondition], writes: vec![put], ..Transaction::default() }
}
