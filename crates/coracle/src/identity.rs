//! What a cluster proves itself with: its authority, the administrator's token, and the key of ServiceAccounts' tokens.

use std::fs;
use std::sync::Arc;

use crate::data_directory::{DataDirectory, MARK, write_private};
use crate::tls::{Authority, random_token};
use crate::tokens::TokenKey;
use crate::{Error, ErrorKind};

/// The certificate of the authority, which anybody may read.
const CERTIFICATE: &str = "ca.crt";
/// The administrator's token, which is what other programs of this user find the cluster with.
const TOKEN: &str = "admin.token";
/// The key of ServiceAccounts' tokens, sealed.
const TOKEN_KEY: &str = "sa.key";

/// A cluster's identity.
pub(crate) struct Identity {
    pub(crate) authority: Authority,
    pub(crate) token: String,
    pub(crate) token_key: Arc<TokenKey>,
}

impl Identity {
    /// A new one, for a cluster in memory.
    pub(crate) fn generate() -> Result<Self, Error> {
        let token_key = Arc::new(TokenKey::read(&TokenKey::generate()?)?);
        Ok(Self { authority: Authority::generate()?, token: random_token()?, token_key })
    }

    /// That of a data directory, made where there is none. Private keys are sealed; the certificate and the administrator's token are
    /// what other programs of this user find the cluster with.
    pub(crate) fn kept_in(directory: &DataDirectory) -> Result<Self, Error> {
        let path = directory.path().join(TOKEN);
        if !path.exists() {
            write_private(&path, &random_token()?)?;
        }
        let token = read(directory, TOKEN)?.trim().to_owned();
        let token_key = Arc::new(TokenKey::read(&directory.kept_from_birth(TOKEN_KEY, TokenKey::generate)?)?);
        // The key of the authority comes last: with it the directory is one of a cluster.
        Ok(Self { authority: authority(directory)?, token, token_key })
    }

    /// All of it as the files of a data directory, by name: what a backup carries.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        vec![
            file(CERTIFICATE, &self.authority.certificate),
            file(TOKEN, &self.token),
            file(TOKEN_KEY, self.token_key.pem()),
            file(MARK, &self.authority.key),
        ]
    }

    /// Gives a new data directory the identity of a backup.
    pub(crate) fn restore(directory: &DataDirectory, files: &[(String, String)]) -> Result<(), Error> {
        // The key of the authority comes last: with it the directory is one of a cluster.
        for name in [CERTIFICATE, TOKEN, TOKEN_KEY, MARK] {
            let missing = || Error::new(ErrorKind::Corrupt, format!("the backup has no {name}"));
            let (_, text) = files.iter().find(|(found, _)| found == name).ok_or_else(missing)?;
            if name == CERTIFICATE || name == TOKEN {
                write_private(&directory.path().join(name), text)?;
            } else {
                let path = directory.path().join(name);
                directory.write(name, text.as_bytes()).map_err(|source| Error::file("write", &path, source))?;
            }
        }
        Ok(())
    }
}

fn authority(directory: &DataDirectory) -> Result<Authority, Error> {
    let certificate = directory.path().join(CERTIFICATE);
    let mut fresh = None;
    let key = directory.kept(MARK, || {
        let authority = Authority::generate()?;
        write_private(&certificate, &authority.certificate)?;
        let key = authority.key.clone();
        fresh = Some(authority);
        Ok(key)
    })?;
    if let Some(authority) = fresh {
        return Ok(authority);
    }
    let authority = Authority { certificate: read(directory, CERTIFICATE)?, key };
    let damaged = || format!("{} is not the certificate of the cluster's key", certificate.display());
    authority.check().map_err(|source| Error::new(ErrorKind::Corrupt, damaged()).because(source))?;
    Ok(authority)
}

fn read(directory: &DataDirectory, file: &str) -> Result<String, Error> {
    let path = directory.path().join(file);
    fs::read_to_string(&path).map_err(|source| Error::file("read", &path, source))
}
