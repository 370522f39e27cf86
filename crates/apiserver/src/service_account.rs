//! ServiceAccount tokens: what is claimed in them, and whose they are.
//!
//! Signing and checking signatures need a private key, which is the driver's: here are the claims alone, and what the state says
//! of them (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>).

use std::time::Duration;

use coracle_api::resources::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS};
use coracle_api::{GroupResource, Object, ObjectKey, UserInfo};
use coracle_base::Timestamp;
use coracle_store::View;
use serde_json::{Value, json};

/// The issuer of tokens, and the audience of those that are for the API server.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How long tokens stay valid after what they are bound to began to be deleted: it may still have work to finish.
const LEEWAY: Duration = Duration::from_mins(1);

/// The prefix of the names of ServiceAccounts as users.
const USER_PREFIX: &str = "system:serviceaccount:";

/// What a token is bound to beside its ServiceAccount: the kind's word in the claims, and the object.
pub(crate) type Bound<'a> = (&'static str, &'a Object);

/// The claims of a token of an account for these audiences, valid for `seconds` from now; `id` tells it from any other. With
/// `warn_after` its use after so many seconds is a sign of a client that does not read its token again.
pub(crate) fn claims(
    account: &Object,
    bound: &[Bound<'_>],
    audiences: &[String],
    (now, seconds, warn_after): (Timestamp, i64, Option<i64>),
    id: &str,
) -> Value {
    let key = account.key();
    let mut private = json!({ "namespace": key.namespace, "serviceaccount": reference(account) });
    for (kind, object) in bound {
        private[kind] = reference(object);
    }
    let issued = now.as_secs();
    if let Some(after) = warn_after {
        private["warnafter"] = (issued + after).into();
    }
    json!({
        "aud": audiences,
        "exp": issued + seconds,
        "iat": issued,
        "iss": ISSUER,
        "jti": id,
        "kubernetes.io": private,
        "nbf": issued,
        "sub": format!("{USER_PREFIX}{}:{}", key.namespace, key.name),
    })
}

fn reference(object: &Object) -> Value {
    let uid = object.metadata().uid.as_ref().map(ToString::to_string).unwrap_or_default();
    json!({ "name": object.key().name, "uid": uid })
}

/// Whose token it is, as its claims say, and for which of `audiences` it is; the claims' signature is checked already.
///
/// # Errors
///
/// When the token is not of this cluster or not for these audiences, its time is over or has not come, or its account, or
/// what it is bound to, is gone: why, for the log. A client is told no more than that it is unknown.
pub fn user_of(
    claims: &Value,
    view: &View,
    now: Timestamp,
    audiences: &[&str],
) -> Result<(UserInfo, Vec<String>), String> {
    if claims["iss"] != ISSUER {
        return Err("the token is of another issuer".into());
    }
    let seconds = |claim: &str| claims[claim].as_i64().ok_or_else(|| format!("the token has no {claim}"));
    if seconds("exp")? < now.as_secs() {
        return Err("service account token has expired".into());
    }
    if seconds("nbf")? > now.as_secs() {
        return Err("service account token is not valid yet".into());
    }
    let stated = claims["aud"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let shared: Vec<String> = stated.filter(|audience| audiences.contains(audience)).map(str::to_owned).collect();
    if shared.is_empty() {
        return Err(format!("token audiences {} is invalid for the target audiences {audiences:?}", claims["aud"]));
    }
    let private = &claims["kubernetes.io"];
    let namespace = private["namespace"].as_str().unwrap_or_default();
    let account = alive(view, now, (&SERVICE_ACCOUNTS, namespace), &private["serviceaccount"])?;
    let mut user = user(namespace, account, claims);
    for (kind, resource, namespace) in
        [("pod", &PODS, namespace), ("secret", &SECRETS, namespace), ("node", &NODES, "")]
    {
        let Some(reference) = private.get(kind) else { continue };
        // A token of a pod names the pod's node, too, and stays valid without it.
        if kind != "node" || private.get("pod").is_none() {
            alive(view, now, (resource, namespace), reference)?;
        }
        if kind != "secret" {
            for field in ["name", "uid"] {
                let value = reference[field].as_str().unwrap_or_default();
                user.extra.insert(format!("authentication.kubernetes.io/{kind}-{field}"), vec![value.to_owned()]);
            }
        }
    }
    Ok((user, shared))
}

fn user(namespace: &str, account: &Object, claims: &Value) -> UserInfo {
    let groups = vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
        "system:authenticated".to_owned(),
    ];
    let mut user = UserInfo {
        name: format!("{USER_PREFIX}{namespace}:{}", account.key().name),
        uid: account.metadata().uid.as_ref().map(ToString::to_string).unwrap_or_default(),
        groups,
        ..UserInfo::default()
    };
    if let Some(id) = claims["jti"].as_str() {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    user
}

/// The object of a claim, if it is there, the same, and not long since in deletion.
fn alive<'a>(
    view: &'a View,
    now: Timestamp,
    (resource, namespace): (&GroupResource, &str),
    reference: &Value,
) -> Result<&'a Object, String> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let key = ObjectKey::new(resource.clone(), namespace, text("name"));
    let object = view.object(&key).ok_or_else(|| format!("{key} of the token is gone"))?;
    let metadata = object.metadata();
    if metadata.uid.as_ref().is_none_or(|uid| uid.to_string() != text("uid")) {
        return Err(format!("{key} of the token is another than it was"));
    }
    let deleted = metadata.deletion_timestamp;
    if deleted.is_some_and(|deleted| deleted + LEEWAY < now) {
        return Err(format!("{key} of the token has been deleted"));
    }
    Ok(object)
}
