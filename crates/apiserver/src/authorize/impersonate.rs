//! Acting as somebody else: the headers `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*`, and who may send them.
//!
//! Source: the impersonation filter of `k8s.io/apiserver`.

use coracle_api::{Request, Status, UserInfo};

use super::{Access, Attributes, ResourceAttributes};

/// The prefix of a ServiceAccount's user name.
const ACCOUNT: &str = "system:serviceaccount:";
/// The group of API objects that uids and extra values of users are impersonated as.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The user that a request acts as: itself, or the one that its headers name, where its user may impersonate all of them.
pub(crate) fn effective_user(access: Access<'_>, request: &Request) -> Result<UserInfo, Status> {
    let asked = asked(request)?;
    let Some(asked) = asked else { return Ok(request.user.clone()) };
    let check = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes =
            ResourceAttributes { verb: "impersonate", group, resource, subresource, namespace, name, node_name: "" };
        access.check(&request.user, &Attributes::Resource(attributes))
    };
    match account(&asked.name) {
        Some((namespace, name)) => check("", "serviceaccounts", "", namespace, name)?,
        None => check("", "users", "", "", &asked.name)?,
    }
    for group in &asked.groups {
        check("", "groups", "", "", group)?;
    }
    for (key, values) in &asked.extra {
        for value in values {
            check(AUTHENTICATION, "userextras", key, "", value)?;
        }
    }
    if !asked.uid.is_empty() {
        check(AUTHENTICATION, "uids", "", "", &asked.uid)?;
    }
    Ok(with_own_groups(asked))
}

/// The user that the headers describe; `None` without any.
fn asked(request: &Request) -> Result<Option<UserInfo>, Status> {
    let mut user = UserInfo::default();
    let mut others = Vec::new();
    for (key, value) in &request.headers {
        match key.as_str() {
            "impersonate-user" => user.name.clone_from(value),
            "impersonate-group" => {
                user.groups.push(value.clone());
                others.push(format!("{{Group  {value}    }}"));
            }
            "impersonate-uid" => {
                user.uid.clone_from(value);
                others.push(format!("{{UID  {value}  {AUTHENTICATION}/v1  }}"));
            }
            _ => {
                if let Some(extra) = key.strip_prefix("impersonate-extra-") {
                    let extra = &unescaped(extra);
                    user.extra.entry(extra.to_owned()).or_default().push(value.clone());
                    others.push(format!("{{UserExtra  {value}  {AUTHENTICATION}/v1  {extra}}}"));
                }
            }
        }
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if others.is_empty() {
        return Ok(None);
    }
    Err(Status::internal(format!("requested [{}] without impersonating a user", others.join(" "))))
}

/// The key of an extra value: what may not stand in a header's name is percent-encoded; what is encoded wrongly stays as it is.
fn unescaped(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |at: usize| behind.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return key.to_owned() };
        bytes.push((high * 16 + low) as u8);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

/// The groups that a user is in by being who he is.
fn with_own_groups(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, _)) = account(&user.name)
    {
        user.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let own = if user.name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !user.groups.iter().any(|group| group == own) {
        user.groups.push(own.into());
    }
    user
}

/// The namespace and the name of the ServiceAccount that a user name stands for.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
