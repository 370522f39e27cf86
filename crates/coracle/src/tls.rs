//! The cluster's certificate authority and the certificate that the API server shows.
//!
//! Keys come from the operating system's randomness, never from the seeded generator.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use coracle_api::UserInfo;
use coracle_base::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use sha2::{Digest as _, Sha256};

use crate::Error;

/// The names that every API server answers to, beside its addresses.
const NAMES: [&str; 6] = [
    "localhost",
    "coracle",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// For how long a server's or a member's own certificate is valid. It is signed anew long before.
pub(crate) const CERTIFICATE_DAYS: i64 = 365;
/// Why locks are not poisoned.
const UNBROKEN: &str = "nothing panics while it holds the lock";

/// A certificate authority: its certificate and its private key, both PEM.
#[derive(Clone)]
pub(crate) struct Authority {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority of this name, valid for ten years from now.
    pub(crate) fn generate(common_name: &str) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(Error::certificate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = validity(10 * 365);
        let certificate = params.self_signed(&key).map_err(Error::certificate)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Whether the certificate is whole and about the key: both come from files.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let key = KeyPair::from_pem(&self.key).map_err(Error::certificate)?;
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|e| Error::tls(&e))?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|e| Error::tls(&e))?;
        if certificate.signature_algorithm != certificate.tbs_certificate.signature {
            return Err(Error::tls("the certificate names two algorithms"));
        }
        let signed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key_raw())
            .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
        signed.map_err(|_| Error::tls("the certificate was not signed with the key"))
    }

    /// Signs a certificate for a user: the request's key, this name, and a group. The request's own names are left out.
    pub(crate) fn sign_user(
        &self,
        request: &str,
        (user, group): (&str, Option<&str>),
        days: i64,
    ) -> Result<UserCertificate, Error> {
        let mut request = CertificateSigningRequestParams::from_pem(request).map_err(Error::certificate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = validity(days);
        let expires = Timestamp::from_secs(params.not_after.unix_timestamp());
        request.params = params;
        let certificate = request.signed_by(&self.issuer()?).map_err(Error::certificate)?;
        Ok(UserCertificate { certificate: certificate.pem(), expires })
    }

    /// Signs a certificate about a key of one's own, for as many days; from an hour ago, as everything here.
    pub(crate) fn sign_own(
        &self,
        key: &KeyPair,
        mut params: CertificateParams,
        days: i64,
    ) -> Result<CertifiedKey, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        (params.not_before, params.not_after) = validity(days);
        let certificate = params.signed_by(key, &self.issuer()?).map_err(Error::certificate)?;
        let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).map_err(|e| Error::tls(&e))?;
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        CertifiedKey::from_der(chain, private, &provider()).map_err(|e| Error::tls(&e))
    }

    /// The authority's certificate as what is trusted.
    pub(crate) fn roots(&self) -> Result<Arc<RootCertStore>, Error> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(|e| Error::tls(&e))?;
        roots.add(certificate).map_err(|e| Error::tls(&e))?;
        Ok(Arc::new(roots))
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Error> {
        let key = KeyPair::from_pem(&self.key).map_err(Error::certificate)?;
        Issuer::from_ca_cert_pem(&self.certificate, key).map_err(Error::certificate)
    }
}

/// The certificate that an API server shows. It is signed anew before it ends, and when the machine's addresses change.
#[derive(Debug)]
pub(crate) struct ServerCertificate {
    authority: Authority,
    shown: RwLock<Arc<CertifiedKey>>,
}

impl ServerCertificate {
    /// A certificate for the API server's names and these addresses.
    pub(crate) fn new(authority: Authority, addresses: &[IpAddr]) -> Result<Arc<Self>, Error> {
        let shown = RwLock::new(Arc::new(server_certificate(&authority, addresses)?));
        Ok(Arc::new(Self { authority, shown }))
    }

    /// Shows a new one from now on.
    pub(crate) fn renew(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        let new = Arc::new(server_certificate(&self.authority, addresses)?);
        *self.shown.write().expect(UNBROKEN) = new;
        Ok(())
    }

    /// What the API server's socket speaks TLS with: users may show a certificate of the authority, and it is no duty.
    pub(crate) fn config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, Error> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.authority.roots()?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| Error::tls(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read().expect(UNBROKEN)))
    }
}

fn server_certificate(authority: &Authority, addresses: &[IpAddr]) -> Result<CertifiedKey, Error> {
    let key = KeyPair::generate().map_err(Error::certificate)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name("coracle-apiserver", None);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for dns in NAMES {
        params.subject_alt_names.push(SanType::DnsName(dns.try_into().map_err(Error::certificate)?));
    }
    params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    authority.sign_own(&key, params, CERTIFICATE_DAYS)
}

/// The one provider of ciphers.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate of a user.
#[derive(Debug)]
pub(crate) struct UserCertificate {
    /// PEM.
    pub(crate) certificate: String,
    /// When it ends.
    pub(crate) expires: Timestamp,
}

/// A key of one's own and the request for a certificate about it; both PEM.
pub struct CertificateRequest {
    /// The private key, which leaves its owner's machine never.
    pub key: String,
    /// The request.
    pub text: String,
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateRequest").field("text", &self.text).finish_non_exhaustive()
    }
}

impl CertificateRequest {
    /// A new key, and a request about it.
    ///
    /// # Errors
    ///
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(Error::certificate)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(Error::certificate)?;
        Ok(Self { key: key.serialize_pem(), text: request.pem().map_err(Error::certificate)? })
    }
}

/// The SHA-256 of a certificate's public key, in hexadecimal: it stays when the certificate is signed anew.
pub(crate) fn fingerprint_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(fingerprint(certificate.public_key().raw))
}

/// The SHA-256 of some bytes, in hexadecimal.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The user that a verified client certificate is about: its common name, in the groups of its organizations.
pub(crate) fn user_of(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok().map(str::to_owned)).collect();
    groups.push("system:authenticated".into());
    Some(UserInfo { name, groups, ..UserInfo::default() })
}

pub(crate) fn name(common: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

/// From an hour ago, so that a clock that is a little behind accepts it, for so many days.
fn validity(days: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    (now - time::Duration::hours(1), now + time::Duration::days(days))
}

/// 256 bits of the operating system's randomness, in hexadecimal: bearer tokens.
pub(crate) fn random_token() -> Result<String, Error> {
    let mut bytes = [0_u8; 32];
    let random: &dyn rustls::crypto::SecureRandom = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| Error::randomness())?;
    Ok(hexadecimal(&bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_certificate_says_what_was_asked_for_and_nothing_of_the_request() {
        let authority = Authority::generate("coracle-ca").unwrap();
        let request = CertificateRequest::generate().unwrap();
        let signed = authority.sign_user(&request.text, ("jane", Some("team")), 30).unwrap();
        let der = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
        let user = user_of(&der).unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("jane", vec!["team".into(), "system:authenticated".into()]));
        assert!(authority.sign_user("no request", ("jane", None), 30).is_err());
    }
}
