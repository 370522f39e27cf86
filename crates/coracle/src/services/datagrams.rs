//! Datagrams to services: each client of a port has a flow of its own to an endpoint, until neither has said anything for a while.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use coracle_api::Revision;
use coracle_api::resources::ENDPOINT_SLICES;
use coracle_store::View;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::sync::CancellationToken;

use super::{Behind, door};
use crate::dialer::{self, DATAGRAM_MAX, Meant, Protocol, read_datagram, write_datagram};
use crate::process::Process;

/// How many flows one port has at a time; datagrams of clients beyond are lost, as on a full network.
const FLOWS_MAX: usize = 4096;
/// How many datagrams of a client wait for its endpoint; more are lost.
const WAITING_MAX: usize = 64;
/// A flow ends when nothing went either way for this long: what Linux' connection tracking gives a stream of datagrams.
const IDLE_MAX: Duration = Duration::from_mins(2);

/// Who talks to whom: the client, and the address that it sent to.
type Ends = (SocketAddr, SocketAddr);

/// The flows of one socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flows(Arc<Mutex<BTreeMap<Ends, mpsc::Sender<Bytes>>>>);

/// A flow that begins.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) ends: Ends,
    pub(crate) to: Meant,
    /// Where answers are sent from.
    pub(crate) socket: Arc<UdpSocket>,
}

impl Flows {
    /// Gives a datagram to its flow; false where there is none yet.
    pub(crate) fn pass(&self, ends: &Ends, datagram: &Bytes) -> bool {
        let flows = self.0.lock().expect("nothing panics while it holds the lock");
        match flows.get(ends) {
            // One that waits for its endpoint and is full loses what comes.
            Some(flow) => !matches!(flow.try_send(datagram.clone()), Err(mpsc::error::TrySendError::Closed(_))),
            None => false,
        }
    }

    /// Begins a flow with its first datagram.
    pub(crate) fn begin(&self, process: &Arc<Process>, flow: Flow, first: Bytes, closed: &CancellationToken) {
        let (sender, datagrams) = mpsc::channel(WAITING_MAX);
        let _ = sender.try_send(first);
        {
            let mut flows = self.0.lock().expect("nothing panics while it holds the lock");
            if flows.len() >= FLOWS_MAX {
                return tracing::debug!(client = %flow.ends.0, "a datagram is lost: there are too many flows");
            }
            flows.insert(flow.ends, sender);
        }
        let (flows, process, closed) = (self.clone(), Arc::clone(process), closed.clone());
        tokio::spawn(async move {
            if let Some(Err(error)) = closed.run_until_cancelled(carry(&process, &flow, datagrams)).await {
                tracing::debug!(client = %flow.ends.0, to = ?flow.to, %error, "a flow of datagrams ended");
            }
            flows.0.lock().expect("nothing panics while it holds the lock").remove(&flow.ends);
        });
    }
}

/// Carries datagrams both ways.
async fn carry(process: &Arc<Process>, flow: &Flow, mut datagrams: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let dialed = dialer::dial_datagrams(process, &flow.to, Some(flow.ends.0)).await;
    let (dialed, chosen) = dialed.map_err(|error| io::Error::other(error.0))?;
    let mut views = process.views.clone();
    let mut seen = views.borrow().last_change(&ENDPOINT_SLICES);
    let (mut answers, mut endpoint) = tokio::io::split(dialed.compat());
    let (read, mut answered) = mpsc::channel(WAITING_MAX);
    let reading = async {
        loop {
            let datagram = read_datagram(&mut answers).await?;
            if read.send(datagram).await.is_err() {
                return Ok::<(), io::Error>(());
            }
        }
    };
    let carrying = async {
        loop {
            let idle = tokio::time::sleep(IDLE_MAX);
            tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => write_datagram(&mut endpoint, &datagram).await?,
                    None => return Ok(()),
                },
                Some(answer) = answered.recv() => {
                    // What a client does not take is lost.
                    let _ = flow.socket.send_to(&answer, flow.ends.0).await;
                }
                changed = changed_endpoints(&mut views, seen) => {
                    let Some(change) = changed else { return Ok(()) };
                    seen = change;
                    // The next datagram begins a flow to another one.
                    if !dialer::still_takes(process, &flow.to, chosen.as_ref()) {
                        return Ok(());
                    }
                }
                () = idle => return Ok(()),
            }
        }
    };
    tokio::select! {
        read = reading => read,
        carried = carrying => carried,
    }
}

/// The next change of any service's endpoints; `None` when there will be none.
async fn changed_endpoints(views: &mut watch::Receiver<View>, seen: Revision) -> Option<Revision> {
    let view = views.wait_for(|view| view.last_change(&ENDPOINT_SLICES) != seen).await.ok()?;
    Some(view.last_change(&ENDPOINT_SLICES))
}

/// Takes datagrams at an open port until it is closed.
pub(super) async fn serve(process: Arc<Process>, socket: UdpSocket, behind: Behind, closed: CancellationToken) {
    let (socket, flows) = (Arc::new(socket), Flows::default());
    let Ok(own) = socket.local_addr() else { return };
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = closed.cancelled() => return,
        };
        // An answer that a client refused comes back as an error; it is none of the port's.
        let Ok((length, client)) = received else { continue };
        let datagram = Bytes::copy_from_slice(&buffer[..length]);
        if !door::admits(&behind, client.ip()) || flows.pass(&(client, own), &datagram) {
            continue;
        }
        let to = Meant::Service(door::target(&process, &behind, Protocol::Udp, client.ip()));
        flows.begin(&process, Flow { ends: (client, own), to, socket: Arc::clone(&socket) }, datagram, &closed);
    }
}
