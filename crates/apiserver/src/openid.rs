//! Where others learn how to check ServiceAccount tokens: OpenID Connect discovery and the public keys
//! (<https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery>).

use coracle_api::{Method, Request, Response, Status};
use serde_json::json;

use crate::ServerOptions;
use crate::service_account::ISSUER;

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

/// Answers one of the two paths; `None` for any other.
pub(crate) fn answer(options: &ServerOptions, request: &Request) -> Option<Result<Response, Status>> {
    let (text, content_type) = match request.path.as_str() {
        CONFIGURATION => (configuration(&options.advertise), "application/json"),
        KEYS => (options.token_keys.clone(), "application/jwk-set+json"),
        _ => return None,
    };
    if !matches!(request.method, Method::Get | Method::Head) {
        return Some(Err(Status::method_not_allowed()));
    }
    let mut response = Response::text(200, text);
    response.headers = vec![("content-type", content_type.into()), ("cache-control", "public, max-age=3600".into())];
    Some(Ok(response))
}

fn configuration(advertise: &str) -> String {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("https://{advertise}{KEYS}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
    .to_string()
}
