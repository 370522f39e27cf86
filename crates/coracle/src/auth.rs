//! Who asks: bearer tokens to users. Until there are ServiceAccount tokens and certificates, one token is the administrator's.

use coracle_api::{Reason, Status, UserInfo};
use sha2::{Digest, Sha256};

/// Tokens and whose they are. Only digests are kept, and comparing digests gives nothing away by its timing.
#[derive(Debug, Default)]
pub(crate) struct Authenticator {
    tokens: Vec<([u8; 32], UserInfo)>,
}

impl Authenticator {
    /// One more token.
    pub(crate) fn allow(&mut self, token: &str, user: UserInfo) {
        self.tokens.push((Sha256::digest(token.as_bytes()).into(), user));
    }

    /// The user of an `Authorization` header; nobody without one, and an error for a token that is not known.
    pub(crate) fn user(&self, authorization: Option<&str>) -> Result<UserInfo, Status> {
        let Some(authorization) = authorization else { return Ok(UserInfo::anonymous()) };
        let Some(token) = authorization.strip_prefix("Bearer ").map(str::trim) else {
            return Ok(UserInfo::anonymous());
        };
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.tokens.iter().find(|(known, _)| *known == digest);
        known
            .map(|(_, user)| user.clone())
            .ok_or_else(|| Status::failure(401, Some(Reason::Unauthorized), "Unauthorized"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_token_is_refused_and_none_is_anonymous() {
        let mut authenticator = Authenticator::default();
        authenticator.allow("secret", UserInfo::admin("admin"));
        assert_eq!(authenticator.user(Some("Bearer secret")).unwrap().name, "admin");
        assert_eq!(authenticator.user(Some("Bearer wrong")).unwrap_err().code, 401);
        assert_eq!(authenticator.user(None).unwrap().name, "system:anonymous");
    }
}
