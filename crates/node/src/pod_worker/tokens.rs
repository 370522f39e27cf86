//! The ServiceAccount tokens of a pod's projected volumes: asked for before the volumes are made, and again in good time.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::{Method, Request, Response, UserInfo};
use coracle_base::{Instant, Now, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccountTokenProjection;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::RequestId;
use crate::context::{Context, Purpose};
use crate::pod_spec::PodView;

/// How long a token is asked for when nothing is said, in seconds.
const SECONDS_DEFAULT: i64 = 3600;
/// A token is asked for anew when so much of its time is over, or after a day (as kubelets do).
const REFRESH_PERCENT: u32 = 80;
const REFRESH_MAX: Duration = Duration::from_hours(24);
/// How long to wait before a token that could not be had is asked for again.
const RETRY: Duration = Duration::from_secs(10);

/// What tells the tokens of a pod apart: audience and seconds.
pub(crate) type TokenKey = (String, i64);

/// A token as it is kept across restarts of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenCheckpoint {
    /// For whom; empty: the API server.
    pub audience: String,
    /// For how long it was asked for.
    pub seconds: i64,
    /// The token.
    pub token: String,
    /// When it was had.
    pub since: Timestamp,
}

/// A pod's tokens.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    by_key: BTreeMap<TokenKey, Token>,
}

#[derive(Debug)]
struct Token {
    text: Result<String, String>,
    since: Timestamp,
    /// When it is asked for again.
    due: Instant,
    asked: Option<RequestId>,
}

/// What a projection asks for.
pub(crate) fn key_of(source: &ServiceAccountTokenProjection) -> TokenKey {
    (source.audience.clone().unwrap_or_default(), source.expiration_seconds.unwrap_or(SECONDS_DEFAULT))
}

impl Tokens {
    /// The tokens that were kept.
    pub(super) fn restore(kept: Vec<TokenCheckpoint>, now: Now) -> Self {
        let token = |kept: TokenCheckpoint| {
            let due = now.mono + refresh(kept.seconds).saturating_sub(now.wall.saturating_since(kept.since));
            let key = (kept.audience, kept.seconds);
            (key, Token { text: Ok(kept.token), since: kept.since, due, asked: None })
        };
        Self { by_key: kept.into_iter().map(token).collect() }
    }

    pub(super) fn checkpoint(&self) -> Vec<TokenCheckpoint> {
        let kept = |((audience, seconds), token): (&TokenKey, &Token)| {
            let text = token.text.as_ref().ok().filter(|text| !text.is_empty())?.clone();
            Some(TokenCheckpoint { audience: audience.clone(), seconds: *seconds, token: text, since: token.since })
        };
        self.by_key.iter().filter_map(kept).collect()
    }

    /// A token, or why it could not be had; `None` while it is on its way for the first time.
    pub(crate) fn text(&self, key: &TokenKey) -> Option<Result<Bytes, String>> {
        match &self.by_key.get(key)?.text {
            Ok(text) if text.is_empty() => None,
            Ok(text) => Some(Ok(Bytes::from(text.clone()))),
            Err(why) => Some(Err(why.clone())),
        }
    }

    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        self.by_key.values().filter(|token| token.asked.is_none()).map(|token| token.due).min()
    }

    /// Asks for what is missing or due; says whether every token is there or refused.
    pub(super) fn request(&mut self, pod: &PodView, context: &mut Context<'_>) -> bool {
        for key in keys(pod) {
            let now = context.now;
            let unknown = || Token { text: Ok(String::new()), since: now.wall, due: now.mono, asked: None };
            let token = self.by_key.entry(key.clone()).or_insert_with(unknown);
            if token.asked.is_none() && token.due <= now.mono {
                let user = UserInfo::node(&context.shared.config.name);
                token.asked = Some(context.request(Purpose::Pod(pod.uid.clone()), request(pod, &key, user)));
            }
        }
        self.by_key.iter().all(|(key, _)| self.text(key).is_some())
    }

    /// Takes the answer to one of its requests; false when it is none of them.
    pub(super) fn answered(&mut self, id: RequestId, response: &Response, now: Now) -> bool {
        let found = self.by_key.iter_mut().find(|(_, token)| token.asked == Some(id));
        let Some(((_, seconds), token)) = found else { return false };
        token.asked = None;
        let failure = response.failure().map(|status| status.message);
        let value = response.value();
        match (failure, value["status"]["token"].as_str()) {
            (None, Some(text)) if !text.is_empty() => {
                token.text = Ok(text.to_owned());
                token.since = now.wall;
                token.due = now.mono + refresh(*seconds);
            }
            (why, _) => {
                let why = why.unwrap_or_else(|| "the answer has no token".into());
                // A token that is still there goes on being used.
                if token.text.as_ref().map_or(true, String::is_empty) {
                    token.text = Err(format!("failed to fetch token: {why}"));
                }
                token.due = now.mono + RETRY;
            }
        }
        true
    }
}

/// After how long a token that was asked for so many seconds is asked for anew.
fn refresh(seconds: i64) -> Duration {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    (whole * REFRESH_PERCENT / 100).min(REFRESH_MAX)
}

/// The tokens that the pod's volumes ask for.
fn keys(pod: &PodView) -> impl Iterator<Item = TokenKey> {
    let projected = pod.spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()).map(key_of)
}

fn request(pod: &PodView, (audience, seconds): &TokenKey, user: UserInfo) -> Request {
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", pod.namespace(), pod.service_account());
    let audiences = if audience.is_empty() { Vec::new() } else { vec![audience] };
    let body = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod.name(), "uid": pod.uid.to_string()},
        },
    });
    Request::new(Method::Post, path, user).json(body)
}
