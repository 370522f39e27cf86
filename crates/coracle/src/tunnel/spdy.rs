//! SPDY/3.1 frames, as far as port-forwards speak it: a codec without any input or output.
//!
//! Header blocks are one zlib stream a direction, with the dictionary of the specification, flushed at the end of each block.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

/// How long a control frame may be; a port-forward's are under a hundred bytes.
const CONTROL_MAX: usize = 64 << 10;
/// How long a header block may be when it is inflated.
const HEADERS_MAX: usize = 16 << 10;
/// How many headers a block may have.
const HEADERS_COUNT_MAX: usize = 64;
const FLAG_FIN: u8 = 1;
const CONTROL: u16 = 0x8000;
const VERSION: u16 = 3;

/// The first part of the dictionary: each with its length in four bytes before it.
const DICTIONARY_WORDS: &str = "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|\
    accept-ranges|age|allow|authorization|cache-control|connection|content-base|content-encoding|content-language|\
    content-length|content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|\
    if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|\
    proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|\
    user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|\
    keep-alive|origin";
/// The second part: text.
const DICTIONARY_TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8\
    charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut dictionary = Vec::new();
    for word in DICTIONARY_WORDS.split('|') {
        dictionary.put_u32(word.len() as u32);
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(DICTIONARY_TEXT.as_bytes());
    dictionary
}

/// What a peer sent is not SPDY/3.1, or is more than is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    /// A control frame of another version.
    #[error("control frame of version {0}")]
    Version(u16),
    /// A frame that is too short for its type, or too long for anybody.
    #[error("control frame {0} of {1} bytes")]
    Length(u16, usize),
    /// A header block that does not inflate, or is not name and value pairs.
    #[error("invalid header block")]
    Headers,
}

/// What a client says. What needs no answer (settings, window updates, replies) is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A stream opens.
    SynStream { stream: u32, fin: bool, headers: Vec<(String, String)> },
    /// A stream is given up.
    Reset(u32),
    /// To be sent back.
    Ping(u32),
    /// The session ends.
    GoAway,
    /// A piece of a stream; of a long frame as much as has come.
    Data { stream: u32, fin: bool, bytes: Bytes },
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetStatus {
    /// The request makes no sense.
    ProtocolError = 1,
    /// It is one too many.
    RefusedStream = 3,
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct Decoder {
    buffer: BytesMut,
    /// The stream and flag of the data frame under way, and how much of it is to come.
    data: Option<(u32, bool, usize)>,
    inflate: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), data: None, inflate: Decompress::new(true) }
    }
}

impl Decoder {
    /// Takes in bytes, however they are cut.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// After one the stream is of no use: the headers that follow cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some((stream, fin, left)) = self.data {
                if self.buffer.is_empty() && left > 0 {
                    return Ok(None);
                }
                let bytes = self.buffer.split_to(left.min(self.buffer.len())).freeze();
                let left = left - bytes.len();
                self.data = (left > 0).then_some((stream, fin, left));
                return Ok(Some(Frame::Data { stream, fin: fin && left == 0, bytes }));
            }
            if self.buffer.len() < 8 {
                return Ok(None);
            }
            let (first, second) = ((&self.buffer[..4]).get_u32(), (&self.buffer[4..8]).get_u32());
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            let start = (first >> 16) as u16;
            if start & CONTROL == 0 {
                self.buffer.advance(8);
                self.data = Some((first, flags & FLAG_FIN != 0, length));
                continue;
            }
            let kind = first as u16;
            if start != CONTROL | VERSION {
                return Err(SpdyError::Version(start & !CONTROL));
            }
            if length > CONTROL_MAX {
                return Err(SpdyError::Length(kind, length));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            self.buffer.advance(8);
            let body = self.buffer.split_to(length).freeze();
            if let Some(frame) = self.control(kind, flags, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> Result<Option<Frame>, SpdyError> {
        // The fixed part of each type, before a header block.
        let fixed = match kind {
            1 => 10,
            2 | 6 | 8 => 4,
            3 => 8,
            _ => 0,
        };
        if body.len() < fixed {
            return Err(SpdyError::Length(kind, body.len()));
        }
        let id = if fixed > 0 { (&body[..4]).get_u32() & 0x7fff_ffff } else { 0 };
        Ok(match kind {
            1 => {
                body.advance(fixed);
                let headers = self.headers(&body)?;
                Some(Frame::SynStream { stream: id, fin: flags & FLAG_FIN != 0, headers })
            }
            2 | 8 => {
                // Nobody asks for them, but what follows is inflated with what they leave behind.
                body.advance(fixed);
                self.headers(&body)?;
                None
            }
            3 => Some(Frame::Reset(id)),
            6 => Some(Frame::Ping(body.get_u32())),
            7 => Some(Frame::GoAway),
            _ => None,
        })
    }

    fn headers(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        let block = self.inflate(block)?;
        let mut rest = block.as_slice();
        let count = number(&mut rest)?;
        if count > HEADERS_COUNT_MAX {
            return Err(SpdyError::Headers);
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            headers.push((text(&mut rest)?, text(&mut rest)?));
        }
        if rest.is_empty() { Ok(headers) } else { Err(SpdyError::Headers) }
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let (before, had) = (self.inflate.total_in(), out.len());
            let result = self.inflate.decompress_vec(block, &mut out, FlushDecompress::Sync);
            block = &block[(self.inflate.total_in() - before) as usize..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&dictionary()).map_err(|_| SpdyError::Headers)?;
                    continue;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(SpdyError::Headers),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if out.len() == out.capacity() {
                if out.len() >= HEADERS_MAX {
                    return Err(SpdyError::Headers);
                }
                out.reserve(1024);
            } else if block.is_empty() {
                return Ok(out);
            } else if out.len() == had && self.inflate.total_in() == before {
                return Err(SpdyError::Headers); // it is stuck
            }
        }
    }
}

fn number(rest: &mut &[u8]) -> Result<usize, SpdyError> {
    rest.try_get_u32().map(|number| number as usize).map_err(|_| SpdyError::Headers)
}

fn text(rest: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(rest)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(SpdyError::Headers)?;
    *rest = behind;
    String::from_utf8(text.to_vec()).map_err(|_| SpdyError::Headers)
}

/// Writes frames.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    /// The zlib stream of the header blocks has begun.
    begun: bool,
}

impl Encoder {
    /// A stream is taken. The header block says that there is no header: in a stored block, which is zlib too and needs no
    /// compressor, and an empty one behind it, at which readers give out what they have.
    pub(super) fn syn_reply(&mut self, stream: u32) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        if !self.begun {
            body.put_slice(&[0x78, 0x01]);
            self.begun = true;
        }
        body.put_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
        body.put_slice(&[0, 0, 0, 0xff, 0xff]);
        control(2, &body)
    }
}

/// A stream is given up.
pub(super) fn reset(stream: u32, status: ResetStatus) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u32(stream);
    body.put_u32(status as u32);
    control(3, &body)
}

/// The answer to a ping.
pub(super) fn ping(id: u32) -> Bytes {
    control(6, &id.to_be_bytes())
}

/// A piece of a stream, at most 16 MiB.
pub(super) fn data(stream: u32, fin: bool, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u32(stream);
    frame.put_u32(u32::from(u8::from(fin) * FLAG_FIN) << 24 | bytes.len() as u32);
    frame.put_slice(bytes);
    frame.freeze()
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_u16(CONTROL | VERSION);
    frame.put_u16(kind);
    frame.put_u32(body.len() as u32);
    frame.put_slice(body);
    frame.freeze()
}

#[cfg(test)]
mod tests;
