//! What the parts of an agent share during one step.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use coracle_api::{Request, Uid};
use coracle_base::Now;

use crate::address::Addresses;
use crate::objects::Objects;
use crate::pod_spec::PodView;
use crate::runtime::{ContainerId, Login, ProbeAction, ProbeId, PullId, PullPolicy, RuntimeCommand, RuntimeKind};
use crate::{EventRecord, EventType, NodeConfig, Output, RequestId};

/// Which part of the agent waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    RegisterNode,
    NodeStatus,
    Pod(Uid),
}

/// What the agent keeps beside its pods.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    /// The Node's labels, as the API server has them; those of the configuration until it told.
    pub(crate) node_labels: BTreeMap<String, String>,
    pub(crate) objects: Objects,
    /// Nothing else happens at this time: what has gathered goes out.
    pub(crate) quiet: bool,
    pub(crate) addresses: Addresses,
    /// Pulls without an answer: bounded by the containers that wait for them.
    pub(crate) pulls: BTreeMap<PullId, Pull>,
    /// Probes and hooks without an answer: at most four a container.
    pub(crate) probes: BTreeMap<ProbeId, Uid>,
    /// Requests without an answer: at most one a pod and one a token of it, and two for the node.
    pub(crate) requests: BTreeMap<RequestId, Purpose>,
    pub(crate) next_pull: u64,
    pub(crate) next_probe: u64,
    pub(crate) next_request: u64,
}

/// A pull without an answer: containers that want the same of the same registry as the same user share one.
#[derive(Clone, Debug)]
pub(crate) struct Pull {
    image: String,
    policy: PullPolicy,
    logins: Vec<Login>,
    /// The runtime of the pod, where that is known.
    runtime: Option<RuntimeKind>,
    /// Whether it is known that it fetches.
    pub(crate) fetching: bool,
}

/// One step: the time, what is shared, and what comes out.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) shared: &'a mut Shared,
    pub(crate) out: &'a mut Vec<Output>,
}

impl Context<'_> {
    pub(crate) fn command(&mut self, command: RuntimeCommand) {
        self.out.push(Output::Runtime(command));
    }

    /// Asks for an image, unless the same was asked already and not answered yet; also whether it is being fetched.
    pub(crate) fn pull(
        &mut self,
        image: &str,
        policy: PullPolicy,
        logins: &[Login],
        runtime: Option<RuntimeKind>,
    ) -> (PullId, bool) {
        let same = |pull: &Pull| {
            pull.image == image && pull.policy == policy && pull.logins == logins && pull.runtime == runtime
        };
        if let Some((id, pull)) = self.shared.pulls.iter().find(|(_, pull)| same(pull)) {
            return (*id, pull.fetching);
        }
        let id = PullId(self.shared.next_pull);
        self.shared.next_pull += 1;
        let (image, logins) = (image.to_owned(), logins.to_vec());
        let pull = Pull { image: image.clone(), policy, logins: logins.clone(), runtime, fetching: false };
        self.shared.pulls.insert(id, pull);
        self.command(RuntimeCommand::PullImage { pull: id, image, policy, logins, runtime });
        (id, false)
    }

    /// Sends a probe or a hook.
    pub(crate) fn probe(
        &mut self,
        id: ContainerId,
        address: IpAddr,
        action: ProbeAction,
        timeout: Duration,
    ) -> ProbeId {
        let probe = ProbeId(self.shared.next_probe);
        self.shared.next_probe += 1;
        self.shared.probes.insert(probe, id.pod.clone());
        let timeout_millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.command(RuntimeCommand::Probe { id: probe, container: id, address, action, timeout_millis });
        probe
    }

    pub(crate) fn request(&mut self, purpose: Purpose, request: Request) -> RequestId {
        let id = RequestId(self.shared.next_request);
        self.shared.next_request += 1;
        self.shared.requests.insert(id, purpose);
        self.out.push(Output::Request(id, request));
        id
    }

    /// Records an Event about a pod, or about a part of it.
    pub(crate) fn event(
        &mut self,
        pod: &PodView,
        field_path: Option<String>,
        event_type: EventType,
        reason: &'static str,
        message: String,
    ) {
        self.out.push(Output::Event(EventRecord {
            regarding: pod.key.clone(),
            uid: Some(pod.uid.clone()),
            field_path,
            event_type,
            reason,
            message,
        }));
    }
}
