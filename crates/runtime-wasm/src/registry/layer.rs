//! Layers: streamed into files, gone on with where a connection broke, verified; and the one file of an image that is wanted.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use futures_util::StreamExt as _;
use oci_client::client::BlobResponse;
use oci_client::manifest::OciDescriptor;
use oci_client::{Client, Reference, client::SizedStream};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::artifact::Refusal;
use super::error::chain;
use super::fetch::{Stopped, check_size};
use crate::image_store::IMAGE_SIZE_MAX;

/// How often a transfer is gone on with that broke without a byte since the last time.
const RESUMES_MAX: u32 = 4;
/// The wait before that.
const RESUME_AFTER: Duration = Duration::from_millis(500);
/// The most of an image's file systems that is unpacked to look for its program.
const UNPACKED_MAX: u64 = 4 << 30;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A small blob, whole and verified.
pub(super) async fn small(client: &Client, image: &Reference, blob: &OciDescriptor) -> Result<Vec<u8>, Stopped> {
    let mut stream = client.pull_blob_stream(image, blob).await.map_err(|error| Stopped::Failed(chain(&error)))?.stream;
    let size = usize::try_from(blob.size).unwrap_or_default();
    let mut bytes = Vec::with_capacity(size);
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| Stopped::Failed(chain(&error)))?);
        if bytes.len() > size {
            return Err(larger(blob));
        }
    }
    Ok(bytes)
}

fn larger(blob: &OciDescriptor) -> Stopped {
    Stopped::Failed(format!("{} is larger than the {} bytes that its manifest names", blob.digest, blob.size))
}

/// A layer in a file, whole and verified.
pub(super) async fn download(
    client: &Client,
    image: &Reference,
    layer: &OciDescriptor,
    dir: &Path,
) -> Result<NamedTempFile, Stopped> {
    let size = check_size(layer)?;
    let failed =
        |error: std::io::Error| Stopped::Failed(format!("cannot keep what comes in {}: {error}", dir.display()));
    let file = NamedTempFile::new_in(dir).map_err(failed)?;
    let mut out = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
    let (mut written, mut tries) = (0, 0);
    while written < size {
        let before = written;
        if let Err(why) = go_on(client, image, layer, &mut out, &mut written).await? {
            tries = if written > before { 0 } else { tries + 1 };
            if tries > RESUMES_MAX {
                return Err(Stopped::Failed(format!("its layer broke off after {written} of {size} bytes: {why}")));
            }
            tracing::debug!(image = %image, written, size, why, "going on with a pull");
            tokio::time::sleep(RESUME_AFTER).await;
        }
    }
    out.sync_data().await.map_err(failed)?;
    verify(file, layer.digest.clone()).await
}

/// Takes as much as comes. The inner error is of a connection: it may be tried again.
async fn go_on(
    client: &Client,
    image: &Reference,
    layer: &OciDescriptor,
    out: &mut tokio::fs::File,
    written: &mut u64,
) -> Result<Result<(), String>, Stopped> {
    let disk = |error: std::io::Error| Stopped::Failed(format!("cannot keep what comes: {error}"));
    let stream: SizedStream = if *written == 0 {
        match client.pull_blob_stream(image, layer).await {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(chain(&error))),
        }
    } else {
        match client.pull_blob_stream_partial(image, layer, *written, None).await {
            Ok(BlobResponse::Partial(stream)) => stream,
            Ok(BlobResponse::Full(stream)) => {
                // It begins anew, and so do we.
                out.set_len(0).await.map_err(disk)?;
                out.seek(SeekFrom::Start(0)).await.map_err(disk)?;
                *written = 0;
                stream
            }
            Err(error) => return Ok(Err(chain(&error))),
        }
    };
    let size = check_size(layer)?;
    let mut pieces = stream.stream;
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                out.flush().await.map_err(disk)?;
                return Ok(Err(chain(&error)));
            }
        };
        if *written + piece.len() as u64 > size {
            return Err(larger(layer));
        }
        out.write_all(&piece).await.map_err(disk)?;
        *written += piece.len() as u64;
    }
    out.flush().await.map_err(disk)?;
    Ok(if *written < size { Err("the connection ended".to_owned()) } else { Ok(()) })
}

