//! Who asks: bearer tokens to users. The administrator's token is a random text; ServiceAccounts have signed ones.

use std::sync::Arc;

use coracle_api::{Reason, Status, UserInfo};
use coracle_apiserver::Callout;
use coracle_apiserver::service_account::{self, ISSUER};
use coracle_base::Timestamp;
use coracle_store::View;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tokens::TokenKey;

/// Tokens and whose they are. Of random ones only digests are kept, and comparing digests gives nothing away by its timing.
#[derive(Debug)]
pub(crate) struct Authenticator {
    tokens: Vec<([u8; 32], UserInfo)>,
    key: Arc<TokenKey>,
}

impl Authenticator {
    /// An authenticator that knows the tokens of this key, and no other yet.
    pub(crate) fn new(key: Arc<TokenKey>) -> Self {
        Self { tokens: Vec::new(), key }
    }

    /// One more token.
    pub(crate) fn allow(&mut self, token: &str, user: UserInfo) {
        self.tokens.push((Sha256::digest(token.as_bytes()).into(), user));
    }

    /// The user of an `Authorization` header; nobody without one, and an error for a token that is not known.
    pub(crate) fn user(&self, authorization: Option<&str>, view: &View, now: Timestamp) -> Result<UserInfo, Status> {
        let Some(token) = authorization.and_then(|text| text.strip_prefix("Bearer ")).map(str::trim) else {
            return Ok(UserInfo::anonymous());
        };
        if let Some(user) = self.known(token) {
            return Ok(user.clone());
        }
        let why = match self.key.verify(token) {
            Some(claims) => match service_account::user_of(&claims, view, now, &[ISSUER]) {
                Ok((user, _)) => return Ok(user),
                Err(why) => why,
            },
            None => "nobody knows the token".into(),
        };
        tracing::debug!(%why, "a bearer token was refused");
        Err(Status::failure(401, Some(Reason::Unauthorized), "Unauthorized"))
    }

    /// Carries out what the API server asks of tokens.
    pub(crate) fn answer(&self, callout: Callout) -> Result<Value, Status> {
        match callout {
            Callout::SignToken { claims } => self.key.sign(&claims).map(Value::String).map_err(Status::internal),
            Callout::CheckToken { token } => Ok(match self.known(&token) {
                Some(user) => {
                    json!({ "user": { "username": user.name, "uid": user.uid, "groups": user.groups } })
                }
                None => self.key.verify(&token).map_or(Value::Null, |claims| json!({ "claims": claims })),
            }),
            other => Err(Status::internal(format!("nobody here carries out {other:?}"))),
        }
    }

    fn known(&self, token: &str) -> Option<&UserInfo> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.tokens.iter().find(|(known, _)| *known == digest).map(|(_, user)| user)
    }
}

#[cfg(test)]
mod tests {
    use coracle_store::{Store, StoreOptions};

    use super::*;

    #[test]
    fn a_wrong_token_is_refused_and_none_is_anonymous() {
        let key = || TokenKey::read(&TokenKey::generate().unwrap()).unwrap();
        let mut authenticator = Authenticator::new(Arc::new(key()));
        authenticator.allow("secret", UserInfo::admin("admin"));
        let view = Store::new(StoreOptions::default()).view();
        let user = |header: Option<&str>| authenticator.user(header, &view, Timestamp::EPOCH);
        assert_eq!(user(Some("Bearer secret")).unwrap().name, "admin");
        assert_eq!(user(Some("Bearer wrong")).unwrap_err().code, 401);
        assert_eq!(user(None).unwrap().name, "system:anonymous");
        let claims = json!({"iss": ISSUER, "exp": 1, "nbf": 0, "aud": [ISSUER]});
        for (key, why) in [(&key(), "another's key"), (&authenticator.key, "it names no account that there is")] {
            let header = format!("Bearer {}", key.sign(&claims).unwrap());
            assert_eq!(user(Some(&header)).unwrap_err().code, 401, "{why}");
        }
    }
}
