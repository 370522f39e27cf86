//! `coracle:pod/lifecycle`: a guest learns that it is to end, says whether it is ready, and reads what its pod is called.
//!
//! `wit/lifecycle.wit` describes it to guests.

use std::pin::Pin;
use std::time::Duration;

use coracle_node::runtime::RuntimeEvent;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::p2::{Pollable, subscribe};

use super::{Platform, Pod};
use crate::container::Ending;
use crate::guest::Guest;

/// The interface without its version.
pub(crate) const INTERFACE: &str = "coracle:pod/lifecycle@";
/// The function whose import says that a program ends by itself when it is asked to.
pub(crate) const TERMINATION: &str = "termination";

/// The least between two changes of readiness: each is written into the pod's status. A guest that changes its mind faster waits.
const READINESS_INTERVAL: Duration = Duration::from_millis(100);

/// What a guest said last of its readiness, and when; the agent takes it for ready before it says anything.
#[derive(Debug)]
pub(crate) struct Readiness(Mutex<(bool, Option<Instant>)>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Mutex::new((true, None)))
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Metadata {
    #[component(name = "name")]
    name: String,
    #[component(name = "namespace")]
    namespace: String,
    #[component(name = "uid")]
    uid: String,
    #[component(name = "node-name")]
    node_name: String,
    #[component(name = "ip")]
    ip: String,
    #[component(name = "labels")]
    labels: Vec<(String, String)>,
    #[component(name = "annotations")]
    annotations: Vec<(String, String)>,
}

/// Ready once the container is asked to end.
struct Termination(watch::Receiver<Ending>);

impl Pollable for Termination {
    fn ready<'life, 'future>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(async {
            // Without a sender there is no container any more.
            let _ = self.0.wait_for(|ending| *ending >= Ending::Stop).await;
        })
    }
}

impl Platform {
    async fn set_ready(&self, ready: bool) {
        let mut said = self.readiness.0.lock().await;
        if said.0 == ready {
            return;
        }
        if let Some(at) = said.1 {
            tokio::time::sleep_until(at + READINESS_INTERVAL).await;
        }
        *said = (ready, Some(Instant::now()));
        self.host.event(RuntimeEvent::ReadinessSaid { id: self.container.clone(), ready });
    }
}

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut lifecycle = linker.instance("coracle:pod/lifecycle@0.1.0")?;
    lifecycle.func_wrap(TERMINATION, |mut guest: StoreContextMut<'_, Guest>, (): ()| {
        let termination = Termination(guest.data().platform.ending.subscribe());
        let table = guest.data_mut().ctx().table;
        let termination = table.push(termination)?;
        Ok((subscribe(table, termination)?,))
    })?;
    lifecycle
        .func_wrap("terminating", |guest, (): ()| Ok((*guest.data().platform.ending.borrow() >= Ending::Stop,)))?;
    lifecycle.func_wrap_async("set-ready", |guest: StoreContextMut<'_, Guest>, (ready,): (bool,)| {
        Box::new(async move {
            guest.data().platform.set_ready(ready).await;
            Ok(())
        })
    })?;
    lifecycle.func_wrap("pod", |guest, (): ()| Ok((Metadata::from(&guest.data().platform.pod),)))
}

impl From<&Pod> for Metadata {
    fn from(pod: &Pod) -> Self {
        let Pod { name, namespace, uid, node, address, labels, annotations } = pod.clone();
        Self {
            name,
            namespace,
            uid,
            node_name: node,
            ip: address,
            labels: labels.into_iter().collect(),
            annotations: annotations.into_iter().collect(),
        }
    }
}