async fn verify(mut file: NamedTempFile, digest: String) -> Result<NamedTempFile, Stopped> {
    blocking(move || {
        let failed = |error: std::io::Error| Stopped::Failed(format!("cannot read what came: {error}"));
        let found = digest_of(file.as_file_mut()).map_err(failed)?;
        if found != digest {
            return Err(Stopped::Failed(format!(
                "its layer is not what its manifest names: {found} instead of {digest}"
            )));
        }
        Ok(file)
    })
    .await
}

/// `sha256:` and the digest of a file.
pub(crate) fn digest_of(file: &mut File) -> std::io::Result<String> {
    use std::fmt::Write as _;
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    Ok(hash.finalize().iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Sees to it that a file is WebAssembly.
pub(super) async fn wasm(mut file: NamedTempFile) -> Result<NamedTempFile, Stopped> {
    blocking(move || {
        let mut head = [0; 8];
        file.as_file_mut().seek(SeekFrom::Start(0)).map_err(|error| Stopped::Failed(error.to_string()))?;
        let whole = file.as_file_mut().read_exact(&mut head).is_ok();
        if !whole || !head.starts_with(b"\0asm") {
            let why = "its program does not begin as a WebAssembly module or component does".to_owned();
            return Err(Stopped::Refused(Refusal { kind: None, why }));
        }
        Ok(file)
    })
    .await
}

/// The file of this path in a layer; `None`: the layer says nothing of it.
pub(super) async fn file_of(layer: NamedTempFile, path: &str, dir: &Path) -> Result<Option<NamedTempFile>, Stopped> {
    let (path, dir) = (path.trim_start_matches(['.', '/']).to_owned(), dir.to_owned());
    blocking(move || find(layer, &path, &dir)).await
}

fn find(mut layer: NamedTempFile, path: &str, dir: &Path) -> Result<Option<NamedTempFile>, Stopped> {
    let failed = |error: std::io::Error| Stopped::Failed(format!("its layer cannot be unpacked: {error}"));
    let mut magic = [0; 4];
    layer.as_file_mut().seek(SeekFrom::Start(0)).map_err(failed)?;
    let count = layer.as_file_mut().read(&mut magic).map_err(failed)?;
    layer.as_file_mut().seek(SeekFrom::Start(0)).map_err(failed)?;
    let reader: Box<dyn Read> = match &magic[..count] {
        magic if magic.starts_with(&GZIP_MAGIC) => Box::new(MultiGzDecoder::new(layer.as_file())),
        magic if magic.starts_with(&ZSTD_MAGIC) => {
            let why = "its layers are compressed with zstd, which is not supported: use gzip".to_owned();
            return Err(Stopped::Refused(Refusal { kind: None, why }));
        }
        _ => Box::new(layer.as_file()),
    };
    let mut archive = tar::Archive::new(reader.take(UNPACKED_MAX));
    let removed = match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/.wh.{name}"),
        None => format!(".wh.{path}"),
    };
    for entry in archive.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches(['.', '/']).to_owned();
        if name == removed {
            let why = format!("it has no file {path:?}, which its entry point names");
            return Err(Stopped::Refused(Refusal { kind: None, why }));
        }
        if name != path || !entry.header().entry_type().is_file() {
            continue;
        }
        if entry.size() > IMAGE_SIZE_MAX as u64 {
            let size = entry.size();
            return Err(Stopped::Failed(format!(
                "its program has {size} bytes; an image may have at most {IMAGE_SIZE_MAX}"
            )));
        }
        let mut file = NamedTempFile::new_in(dir).map_err(failed)?;
        std::io::copy(&mut entry.take(IMAGE_SIZE_MAX as u64), file.as_file_mut()).map_err(failed)?;
        file.as_file_mut().flush().map_err(failed)?;
        return Ok(Some(file));
    }
    Ok(None)
}

/// Work on files, off the threads that answer.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Stopped> + Send + 'static) -> Result<T, Stopped> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Stopped::Failed(format!("the runtime failed: {error}"))))
}
