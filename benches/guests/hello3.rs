//! A service of WASI 0.3 that answers every request alike. Its instances answer many.

use coracle_bench_guests::ANSWER;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Hello);

struct Hello;

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let (mut to, body) = wit_stream::new();
        let (_, trailers) = wit_future::new(|| Ok(None));
        let (response, _) = Response::new(Fields::new(), Some(body), trailers);
        wit_bindgen::spawn_local(async move {
            to.write_all(ANSWER.to_vec()).await;
        });
        Ok(response)
    }
}
