//! Certificates of hosts, out of Secrets: the one that a client asks for by name, or the default one.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use coracle_api::ObjectKey;
use coracle_store::View;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::routes::Routes;
use crate::tls::provider;
use crate::{Error, ErrorKind};

/// The certificates by host, as `find` knows hosts.
#[derive(Debug)]
pub(super) struct Certificates {
    provider: Arc<CryptoProvider>,
    default: Arc<CertifiedKey>,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    hosts: BTreeMap<String, Arc<CertifiedKey>>,
    /// What was read of each Secret, at which revision.
    read: BTreeMap<ObjectKey, (coracle_api::Revision, Option<Arc<CertifiedKey>>)>,
}

impl Certificates {
    /// Without any but the default one, which nobody trusts.
    pub(super) fn new() -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Certificate, format!("cannot make the default certificate of Ingresses: {error}"))
        };
        let names = vec!["ingress.coracle.invalid".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
        let provider = provider();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|error| failed(&error))?;
        let default =
            CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).map_err(|error| failed(&error))?;
        Ok(Self { provider, default: Arc::new(default), state: RwLock::default() })
    }

    /// Reads those that the rules name; gives the Secrets that hold none, and why.
    pub(super) fn follow(&self, view: &View, routes: &Routes) -> Vec<(ObjectKey, String)> {
        let mut state = self.state.write().expect("nothing panics while it holds the lock");
        let before = std::mem::take(&mut *state);
        let mut wrong = Vec::new();
        for (host, secret) in &routes.secrets {
            let Some(object) = view.object(secret) else { continue };
            let known = state.read.get(secret).or_else(|| before.read.get(secret));
            let known = known.filter(|(revision, _)| *revision == object.revision());
            let (revision, key) = match known {
                Some(known) => known.clone(),
                None => match self.read(&object.value(None)) {
                    Ok(key) => (object.revision(), Some(Arc::new(key))),
                    Err(why) => {
                        wrong.push((secret.clone(), why));
                        (object.revision(), None)
                    }
                },
            };
            if let Some(key) = &key {
                state.hosts.insert(host.clone(), Arc::clone(key));
            }
            state.read.insert(secret.clone(), (revision, key));
        }
        wrong
    }

    /// The Secrets that hold a certificate.
    pub(super) fn readable(&self) -> Vec<ObjectKey> {
        let state = self.state.read().expect("nothing panics while it holds the lock");
        state.read.iter().filter(|(_, (_, key))| key.is_some()).map(|(secret, _)| secret.clone()).collect()
    }

    fn read(&self, secret: &serde_json::Value) -> Result<CertifiedKey, String> {
        use base64::Engine as _;

        let field = |name: &str| {
            let text = secret["data"][name].as_str().ok_or_else(|| format!("it has no {name}"))?;
            base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| format!("{name}: {error}"))
        };
        let (certificate, key) = (field("tls.crt")?, field("tls.key")?);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
        let chain = chain.map_err(|error| format!("tls.crt: {error}"))?;
        if chain.is_empty() {
            return Err("tls.crt holds no certificate".into());
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| format!("tls.key: {error}"))?;
        CertifiedKey::from_der(chain, key, &self.provider).map_err(|error| format!("key and certificate: {error}"))
    }

    fn of(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let (host, state) = (host.to_lowercase(), self.state.read().expect("nothing panics while it holds the lock"));
        let wildcard = || host.split_once('.').and_then(|(_, rest)| state.hosts.get(&format!("*.{rest}")));
        state.hosts.get(&host).or_else(wildcard).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|host| self.of(host));
        Some(named.unwrap_or_else(|| Arc::clone(&self.default)))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde_json::json;

    use super::*;
    use crate::testing::view_of;

    fn encoded(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    #[test]
    fn a_host_has_the_certificate_of_its_secret_and_what_is_none_is_told() {
        let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
        let data = json!({"tls.crt": encoded(&made.cert.pem()), "tls.key": encoded(&made.signing_key.serialize_pem())});
        let secret = |name: &str, data: serde_json::Value| json!({"kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "data": data});
        let view = view_of(&[secret("good", data), secret("bad", json!({"tls.crt": encoded("x"), "tls.key": ""}))]);
        let mut routes = Routes::default();
        let key = |name: &str| ObjectKey::new(coracle_api::resources::SECRETS, "shop", name);
        routes.secrets.insert("*.shop.example".into(), key("good"));
        routes.secrets.insert("bad.example".into(), key("bad"));
        routes.secrets.insert("gone.example".into(), key("gone"));
        let certificates = Certificates::new().unwrap();
        let wrong = certificates.follow(&view, &routes);
        assert_eq!(wrong, [(key("bad"), "tls.crt holds no certificate".into())]);
        assert!(certificates.of("WWW.shop.example").is_some() && certificates.of("shop.example").is_none());
        assert!(certificates.of("bad.example").is_none());
        assert_eq!(certificates.follow(&view, &routes), [], "it is told once");
        assert!(certificates.of("www.shop.example").is_some());
    }
}
