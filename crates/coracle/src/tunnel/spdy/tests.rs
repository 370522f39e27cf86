//! Frames as a client sends them, whole, cut and broken.

use proptest::prelude::*;

use super::*;

/// Two header blocks of one session, made by zlib with the dictionary.
const ERROR_BLOCK: &str =
    "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc64610024398b209198094adc8c0600000000ffff";
const DATA_BLOCK: &str = "c2aa15540a2512d209000000ffff";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn syn_stream(stream: u32, block: &str) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u32(stream);
    body.put_slice(&[0; 6]);
    body.put_slice(&bytes(block));
    control(1, &body)
}

fn frames(decoder: &mut Decoder) -> Vec<Frame> {
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

fn headers(kind: &str) -> Vec<(String, String)> {
    [("streamtype", kind), ("port", "80"), ("requestid", "0")].map(|(n, v)| (n.into(), v.into())).into()
}

fn session() -> Vec<u8> {
    let frames = [
        syn_stream(1, ERROR_BLOCK),
        control(4, &[0; 4]),
        syn_stream(3, DATA_BLOCK),
        data(3, false, b"GET / HTTP/1.1\r\n\r\n"),
        control(6, &7_u32.to_be_bytes()),
        data(1, true, b""),
        control(3, &[0, 0, 0, 3, 0, 0, 0, 5]),
        control(7, &[0; 8]),
    ];
    frames.concat()
}

fn expected() -> Vec<Frame> {
    vec![
        Frame::SynStream { stream: 1, fin: false, headers: headers("error") },
        Frame::SynStream { stream: 3, fin: false, headers: headers("data") },
        Frame::Data { stream: 3, fin: false, bytes: Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n") },
        Frame::Ping(7),
        Frame::Data { stream: 1, fin: true, bytes: Bytes::new() },
        Frame::Reset(3),
        Frame::GoAway,
    ]
}

#[test]
fn the_dictionary_is_the_specifications() {
    let dictionary = dictionary();
    assert_eq!(dictionary.len(), 1423);
    let mut decoder = Decoder::default();
    decoder.feed(&syn_stream(1, ERROR_BLOCK)); // zlib checks its sum
    assert_eq!(decoder.next(), Ok(Some(expected().remove(0))));
}

#[test]
fn a_session_is_read() {
    let mut decoder = Decoder::default();
    decoder.feed(&session());
    assert_eq!(frames(&mut decoder), expected());
}

#[test]
fn frames_may_be_cut_anywhere_and_data_is_told_as_it_comes() {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    for byte in session() {
        decoder.feed(&[byte]);
        seen.extend(frames(&mut decoder));
    }
    let of_three: Vec<u8> = seen
        .iter()
        .filter_map(|frame| match frame {
            Frame::Data { stream: 3, bytes, .. } => Some(bytes.to_vec()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(of_three, b"GET / HTTP/1.1\r\n\r\n");
    let others = |frames: Vec<Frame>| -> Vec<Frame> {
        frames.into_iter().filter(|frame| !matches!(frame, Frame::Data { stream: 3, .. })).collect()
    };
    assert_eq!(others(seen), others(expected()));
}

#[test]
fn what_is_written_can_be_read_by_the_other_side() {
    let mut encoder = Encoder::default();
    let mut decoder = Decoder::default();
    for stream in [1, 3] {
        decoder.feed(&encoder.syn_reply(stream)); // replies are checked, not told
    }
    decoder.feed(&data(3, true, b"x"));
    decoder.feed(&reset(5, ResetStatus::RefusedStream));
    decoder.feed(&ping(9));
    let piece = Frame::Data { stream: 3, fin: true, bytes: Bytes::from_static(b"x") };
    assert_eq!(frames(&mut decoder), [piece, Frame::Reset(5), Frame::Ping(9)]);
}

#[test]
fn broken_frames_are_errors() {
    let error = |bytes: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        decoder.next().unwrap_err()
    };
    assert_eq!(error(&[0x80, 2, 0, 1, 0, 0, 0, 0]), SpdyError::Version(2));
    assert_eq!(error(&[0x80, 3, 0, 4, 0, 0xff, 0xff, 0xff]), SpdyError::Length(4, 0x00ff_ffff));
    assert_eq!(error(&control(1, &[0; 4])), SpdyError::Length(1, 4));
    assert_eq!(error(&control(6, &[0])), SpdyError::Length(6, 1));
    assert_eq!(error(&syn_stream(1, "78f9e3c6a7c3")), SpdyError::Headers);
    assert_eq!(error(&syn_stream(1, "00ff00ff")), SpdyError::Headers);
    assert_eq!(error(&syn_stream(1, "7801000400fbff7fffffff")), SpdyError::Headers);
}

#[test]
fn a_header_block_that_inflates_without_end_is_an_error() {
    use std::io::Write as _;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&vec![0; 1 << 20]).unwrap();
    let mut body = vec![0; 10];
    body.extend(zlib.finish().unwrap());
    let mut decoder = Decoder::default();
    decoder.feed(&control(1, &body));
    assert_eq!(decoder.next(), Err(SpdyError::Headers));
}

proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
        let mut decoder = Decoder::default();
        for piece in pieces {
            decoder.feed(&piece);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn garbage_in_a_header_block_is_refused_without_a_panic(block in prop::collection::vec(any::<u8>(), 0..256)) {
        let mut body = vec![0; 10];
        body.extend(block);
        let mut decoder = Decoder::default();
        decoder.feed(&control(1, &body));
        let _ = decoder.next();
    }
}
