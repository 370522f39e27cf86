//! How a whole answer goes out: in pieces that fill records, and compressed where the client asks for that and it is large.

use std::convert::Infallible;
use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use coracle_apiserver::Listing;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};

/// From this size on an answer to a GET is compressed for who accepts it (Kubernetes' `defaultGzipThresholdBytes`).
const GZIP_BYTES: usize = 128 << 10;
/// Kubernetes' `defaultGzipContentEncodingLevel`.
const GZIP_LEVEL: u32 = 1;
/// What is compressed at one time at most: about a millisecond's work.
const GZIP_PIECE_BYTES: usize = 256 << 10;
/// A frame of HTTP/2 has 16,384 bytes unless the client asks for more, and its head takes nine: so a frame fills one TLS
/// record, where it would need another for its last nine bytes.
const FRAME_BYTES: usize = 16_384 - 9;

/// An answer to whoever asks without saying how.
pub(crate) fn plain(response: coracle_api::Response) -> Response<Body> {
    let length = length(&response);
    let coracle_api::Response { status, headers, mut body } = response;
    let body = match body.len() {
        0 | 1 => Body::from(body.pop().unwrap_or_default()),
        _ => streamed(body.into_iter()),
    };
    with_head(status, &headers, Some(length), body)
}

/// An answer in the form that the client's head asks for.
pub(crate) fn respond(response: coracle_api::Response, parts: &Parts) -> Response<Body> {
    let length = length(&response);
    let coracle_api::Response { status, headers, body } = response;
    if length >= GZIP_BYTES && accepts_gzip(parts) {
        return compressed(status, &headers, body.into_iter());
    }
    if parts.version == Version::HTTP_2 && length > FRAME_BYTES {
        return with_head(status, &headers, Some(length), streamed(cut(body.into_iter(), FRAME_BYTES)));
    }
    plain(coracle_api::Response { status, headers, body })
}

/// The same body, with something that is dropped when it ends.
pub(crate) fn holding<T: Send + 'static>(body: Body, held: Option<T>) -> Body {
    let Some(held) = held else { return body };
    Body::from_stream(stream::unfold((body.into_data_stream(), held), |(mut pieces, held)| async move {
        let piece = pieces.next().await?;
        Some((piece, (pieces, held)))
    }))
}

/// A large list, whose pieces are written when the connection takes them.
pub(crate) fn list(listing: Listing, parts: &Parts) -> Response<Body> {
    let coracle_api::Response { status, headers, .. } = listing.head().clone();
    if accepts_gzip(parts) {
        return compressed(status, &headers, listing);
    }
    let body = match parts.version {
        Version::HTTP_2 => streamed(cut(listing, FRAME_BYTES)),
        _ => streamed(listing),
    };
    with_head(status, &headers, None, body)
}

fn length(response: &coracle_api::Response) -> usize {
    response.body.iter().map(Bytes::len).sum()
}

fn accepts_gzip(parts: &Parts) -> bool {
    let lines = parts.headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    parts.method == Method::GET && lines.flat_map(|line| line.split(',')).any(|coding| coding.trim() == "gzip")
}

fn streamed(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
}

/// The same bytes in pieces that are no larger; none is empty.
fn cut(mut pieces: impl Iterator<Item = Bytes>, most: usize) -> impl Iterator<Item = Bytes> {
    let mut rest = Bytes::new();
    std::iter::from_fn(move || {
        while rest.is_empty() {
            rest = pieces.next()?;
        }
        Some(rest.split_to(rest.len().min(most)))
    })
}

/// The answer as a stream that is compressed as it is sent, a piece at a time.
fn compressed(
    status: u16,
    headers: &[(&'static str, String)],
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let mut pieces = cut(pieces, GZIP_PIECE_BYTES);
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL)));
    let compressed = std::iter::from_fn(move || {
        while let Some(writer) = &mut encoder {
            let Some(piece) = pieces.next() else { break };
            writer.write_all(&piece).expect("bytes are compressed in memory");
            if !writer.get_ref().is_empty() {
                return Some(Bytes::from(std::mem::take(writer.get_mut())));
            }
        }
        let rest = encoder.take()?.finish().expect("bytes are compressed in memory");
        Some(Bytes::from(rest))
    });
    let mut answer = with_head(status, headers, None, streamed(compressed));
    answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    answer
}

fn with_head(status: u16, headers: &[(&'static str, String)], length: Option<usize>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = response.headers_mut();
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.append(*name, value);
        }
    }
    if !fields.contains_key(CACHE_CONTROL) {
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    if let Some(length) = length.filter(|length| *length > 0) {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt as _;

    use super::*;

    fn list() -> coracle_api::Response {
        let pieces: Vec<Bytes> = (0..5_u8).map(|n| Bytes::from(vec![n; 100_000])).collect();
        coracle_api::Response { status: 200, headers: vec![("content-type", "application/json".into())], body: pieces }
    }

    fn asked(method: Method, version: Version, encoding: &str) -> Parts {
        let request = http::Request::builder().method(method).version(version).header(ACCEPT_ENCODING, encoding);
        request.body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn a_large_answer_is_compressed_for_who_accepts_it() {
        let response = respond(list(), &asked(Method::GET, Version::HTTP_11, "deflate, gzip"));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(response.headers()[VARY], "Accept-Encoding");
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < 10_000, "{}", bytes.len());
        let mut decoded = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut decoded).unwrap();
        assert_eq!(decoded, list().bytes());
    }

    #[tokio::test]
    async fn what_is_small_or_changes_something_or_was_not_asked_for_is_not_compressed() {
        let small = coracle_api::Response::json(200, vec![b' '; GZIP_BYTES - 1]);
        let gzip = asked(Method::GET, Version::HTTP_11, "gzip");
        for (response, parts) in [
            (small, gzip),
            (list(), asked(Method::DELETE, Version::HTTP_11, "gzip")),
            (list(), asked(Method::GET, Version::HTTP_11, "identity")),
        ] {
            let response = respond(response, &parts);
            assert!(!response.headers().contains_key(CONTENT_ENCODING));
            let length: usize = response.headers()[CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), length);
        }
    }

    #[tokio::test]
    async fn frames_of_http_2_fill_tls_records() {
        let response = respond(list(), &asked(Method::GET, Version::HTTP_2, "identity"));
        let mut body = response.into_body();
        let (mut all, mut full) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(!data.is_empty() && data.len() <= FRAME_BYTES);
            full += usize::from(data.len() == FRAME_BYTES);
            all.extend_from_slice(&data);
        }
        assert_eq!((all, full), (list().bytes().to_vec(), 5 * (100_000 / FRAME_BYTES)));
    }
}
