//! A request to another service, by its name.

use std::io::Read;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, OutgoingRequest, Scheme};

/// What `http://HOST/` answers.
pub(crate) fn get(host: &str) -> Result<String, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    let set = request
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| request.set_authority(Some(host)))
        .and_then(|()| request.set_path_with_query(Some("/")));
    set.map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let pending = outgoing_handler::handle(request, None)?;
    pending.subscribe().block();
    let response = pending.get().expect("it is ready").expect("it is taken once")?;
    let body = response.consume().expect("it is taken once");
    let mut stream = body.stream().expect("it is taken once");
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
    Ok(text)
}
