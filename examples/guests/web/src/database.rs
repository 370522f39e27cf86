//! A stand-in for a database, inside the guest, so that the example needs no other pod: it knows one account.

use std::fmt;

use crate::config::Config;

/// The account that the database was created with.
const ACCOUNT: (&str, &str) = ("express", "correct-horse");

/// The server's refusal.
pub(crate) struct AuthenticationFailed {
    user: String,
    host: String,
}

impl fmt::Display for AuthenticationFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: password authentication failed for user \"{}\"", self.host, self.user)
    }
}

pub(crate) fn connect(config: &Config) -> Result<(), AuthenticationFailed> {
    if (config.database_user.as_str(), config.database_password.as_str()) == ACCOUNT {
        Ok(())
    } else {
        Err(AuthenticationFailed { user: config.database_user.clone(), host: config.database_host.clone() })
    }
}
