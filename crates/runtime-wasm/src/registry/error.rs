//! What a registry refused, in one sentence.

use oci_client::errors::{OciDistributionError, OciErrorCode};

/// Why something cannot be had of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Not as this user; perhaps as another.
    Denied(String),
    /// The registry answered, and does not have it.
    Missing(String),
    /// It was not reached, or broke off, or makes no sense: another place may do better.
    Broken(String),
}

impl Failure {
    pub(super) fn of(error: &OciDistributionError) -> Self {
        use OciDistributionError as E;
        match error {
            E::UnauthorizedError { .. } => Self::Denied("unauthorized: authentication required".into()),
            E::AuthenticationFailure(why) => Self::Denied(format!("unauthorized: {}", brief(why))),
            E::RegistryError { envelope, .. } => {
                let message = |error: &oci_client::errors::OciError| brief(&error.message);
                let told = envelope.errors.iter().map(message).collect::<Vec<_>>().join("; ");
                match envelope.errors.first().map(|error| &error.code) {
                    Some(OciErrorCode::Unauthorized) => Self::Denied(format!("unauthorized: {told}")),
                    Some(OciErrorCode::Denied) => Self::Denied(format!("denied: {told}")),
                    // Registries hide what somebody may not see.
                    Some(OciErrorCode::NameUnknown) => Self::Denied(format!("name unknown: {told}")),
                    Some(OciErrorCode::ManifestUnknown | OciErrorCode::NotFound | OciErrorCode::BlobUnknown) => {
                        Self::Missing(told)
                    }
                    Some(OciErrorCode::Toomanyrequests) => Self::Broken(format!("toomanyrequests: {told}")),
                    _ => Self::Broken(told),
                }
            }
            E::ServerError { code: 401 | 403, message, .. } => Self::Denied(format!("denied: {}", brief(message))),
            E::ServerError { code: 404, message, .. } => Self::Missing(brief(message)),
            E::ServerError { code, message, .. } => {
                Self::Broken(format!("the registry answered {code}: {}", brief(message)))
            }
            error => Self::Broken(chain(error)),
        }
    }
}

/// The longest text of a registry's own that is passed on.
const TEXT_MAX: usize = 256;

/// A registry's own words, as much of them as fits into a message.
fn brief(text: &str) -> String {
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect();
    if line.is_empty() { "no reason was given".to_owned() } else { line }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
