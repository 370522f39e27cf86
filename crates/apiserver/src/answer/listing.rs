//! A large list, written as it is sent: a piece at a time, out of the objects of one view.
//!
//! So a list of tens of megabytes is never in memory as a whole, and its first bytes are on their way at once.

use std::sync::Arc;
use std::vec::IntoIter;

use bytes::Bytes;
use coracle_api::{Object, Response};
use coracle_base::Now;

use super::ListMeta;
use crate::route::Routed;

/// About how large a piece is: it stays in a core's cache from where it is written to where it is encrypted.
const PIECE_BYTES: usize = 64 << 10;

/// The answer to a LIST: a head, and the pieces of its body as an iterator.
#[derive(Debug)]
pub struct Listing {
    head: Response,
    routed: Routed,
    now: Now,
    /// Where the list begins, until it is written.
    meta: Option<ListMeta>,
    objects: IntoIter<Arc<Object>>,
    ended: bool,
}

impl Listing {
    pub(crate) fn new(head: Response, routed: Routed, now: Now, meta: ListMeta, objects: Vec<Arc<Object>>) -> Self {
        Self { head, routed, now, meta: Some(meta), objects: objects.into_iter(), ended: false }
    }

    /// The answer's status and headers, and nothing of its body.
    pub fn head(&self) -> &Response {
        &self.head
    }

    /// The whole answer, as it is without an end to send it to.
    pub fn into_response(mut self) -> Response {
        let body = self.by_ref().collect();
        Response { body, ..self.head }
    }
}

impl Iterator for Listing {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let presenter = self.routed.presenter(self.now);
        let mut out = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        let mut first = false;
        if let Some(meta) = self.meta.take() {
            presenter.write_list_head(&meta, &mut out);
            first = true;
        }
        while out.len() < PIECE_BYTES {
            let Some(object) = self.objects.next() else {
                out.extend_from_slice(b"]}");
                self.ended = true;
                break;
            };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            presenter.write_item(&object, &mut out);
        }
        Some(Bytes::from(out))
    }
}
