//! Strangers that hold connections open and say nothing.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

use coracle::Cluster;

#[tokio::test]
async fn who_connects_and_says_nothing_is_sent_away() {
    let cluster = Cluster::builder().nodes(0).listen(([127, 0, 0, 1], 0).into()).start().await.unwrap();
    let mut silent = TcpStream::connect(cluster.address().unwrap()).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        silent.set_read_timeout(Some(Duration::from_mins(1)))?;
        silent.read(&mut [0; 16])
    });
    // The end of the connection, or its reset: not the end of our patience.
    match ended.await.unwrap() {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    cluster.shutdown().await;
}
