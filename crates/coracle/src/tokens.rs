//! Signing ServiceAccount tokens and checking their signatures: JSON Web Tokens (RFC 7519) with ES256 (RFC 7518, section 3.4).
//!
//! What is claimed and whether the claims still hold is `coracle-apiserver`'s business; here is the key alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Error, ErrorKind};

/// The longest token that is looked at, in bytes: they come with every request, from anybody.
const TOKEN_MAX: usize = 16 << 10;

/// The key of a cluster's tokens.
pub(crate) struct TokenKey {
    pair: EcdsaKeyPair,
    /// Tells the key from others: `kid`.
    id: String,
    pem: String,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// A new private key, PEM (PKCS #8).
    pub(crate) fn generate() -> Result<String, Error> {
        KeyPair::generate().map(|pair| pair.serialize_pem()).map_err(Error::certificate)
    }

    /// The key of a PEM text.
    pub(crate) fn read(pem: &str) -> Result<Self, Error> {
        let der = KeyPair::from_pem(pem).map_err(Error::certificate)?.serialize_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new())
            .map_err(|_| Error::new(ErrorKind::Certificate, "the key of ServiceAccount tokens is not one of P-256"))?;
        let id = BASE64.encode(Sha256::digest(pair.public_key()));
        Ok(Self { pair, id, pem: pem.to_owned() })
    }

    /// The private key, as [`Self::read`] takes it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A signed token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, Error> {
        let header = json!({ "alg": "ES256", "kid": self.id });
        let mut token = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| Error::randomness())?;
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The claims of a token that this key signed; `None` for any other text.
    pub(crate) fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |text: &str| BASE64.decode(text).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if header["alg"] != "ES256" || header["kid"] != self.id.as_str() {
            return None;
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key());
        public.verify(signed.as_bytes(), &decode(signature)?).ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }

    /// The public key, as others need it to check tokens: a JSON Web Key Set (RFC 7517).
    pub(crate) fn public_set(&self) -> Value {
        // An uncompressed point: 4, then the two coordinates.
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64.encode(x), BASE64.encode(y));
        json!({ "keys": [{ "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y }] })
    }
}

fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        TokenKey::read(&TokenKey::generate().unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_read_by_the_key_that_signed_it_alone() {
        let key = key();
        let claims = json!({"sub": "system:serviceaccount:default:web"});
        let token = key.sign(&claims).unwrap();
        assert_eq!(key.verify(&token), Some(claims));
        assert_eq!(self::key().verify(&token), None);
    }

    #[test]
    fn a_changed_token_and_one_without_a_signature_are_none() {
        let key = key();
        let token = key.sign(&json!({"sub": "a"})).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let other = part(&json!({"sub": "b"}));
        let unsigned = part(&json!({"alg": "none", "kid": key.id}));
        for forged in [
            format!("{header}.{other}.{signature}"),
            format!("{signed}."),
            signed.to_owned(),
            format!("{unsigned}.{other}."),
            "x".repeat(TOKEN_MAX + 1),
            String::new(),
        ] {
            assert_eq!(key.verify(&forged), None, "{forged}");
        }
    }

    #[test]
    fn the_published_key_is_the_one_that_signs() {
        let key = key();
        let set = key.public_set();
        let coordinate = |name: &str| BASE64.decode(set["keys"][0][name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let token = key.sign(&json!({})).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        public.verify(signed.as_bytes(), &BASE64.decode(signature).unwrap()).unwrap();
        assert_eq!(set["keys"][0]["kid"], key.id.as_str());
    }
}
