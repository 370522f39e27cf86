//! The configuration, out of the environment.

use std::fmt;

/// What the application is told through its ConfigMap.
pub(crate) struct Config {
    pub(crate) database_host: String,
    pub(crate) database_user: String,
    pub(crate) database_password: String,
}

/// A variable that has to be there is not.
pub(crate) struct Missing(&'static str);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment variable {} is not set", self.0)
    }
}

impl Config {
    pub(crate) fn from_env() -> Result<Self, Missing> {
        let var = |name| std::env::var(name).map_err(|_| Missing(name));
        Ok(Self {
            database_host: var("DB_HOST")?,
            database_user: var("DB_USER")?,
            database_password: var("DB_PASSWORD")?,
        })
    }
}
