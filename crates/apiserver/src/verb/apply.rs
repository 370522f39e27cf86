//! Server-side apply.

use coracle_api::Status;

use crate::context::{Context, Step};
use crate::error;
use crate::request::options::WriteOptions;

/// Applies the body to the object that the path names, or creates it.
pub(crate) fn apply(context: &mut Context<'_>, options: &WriteOptions) -> Result<Step, Status> {
    let _ = (context, options);
    Err(error::not_here("server-side apply"))
}
