//! What members prove themselves to each other with: certificates of the peers' authority, which is not that of users.
//!
//! A certificate says an id; whether that id is a member, and has that key, the roster says.

use std::fmt;
use std::sync::{Arc, RwLock};

use coracle_raft::MemberId;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use crate::data_directory::DataDirectory;
use crate::tls::{self, Authority, CERTIFICATE_DAYS, provider};
use crate::{Error, ErrorKind};

/// The protocols of the two connections that a pair of members has.
pub(crate) const CONTROL: &[u8] = b"coracle-control/1";
pub(crate) const BULK: &[u8] = b"coracle-bulk/1";
/// Where members have their names.
const DOMAIN: &str = "members.coracle.internal";
/// Why locks are not poisoned.
const UNBROKEN: &str = "nothing panics while it holds the lock";

/// A member's own credentials.
pub(crate) struct Credentials {
    id: MemberId,
    authority: Authority,
    key: KeyPair,
    shown: Arc<Shown>,
    /// For who connects to this member.
    pub(crate) server: Arc<rustls::ServerConfig>,
    control: Arc<rustls::ClientConfig>,
    bulk: Arc<rustls::ClientConfig>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The certificate that is shown now.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

/// A private key of a member, kept in its directory; PEM.
pub(crate) fn member_key(directory: &DataDirectory) -> Result<KeyPair, Error> {
    let new = || KeyPair::generate().map(|key| key.serialize_pem()).map_err(Error::certificate);
    KeyPair::from_pem(&directory.kept("member.key", new)?).map_err(Error::certificate)
}

/// What the list of members knows a key by.
pub(crate) fn identity(key: &KeyPair) -> String {
    use rcgen::PublicKeyData as _;
    tls::fingerprint(&key.subject_public_key_info())
}

impl Credentials {
    /// Those of a member with this key, signed by the peers' authority.
    pub(crate) fn new(id: MemberId, authority: Authority, key: KeyPair) -> Result<Self, Error> {
        let shown = Arc::new(Shown(RwLock::new(Arc::new(sign(id, &authority, &key)?))));
        let roots = authority.roots()?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|e| Error::tls(&e))?;
        let mut server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| Error::tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::<Shown>::clone(&shown));
        server.alpn_protocols = vec![CONTROL.to_vec(), BULK.to_vec()];
        let client = |protocol: &[u8]| {
            let mut client = rustls::ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|e| Error::tls(&e))?
                .with_root_certificates(Arc::clone(&roots))
                .with_client_cert_resolver(Arc::<Shown>::clone(&shown));
            client.alpn_protocols = vec![protocol.to_vec()];
            Ok::<_, Error>(Arc::new(client))
        };
        let (control, bulk) = (client(CONTROL)?, client(BULK)?);
        Ok(Self { id, authority, key, shown, server: Arc::new(server), control, bulk })
    }

    /// What the list of members knows this member by.
    pub(crate) fn identity(&self) -> String {
        identity(&self.key)
    }

    /// Signs the certificate anew: new connections show it.
    pub(crate) fn renew(&self) -> Result<(), Error> {
        let new = Arc::new(sign(self.id, &self.authority, &self.key)?);
        *self.shown.0.write().expect(UNBROKEN) = new;
        Ok(())
    }

    /// For a connection to another member.
    pub(crate) fn client(&self, protocol: &[u8]) -> Arc<rustls::ClientConfig> {
        Arc::clone(if protocol == CONTROL { &self.control } else { &self.bulk })
    }
}

/// Whether who connects wants to speak as a member.
pub(crate) fn is_peer(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol.starts_with(b"coracle-")))
}

/// The name that a member's certificate has.
pub(crate) fn server_name(id: MemberId) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(dns_name(id)).map_err(|e| Error::tls(&e))
}

/// Who shows a verified certificate: the id in it, and the key's fingerprint.
pub(crate) fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<(MemberId, String)> {
    let certificate = certificates?.first()?;
    let identity = tls::fingerprint_of(certificate)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    let id = name.strip_suffix(DOMAIN)?.strip_suffix('.')?.strip_prefix("member-")?.parse().ok()?;
    Some((MemberId(id), identity))
}

fn dns_name(id: MemberId) -> String {
    format!("member-{}.{DOMAIN}", id.0)
}

fn sign(id: MemberId, authority: &Authority, key: &KeyPair) -> Result<CertifiedKey, Error> {
    let name = dns_name(id);
    let mut params = CertificateParams::default();
    params.distinguished_name = tls::name(&name, None);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let alternative = name.as_str().try_into().map_err(Error::certificate)?;
    params.subject_alt_names.push(SanType::DnsName(alternative));
    if id.0 == 0 {
        return Err(Error::new(ErrorKind::Certificate, "no member has the id 0"));
    }
    authority.sign_own(key, params, CERTIFICATE_DAYS)
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().expect(UNBROKEN)))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().expect(UNBROKEN)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_certificate_says_its_id_and_keeps_its_identity_when_it_is_signed_anew() {
        let authority = Authority::generate("coracle-peer-ca").unwrap();
        let credentials = Credentials::new(MemberId(7), authority, KeyPair::generate().unwrap()).unwrap();
        let shown = || peer_of(Some(&credentials.shown.0.read().unwrap().cert)).unwrap();
        assert_eq!(shown(), (MemberId(7), credentials.identity()));
        credentials.renew().unwrap();
        assert_eq!(shown(), (MemberId(7), credentials.identity()));
    }
}
