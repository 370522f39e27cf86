//! Frames of a control connection: a length, and so many bytes; an empty one says only that the other side is alive.

use std::io;

use bytes::Bytes;
use coracle_engine::PEER_MESSAGE_BYTES_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The longest greeting.
const GREETING_BYTES_MAX: usize = 16 << 10;

/// Writes a frame; nothing is flushed.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| invalid("the message is too long to be sent"))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await
}

/// Reads a frame of a message. The length is looked at before anything is taken up for it.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    read_bounded(stream, PEER_MESSAGE_BYTES_MAX).await
}

/// Writes a greeting.
pub(crate) async fn greet(stream: &mut (impl AsyncWrite + Unpin), greeting: &impl Serialize) -> io::Result<()> {
    write(stream, &serde_json::to_vec(greeting)?).await?;
    stream.flush().await
}

/// Reads a greeting.
pub(crate) async fn greeting<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let bytes = read_bounded(stream, GREETING_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

async fn read_bounded(stream: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > most {
        return Err(invalid(format!("a frame of {length} bytes is longer than {most}")));
    }
    // What was promised may never come: memory is taken as it does.
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.into())
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_they_were_written_and_broken_ones_are_errors() {
        let mut out = Vec::new();
        for frame in [&b"one"[..], b"", &vec![7; 100_000]] {
            write(&mut out, frame).await.unwrap();
        }
        let mut input = out.as_slice();
        assert_eq!(read(&mut input).await.unwrap(), "one");
        assert_eq!(read(&mut input).await.unwrap(), "");
        assert_eq!(read(&mut input).await.unwrap().len(), 100_000);
        read(&mut input).await.unwrap_err();
        read(&mut &out[..5]).await.unwrap_err();
        let huge = u32::MAX.to_be_bytes();
        assert!(read(&mut huge.as_slice()).await.unwrap_err().to_string().contains("longer"));
    }
}
