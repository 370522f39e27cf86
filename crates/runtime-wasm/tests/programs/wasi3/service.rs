//! A service of WASI 0.3. The path says what to do.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Service);

struct Service;

/// Requests that this instance has seen.
static SEEN: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let seen = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
        let path = request.get_path_with_query().unwrap_or_default();
        let (what, rest) = path.split_once('?').unwrap_or((&path, ""));
        match what {
            "/count" => Ok(text(200, format!("request {seen} of this instance\n"))),
            "/fetch" => match fetch(rest).await {
                Ok(status) => Ok(text(200, format!("{rest} says {status}\n"))),
                Err(error) => Ok(text(502, format!("{error:?}\n"))),
            },
            "/echo" => {
                let (_, done) = wit_future::new(|| Ok(()));
                let (body, trailers) = Request::consume_body(request, done);
                Ok(Response::new(Fields::new(), Some(body), trailers).0)
            }
            "/log" => {
                wasi3::say(format!("asked {seen} times\n")).await;
                Ok(text(200, "logged\n".to_owned()))
            }
            "/trap" => panic!("asked to"),
            "/spin" => loop {
                std::hint::black_box(());
            },
            "/grow" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "/error" => Err(ErrorCode::InternalError(Some("asked to".to_owned()))),
            _ => Ok(text(404, "not found\n".to_owned())),
        }
    }
}

fn text(status: u16, words: String) -> Response {
    let (mut to, body) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(Fields::new(), Some(body), trailers);
    response.set_status_code(status).unwrap();
    wit_bindgen::spawn_local(async move {
        to.write_all(words.into_bytes()).await;
    });
    response
}

async fn fetch(authority: &str) -> Result<u16, ErrorCode> {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some("/count")).unwrap();
    Ok(client::send(request).await?.get_status_code())
}
