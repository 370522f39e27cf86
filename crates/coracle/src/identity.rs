//! What a cluster proves itself with: its authority, the administrator's token, and the key of ServiceAccounts' tokens.

use std::fs;
use std::sync::Arc;

use crate::Error;
use crate::data_directory::{DataDirectory, write_private};
use crate::tls::{Authority, random_token};
use crate::tokens::TokenKey;

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
        let certificate = directory.path().join("ca.crt");
        let mut fresh = None;
        let key = directory.kept("ca.key", || {
            let authority = Authority::generate()?;
            // The key comes last: with it the certificate is there.
            write_private(&certificate, &authority.certificate)?;
            let key = authority.key.clone();
            fresh = Some(authority);
            Ok(key)
        })?;
        let authority = match fresh {
            Some(authority) => authority,
            None => Authority { certificate: read(directory, "ca.crt")?, key },
        };
        let path = directory.path().join("admin.token");
        if !path.exists() {
            write_private(&path, &random_token()?)?;
        }
        let token = read(directory, "admin.token")?.trim().to_owned();
        let token_key = Arc::new(TokenKey::read(&directory.kept("sa.key", TokenKey::generate)?)?);
        Ok(Self { authority, token, token_key })
    }
}

fn read(directory: &DataDirectory, file: &str) -> Result<String, Error> {
    let path = directory.path().join(file);
    fs::read_to_string(&path).map_err(|source| Error::file("read", &path, source))
}
