//! The cluster's DNS: names of the cluster's domain are answered out of the view, others by the machine's resolvers.
//!
//! Every node answers for itself: its Wasm pods ask in the process, others over UDP and TCP. Answers come from the same code.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_api::ObjectKey;
use coracle_api::resources::SERVICES;
use coracle_node::runtime::ByteStream;
use hickory_proto::op::ResponseCode;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

mod message;
pub(crate) mod names;
mod server;
mod upstream;
mod zone;

pub(crate) use message::Transport;
use message::{Question, Read, Reply};
#[cfg(target_os = "linux")]
pub(crate) use server::serve_datagrams;
pub(crate) use server::{serve_stream, start};
pub(crate) use upstream::Upstream;

use crate::process::Process;

/// The Service by which pods find the DNS.
pub(crate) fn service() -> ObjectKey {
    ObjectKey::new(SERVICES, "kube-system", "kube-dns")
}

/// The address of that Service.
#[cfg(target_os = "linux")]
pub(crate) fn address(view: &coracle_store::View) -> Option<IpAddr> {
    crate::dialer::service(view, &service())?.address()
}

/// The port of DNS.
pub(crate) const PORT: u16 = 53;

/// Where the DNS is served beside the Service's address, and whom it asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct DnsOptions {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) upstreams: Vec<SocketAddr>,
}

/// What becomes of a packet.
enum Answered {
    /// These bytes are the answer.
    At(Vec<u8>),
    /// It gets none.
    Never,
    /// Somebody outside has to be asked.
    Asks(Asks),
}

/// A question whose answer, or the rest of it, others have.
struct Asks {
    question: Box<Question>,
    reply: Reply,
    name: hickory_proto::rr::Name,
}

impl Asks {
    async fn answer(self, process: &Process) -> Option<Vec<u8>> {
        let Self { question, mut reply, name } = self;
        let rest = process.upstream.ask(&name, question.query.query_type()).await;
        reply.answers.extend(rest.answers);
        // After an alias the name that was asked for is there.
        if reply.answers.is_empty() || rest.code == ResponseCode::ServFail {
            reply.code = rest.code;
        }
        reply.authorities = rest.authorities;
        reply.authoritative = false;
        question.reply(reply)
    }
}

/// Answers one packet as far as this member can alone.
fn answer_at_once(process: &Process, packet: &[u8], transport: Transport) -> Answered {
    let question = match message::read(packet, transport) {
        Read::Question(question) => question,
        Read::Reply(bytes) => return Answered::At(bytes),
        Read::Drop => return Answered::Never,
    };
    match answer_here(process, &question) {
        (reply, None) => question.reply(reply).map_or(Answered::Never, Answered::At),
        (reply, Some(name)) => Answered::Asks(Asks { question, reply, name }),
    }
}

/// Answers one packet; `None` where it is none that is answered.
pub(crate) async fn answer(process: &Process, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    match answer_at_once(process, packet, transport) {
        Answered::At(bytes) => Some(bytes),
        Answered::Never => None,
        Answered::Asks(asks) => asks.answer(process).await,
    }
}

/// What the zone says, and the name that is left to others.
fn answer_here(process: &Process, question: &Question) -> (Reply, Option<hickory_proto::rr::Name>) {
    let query = &question.query;
    let is_ours = |address: IpAddr| process.is_in_cluster(address);
    let found = zone::answer(&process.view(), query.name(), query.query_type(), is_ours);
    let is_negative = found.answers.is_empty() && found.elsewhere.is_none();
    let reply = Reply {
        code: if found.no_name { ResponseCode::NXDomain } else { ResponseCode::NoError },
        authoritative: true,
        answers: found.answers,
        authorities: if is_negative { zone::authority().into_iter().collect() } else { Vec::new() },
        additionals: found.additionals,
    };
    (reply, found.elsewhere)
}

/// A connection in the process to the DNS: what a pod gets that dials its Service.
pub(crate) fn connect(process: &Arc<Process>) -> ByteStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let process = Arc::clone(process);
    tokio::spawn(async move { serve_stream(&process, ours).await });
    Box::pin(theirs.compat())
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
