//! Join tokens: `C1<SHA-256 of the authority's certificate>::<id>.<secret>`.
//!
//! Each is a Secret of the type that Kubernetes has for them, `bootstrap-token-<id>` in kube-system
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>), with a use of its own: it lets machines join and opens
//! nothing else, the API least of all.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_api::resources::SECRETS;
use coracle_api::{Method, Object, ObjectKey, Reason, Request, Status, UserInfo};
use coracle_base::Timestamp;
use coracle_store::View;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::process::Process;
use crate::tls::{fingerprint, random_token};

/// The first letters, which say the version.
const VERSION: &str = "C1";
const NAMESPACE: &str = "kube-system";
const PREFIX: &str = "bootstrap-token-";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The use that makes a token one of these.
const USE: &str = "usage-coracle-join";
/// How often it may still be used, where that is bounded.
const LEFT: &str = "coracle-uses-left";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;
/// How many tokens there are at most, and how long they live.
const TOKENS_MAX: usize = 1000;
const LIFE_MAX: Duration = Duration::from_hours(24 * 365);
/// How often a use is tried to be counted, where others are let in at the same time.
const TRIES: u32 = 20;

/// A token, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinToken {
    /// The SHA-256 of the authority's certificate, in hexadecimal.
    pub(crate) ca: String,
    /// What is shown to be let in.
    pub(crate) credential: String,
}

impl JoinToken {
    /// Takes a text apart; none when it is no such token.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ca, credential) = text.trim().strip_prefix(VERSION)?.split_once("::")?;
        let (id, secret) = credential.split_once('.')?;
        let plain = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let sound = plain(ca, 64) && plain(id, ID_CHARS) && plain(secret, SECRET_CHARS);
        sound.then(|| Self { ca: ca.to_owned(), credential: credential.to_owned() })
    }
}

/// What a token knows an authority by.
pub(crate) fn ca_hash(certificate: &str) -> Option<String> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
    Some(fingerprint(&der))
}

/// Makes a token: `ttlSeconds`, and where they are bounded `uses`; `description` is for people.
pub(crate) async fn create(process: &Process, asked: &Value) -> Result<Value, Status> {
    let life = asked["ttlSeconds"].as_u64().map_or(Duration::from_hours(24), Duration::from_secs);
    if life.is_zero() || life > LIFE_MAX {
        return Err(Status::bad_request(format!("a token lives for 1 to {} seconds", LIFE_MAX.as_secs())));
    }
    let uses = match &asked["uses"] {
        Value::Null => None,
        uses => match uses.as_u64().filter(|uses| *uses > 0) {
            Some(uses) => Some(uses),
            None => return Err(Status::bad_request("a token can be used once or more")),
        },
    };
    sweep(process).await;
    if tokens(&process.view()).count() >= TOKENS_MAX {
        let message = format!("there are {TOKENS_MAX} join tokens; revoke some with `coracle token revoke`");
        return Err(Status::failure(429, Some(Reason::TooManyRequests), message));
    }
    let random = random_token().map_err(|error| Status::internal(error.to_string()))?;
    let (id, secret) = (&random[..ID_CHARS], &random[ID_CHARS..ID_CHARS + SECRET_CHARS]);
    let expires = (process.now().wall + life).rfc3339();
    let mut data = json!({
        "token-id": id, "token-secret": secret, "expiration": expires, USE: "true",
        "description": asked["description"].as_str().unwrap_or("made by `coracle token create`"),
    });
    if let Some(uses) = uses {
        data[LEFT] = uses.to_string().into();
    }
    let secret_object = json!({
        "kind": "Secret", "apiVersion": "v1", "type": TYPE, "stringData": data,
        "metadata": {"name": format!("{PREFIX}{id}"), "namespace": NAMESPACE},
    });
    ask(process, Request::new(Method::Post, path(""), admin()).json(secret_object)).await?;
    let ca = ca_hash(&process.authority.certificate).ok_or_else(|| Status::internal("the authority has no hash"))?;
    Ok(json!({ "id": id, "token": format!("{VERSION}{ca}::{id}.{secret}"), "expires": expires }))
}

/// The tokens, without their secrets.
pub(crate) fn list(process: &Process) -> Value {
    let view = process.view();
    let now = process.now().wall;
    let tokens = tokens(&view).map(|token| {
        let expires = field(&token, "expiration");
        json!({
            "id": field(&token, "token-id"), "expires": expires, "expired": is_over(&expires, now),
            "description": field(&token, "description"), "usesLeft": field(&token, LEFT).parse::<u64>().ok(),
        })
    });
    json!({ "tokens": tokens.collect::<Vec<_>>() })
}

