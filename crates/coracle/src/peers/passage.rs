//! A connection to a pod of another member: to the pod go bytes as they are, from it pieces with their length before them, because how it
//! ends has to be told apart: a pod that has closed its way, one whose service ended before it began with what was sent, and a machine
//! that is gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use coracle_node::runtime::{ByteStream, Drained};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

/// The bytes of a length, and of the longest piece.
const HEAD: usize = 4;
const PIECE_MAX: usize = 16 << 10;
/// Instead of a length: nothing more comes, because the pod has closed its way, or with [`Drained`].
const ENDED: u32 = 0;
const DRAINED: u32 = u32::MAX;
/// How long what still comes for a service that ended is taken, so that the word about it is not lost with the connection.
const LINGER: Duration = Duration::from_secs(10);

/// Carries a connection on the pod's side, until both ways have ended.
pub(super) async fn carry(peer: impl AsyncRead + AsyncWrite, pod: ByteStream) -> io::Result<()> {
    let (mut from_peer, mut to_peer) = tokio::io::split(peer);
    let (mut from_pod, mut to_pod) = tokio::io::split(pod.compat());
    let mut inward = std::pin::pin!(async {
        let taken = tokio::io::copy(&mut from_peer, &mut to_pod).await;
        if taken.is_ok() {
            // A pod that is gone says so the other way.
            let _ = to_pod.shutdown().await;
            return Ok(());
        }
        tokio::io::copy(&mut from_peer, &mut tokio::io::sink()).await.map(drop)
    });
    let mut outward = std::pin::pin!(async {
        let mut piece = vec![0; HEAD + PIECE_MAX];
        let end = loop {
            let count = match from_pod.read(&mut piece[HEAD..]).await {
                Ok(0) => break ENDED,
                Ok(count) => count,
                Err(error) if Drained::is_cause_of(&error) => break DRAINED,
                Err(error) => return Err(error),
            };
            let length = u32::try_from(count).expect("a piece is short");
            piece[..HEAD].copy_from_slice(&length.to_be_bytes());
            to_peer.write_all(&piece[..HEAD + count]).await?;
            to_peer.flush().await?;
        };
        to_peer.write_all(&end.to_be_bytes()).await?;
        to_peer.shutdown().await?;
        Ok(end)
    });
    tokio::select! {
        ended = &mut inward => {
            ended?;
            outward.await.map(drop)
        }
        ended = &mut outward => match ended? {
            DRAINED => timeout(LINGER, inward).await.unwrap_or(Ok(())),
            _ => inward.await,
        },
    }
}

/// The connection on the side of who dialed.
#[derive(Debug)]
pub(super) struct Passage<S> {
    stream: S,
    head: [u8; HEAD],
    step: Step,
}

/// What comes next from the pod.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A length, of which so many bytes are there.
    Head(usize),
    /// So much of a piece.
    Piece(usize),
    Ended,
    Drained,
}

impl<S> Passage<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, head: [0; HEAD], step: Step::Head(0) }
    }
}

impl<S: AsyncRead + Unpin> futures_io::AsyncRead for Passage<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let mut buffer = match this.step {
                Step::Ended => return Poll::Ready(Ok(0)),
                Step::Drained => return Poll::Ready(Err(Drained.into())),
                Step::Head(have) => ReadBuf::new(&mut this.head[have..]),
                Step::Piece(rest) => {
                    let room = bytes.len().min(rest);
                    ReadBuf::new(&mut bytes[..room])
                }
            };
            if buffer.capacity() == 0 {
                return Poll::Ready(Ok(0));
            }
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer))?;
            let count = buffer.filled().len();
            if count == 0 {
                let why = "the connection to the pod's member broke";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
            }
            this.step = match this.step {
                Step::Piece(rest) => {
                    this.step = if count == rest { Step::Head(0) } else { Step::Piece(rest - count) };
                    return Poll::Ready(Ok(count));
                }
                Step::Head(have) if have + count < HEAD => Step::Head(have + count),
                _ => match u32::from_be_bytes(this.head) {
                    ENDED => Step::Ended,
                    DRAINED => Step::Drained,
                    length => match usize::try_from(length) {
                        Ok(length) if length <= PIECE_MAX => Step::Piece(length),
                        _ => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                    },
                },
            };
        }
    }
}

impl<S: AsyncWrite + Unpin> futures_io::AsyncWrite for Passage<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if matches!(self.step, Step::Drained) {
            return Poll::Ready(Err(Drained.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use coracle_node::runtime::duplex;
    use tokio::io::DuplexStream;
    use tokio_util::compat::Compat;

    use super::*;

    /// A pod's stream, whose end is `Drained` where that is said.
    struct Pod(ByteStream, Arc<AtomicBool>);

    impl futures_io::AsyncRead for Pod {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
            match ready!(self.0.as_mut().poll_read(cx, bytes)) {
                Ok(0) if self.1.load(Ordering::Relaxed) => Poll::Ready(Err(Drained.into())),
                read => Poll::Ready(read),
            }
        }
    }

    impl futures_io::AsyncWrite for Pod {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.as_mut().poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.as_mut().poll_flush(cx)
        }

        fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.as_mut().poll_close(cx)
        }
    }

    struct Ends {
        client: Compat<Passage<DuplexStream>>,
        pod: Compat<ByteStream>,
        drains: Arc<AtomicBool>,
        carrying: tokio::task::JoinHandle<io::Result<()>>,
    }

    fn connected() -> Ends {
        let (near, far) = tokio::io::duplex(64);
        let (pod, theirs) = duplex(64);
        let drains = Arc::<AtomicBool>::default();
        let carrying = tokio::spawn(carry(far, Box::pin(Pod(theirs, Arc::clone(&drains)))));
        Ends { client: Passage::new(near).compat(), pod: pod.compat(), drains, carrying }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
        let Ends { mut client, mut pod, carrying, .. } = connected();
        client.write_all(b"a question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = String::new();
        pod.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "a question");
        let answer = "an answer ".repeat(10_000);
        let (sent, read) = tokio::join!(
            async {
                pod.write_all(answer.as_bytes()).await?;
                pod.shutdown().await
            },
            async {
                let mut read = String::new();
                client.read_to_string(&mut read).await.map(|_| read)
            }
        );
        sent.unwrap();
        assert_eq!(read.unwrap(), answer);
        carrying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_service_that_ends_before_it_begins_is_told_from_one_that_closes() {
        let Ends { mut client, mut pod, drains, carrying } = connected();
        pod.write_all(b"first").await.unwrap();
        let mut first = [0; 5];
        client.read_exact(&mut first).await.unwrap();
        drains.store(true, Ordering::Relaxed);
        // What nobody begins with neither breaks the connection nor hides the word.
        drop(pod);
        client.write_all(&[0; 1000]).await.unwrap();
        let error = client.read(&mut first).await.unwrap_err();
        assert!(Drained::is_cause_of(&error), "{error}");
        assert!(Drained::is_cause_of(&client.write(b"more").await.unwrap_err()));
        drop(client);
        carrying.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_machine_that_is_gone_is_no_end_of_what_its_pod_said() {
        let Ends { mut client, mut pod, carrying, .. } = connected();
        pod.write_all(b"half of").await.unwrap();
        let mut half = [0; 7];
        client.read_exact(&mut half).await.unwrap();
        carrying.abort();
        assert_eq!(client.read(&mut half).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
