//! What a cluster proves itself with: its authorities, the administrator's token, and the key of ServiceAccounts' tokens.
//!
//! Every member has all of it: whoever joins is given it over a connection that it has checked, so that any of them can sign.

use std::fs;
use std::sync::Arc;

use crate::data_directory::{DataDirectory, MARK, write_private};
use crate::tls::{Authority, random_token};
use crate::tokens::TokenKey;
use crate::{Error, ErrorKind};

/// The authority of the API server and its users, but for its key, by which a directory is known as a cluster's.
const CERTIFICATE: &str = "ca.crt";
/// The authority of members.
const PEER_CERTIFICATE: &str = "peer-ca.crt";
const PEER_KEY: &str = "peer-ca.key";
/// The administrator's token, which is what other programs of this user find the cluster with.
const TOKEN: &str = "admin.token";
/// The key of ServiceAccounts' tokens, sealed.
const TOKEN_KEY: &str = "sa.key";
/// The files of an identity in the order in which they are written: the last one makes a directory a cluster's.
const FILES: [&str; 6] = [PEER_CERTIFICATE, PEER_KEY, CERTIFICATE, TOKEN, TOKEN_KEY, MARK];
/// The common names of the two authorities.
const CLUSTER: &str = "coracle-ca";
const PEERS: &str = "coracle-peer-ca";

/// A cluster's identity.
pub(crate) struct Identity {
    /// Signs for the API server and for its users.
    pub(crate) authority: Authority,
    /// Signs for members, and for nobody else: no user's certificate opens what is between them.
    pub(crate) peer_authority: Authority,
    pub(crate) token: String,
    pub(crate) token_key: Arc<TokenKey>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// An identity as the files of a data directory, by name.
pub(crate) type IdentityFiles = Vec<(String, String)>;

impl Identity {
    /// A new one, for a cluster in memory.
    pub(crate) fn generate() -> Result<Self, Error> {
        let token_key = Arc::new(TokenKey::read(&TokenKey::generate()?)?);
        Ok(Self {
            authority: Authority::generate(CLUSTER)?,
            peer_authority: Authority::generate(PEERS)?,
            token: random_token()?,
            token_key,
        })
    }

    /// What tells this cluster from others on the same machine: a few digits of its authority's digest.
    #[cfg(feature = "docker")]
    pub(crate) fn short_name(&self) -> String {
        use sha2::{Digest as _, Sha256};

        let digest = Sha256::digest(self.authority.certificate.as_bytes());
        digest.iter().take(4).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// That of a data directory, made where there is none. Private keys are sealed; the certificate and the administrator's token are
    /// what other programs of this user find the cluster with.
    pub(crate) fn kept_in(directory: &DataDirectory) -> Result<Self, Error> {
        let peer_authority = authority(directory, (PEER_CERTIFICATE, PEER_KEY), PEERS)?;
        let path = directory.path().join(TOKEN);
        if !path.exists() {
            write_private(&path, &random_token()?)?;
        }
        let token = read(directory, TOKEN)?.trim().to_owned();
        let token_key = Arc::new(TokenKey::read(&directory.kept_from_birth(TOKEN_KEY, TokenKey::generate)?)?);
        // The key of the authority comes last: with it the directory is one of a cluster.
        let authority = authority(directory, (CERTIFICATE, MARK), CLUSTER)?;
        Ok(Self { authority, peer_authority, token, token_key })
    }

    /// All of it: what a backup carries, and what a member that joins is given.
    pub(crate) fn files(&self) -> IdentityFiles {
        let text = |name: &str| match name {
            PEER_CERTIFICATE => &self.peer_authority.certificate,
            PEER_KEY => &self.peer_authority.key,
            CERTIFICATE => &self.authority.certificate,
            TOKEN => &self.token,
            TOKEN_KEY => self.token_key.pem(),
            _ => &self.authority.key,
        };
        FILES.map(|name| (name.to_owned(), text(name).to_owned())).into()
    }

    /// Gives a new data directory the identity of a backup, or of the cluster that it joins.
    pub(crate) fn restore(directory: &DataDirectory, files: &[(String, String)]) -> Result<(), Error> {
        for name in FILES {
            let missing = || Error::new(ErrorKind::Corrupt, format!("the identity has no {name}"));
            let (_, text) = files.iter().find(|(found, _)| found == name).ok_or_else(missing)?;
            if matches!(name, CERTIFICATE | PEER_CERTIFICATE | TOKEN) {
                write_private(&directory.path().join(name), text)?;
            } else {
                let path = directory.path().join(name);
                directory.write(name, text.as_bytes()).map_err(|source| Error::file("write", &path, source))?;
            }
        }
        Ok(())
    }
}

/// The certificate of the cluster's authority among an identity's files, PEM.
pub(crate) fn certificate_in(files: &[(String, String)]) -> Option<&str> {
    files.iter().find(|(name, _)| name == CERTIFICATE).map(|(_, text)| text.as_str())
}

/// An authority of a data directory: its certificate and, sealed, its key.
fn authority(directory: &DataDirectory, (certificate, key): (&str, &str), name: &str) -> Result<Authority, Error> {
    let mut fresh = None;
    let key = directory.kept_from_birth(key, || {
        let authority = Authority::generate(name)?;
        // The key comes last: with it the certificate is there.
        write_private(&directory.path().join(certificate), &authority.certificate)?;
        let key = authority.key.clone();
        fresh = Some(authority);
        Ok(key)
    })?;
    if let Some(authority) = fresh {
        return Ok(authority);
    }
    let authority = Authority { certificate: read(directory, certificate)?, key };
    let path = directory.path().join(certificate);
    let damaged = || format!("{} is not the certificate of the cluster's key", path.display());
    authority.check().map_err(|source| Error::new(ErrorKind::Corrupt, damaged()).because(source))?;
    Ok(authority)
}

fn read(directory: &DataDirectory, file: &str) -> Result<String, Error> {
    let path = directory.path().join(file);
    fs::read_to_string(&path).map_err(|source| Error::file("read", &path, source))
}