/// Takes a token back. What joined by it stays.
pub(crate) async fn revoke(process: &Process, id: &str) -> Result<(), Status> {
    // Somebody may give the whole token.
    let id = JoinToken::parse(id).map_or_else(|| id.to_owned(), |token| token.credential);
    let id = id.split('.').next().unwrap_or_default();
    let known = tokens(&process.view()).any(|token| field(&token, "token-id") == id);
    if !known {
        let message = format!("there is no join token {id:?}; `coracle token list` shows those that there are");
        return Err(Status::failure(404, Some(Reason::NotFound), message));
    }
    ask(process, Request::new(Method::Delete, path(&format!("/{PREFIX}{id}")), admin())).await.map(drop)
}

/// Whether who shows this is let in; a use is counted.
pub(super) async fn spend(process: &Process, credential: &str) -> Result<(), Status> {
    for _ in 0..TRIES {
        let view = process.view();
        let mut token = check(&view, credential, process.now().wall)?;
        let Ok(left) = field(&token, LEFT).parse::<u64>() else { return Ok(()) };
        token["data"][LEFT] = STANDARD.encode((left - 1).to_string()).into();
        let name = token["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let put = Request::new(Method::Put, path(&format!("/{name}")), admin()).json(token);
        match ask(process, put).await {
            Err(status) if status.code == 409 => {}
            Err(status) if status.code == 404 => return Err(refused("it was revoked")),
            outcome => return outcome.map(drop),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Status::failure(503, Some(Reason::ServiceUnavailable), "too many machines join at once; try again"))
}

/// The token's Secret, if it lets anybody in.
fn check(view: &View, credential: &str, now: Timestamp) -> Result<Value, Status> {
    let (id, secret) = credential.split_once('.').unwrap_or_default();
    let key = ObjectKey::new(SECRETS, NAMESPACE, &format!("{PREFIX}{id}"));
    let unknown = || refused("nobody here knows it: it is mistyped, was revoked, or expired long ago");
    let object = view.object(&key).ok_or_else(unknown)?;
    let token = secret_of(object).ok_or_else(unknown)?;
    // Digests are compared, so that the time it takes says nothing about the secret.
    if fingerprint(field(&token, "token-secret").as_bytes()) != fingerprint(secret.as_bytes()) {
        return Err(unknown());
    }
    let expires = field(&token, "expiration");
    if is_over(&expires, now) {
        return Err(refused(&format!("it expired at {expires}")));
    }
    if field(&token, LEFT) == "0" {
        return Err(refused("it was used as often as it may be"));
    }
    Ok(token)
}

fn refused(why: &str) -> Status {
    let message = format!("the join token is refused: {why}; `coracle token create` on a member gives another");
    Status::failure(401, Some(Reason::Unauthorized), message)
}

/// The Secrets that are join tokens.
fn tokens(view: &View) -> impl Iterator<Item = Value> {
    view.list(&SECRETS, Some(NAMESPACE))
        .filter(|object| object.key().name.starts_with(PREFIX))
        .filter_map(|object| secret_of(object))
}

/// An object as a request has it, if it is such a token.
fn secret_of(object: &Object) -> Option<Value> {
    let resource = coracle_api::registry::Registry::builtin();
    let resource = resource.by_group_resource(&SECRETS)?;
    let value = object.value(Some(&resource.gvk));
    (value["type"] == TYPE && field(&value, USE) == "true").then_some(value)
}

fn field(token: &Value, name: &str) -> String {
    let encoded = token["data"][name].as_str().unwrap_or_default();
    STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// A token without a time that can be read lets nobody in.
fn is_over(expires: &str, now: Timestamp) -> bool {
    Timestamp::parse(expires).map_or(true, |expires| expires <= now)
}

/// Removes what has expired.
async fn sweep(process: &Process) {
    let now = process.now().wall;
    let expired: Vec<String> = tokens(&process.view())
        .filter(|token| is_over(&field(token, "expiration"), now))
        .filter_map(|token| Some(token["metadata"]["name"].as_str()?.to_owned()))
        .collect();
    for name in expired {
        let _ = ask(process, Request::new(Method::Delete, path(&format!("/{name}")), admin())).await;
    }
}

async fn ask(process: &Process, request: Request) -> Result<Value, Status> {
    let response = process.respond(request).await;
    match response.failure() {
        Some(status) => Err(status),
        None => Ok(response.value()),
    }
}

fn path(rest: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/secrets{rest}")
}

fn admin() -> UserInfo {
    UserInfo::admin("system:coracle:join-tokens")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_apart_and_anything_else_is_none() {
        let ca = "0".repeat(64);
        let text = format!("C1{ca}::abc123.0123456789abcdef\n");
        let token = JoinToken::parse(&text).unwrap();
        assert_eq!((token.ca, token.credential.as_str()), (ca.clone(), "abc123.0123456789abcdef"));
        for wrong in [
            String::new(),
            format!("C2{ca}::abc123.0123456789abcdef"),
            format!("C1{ca}::abc123"),
            format!("C1{}::abc123.0123456789abcdef", &ca[1..]),
            format!("C1{ca}::abc12/.0123456789abcdef"),
            format!("C1{ca}::abc123.0123456789abcde"),
        ] {
            assert_eq!(JoinToken::parse(&wrong), None, "{wrong}");
        }
    }
}
