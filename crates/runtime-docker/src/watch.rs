//! What happens to containers: Docker's events, and after each break a look at everything that is ours.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::Docker;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EventMessage};
use bollard::query_parameters::{
    EventsOptions, InspectContainerOptions, KillContainerOptions, ListContainersOptions, RemoveContainerOptions,
};
use coracle_api::Uid;
use coracle_node::runtime::{ContainerId, Exit, RuntimeEvent, RuntimeKind};
use futures_util::StreamExt as _;
use tokio::sync::watch;

use crate::engine::{is_missing, pause, sentence};
use crate::shared::{Shared, State, lost};
use crate::{labels, sweep};

/// How long the end of a container waits for the rest of its output to be read.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// What is said of a container that somebody else removed.
const REMOVED: &str = "the container was removed from Docker by somebody else";

/// Keeps the connection, and tells what happens, until the runtime goes. `looked` is told once the Engine was looked for.
pub(crate) async fn keep(shared: Arc<Shared>, looked: watch::Sender<bool>) {
    let mut told: Option<Result<String, String>> = None;
    let mut swept = false;
    loop {
        let connected = shared.engine.connect().await;
        let health = connected.as_ref().map(|(_, version)| version.clone()).map_err(Clone::clone);
        if told.as_ref() != Some(&health) {
            told = Some(health.clone());
            shared.tell(RuntimeEvent::Health { runtime: RuntimeKind::Container, result: health });
        }
        if let Ok((docker, _)) = connected {
            *shared.network_ready.lock().await = false;
            looked.send_replace(true);
            if !std::mem::replace(&mut swept, true) {
                let docker = docker.clone();
                tokio::spawn(async move { sweep::abandoned(&docker).await });
            }
            follow(&shared, &docker).await;
            shared.doubt(None);
            shared.engine.lost(format!("Docker Engine at {} has gone away", shared.engine.socket()));
        }
        looked.send_replace(true);
        pause().await;
    }
}

/// Follows the events until there are no more.
async fn follow(shared: &Arc<Shared>, docker: &Docker) {
    let mut filters = labels::filter(&shared.options, None);
    filters.insert("type".into(), vec!["container".into()]);
    filters.insert("event".into(), vec!["die".into(), "destroy".into()]);
    // From before the look, so that nothing falls between the two; what is told twice is heard once.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    let options = EventsOptions { since: Some(since), until: None, filters: Some(filters) };
    let mut events = std::pin::pin!(docker.events(Some(options)));
    let looking = {
        let (shared, docker) = (Arc::clone(shared), docker.clone());
        tokio::spawn(async move { look(&shared, &docker).await })
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => happened(shared, docker, event),
            Err(error) => {
                tracing::debug!(error = sentence(&error), "Docker's events end");
                break;
            }
        }
    }
    looking.abort();
}

/// Everything that is ours, by Docker's id.
pub(crate) async fn list(shared: &Shared, docker: &Docker) -> Result<HashMap<String, ContainerSummary>, String> {
    let filters = Some(labels::filter(&shared.options, None));
    let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
    let found = docker.list_containers(Some(options)).await.map_err(|error| sentence(&error))?;
    Ok(found.into_iter().filter_map(|found| Some((found.id.clone()?, found))).collect())
}

/// The pods that containers are of.
pub(crate) fn pods_of(found: &HashMap<String, ContainerSummary>) -> BTreeSet<Uid> {
    found.values().filter_map(|found| labels::pod(found.labels.as_ref()?)).collect()
}

/// Compares what is there with what should be.
async fn look(shared: &Arc<Shared>, docker: &Docker) {
    let found = match list(shared, docker).await {
        Ok(found) => found,
        Err(error) => return tracing::warn!(error, "Docker's containers cannot be listed"),
    };
    for (id, tracked) in shared.all() {
        if !matches!(tracked.state, State::Running | State::Starting) {
            continue;
        }
        match found.get(&tracked.docker).and_then(|found| found.state) {
            None => shared.ended(&id, lost(REMOVED)),
            Some(state) if is_alive(state) => {}
            Some(_) => ended(shared, docker, id, None),
        }
    }
    // Pods that went while the Engine was away; those that it had before anybody asked for them are the agent's to name.
    if !shared.told_existing.load(Ordering::Acquire) {
        return;
    }
    let known = shared.pods();
    let unasked = !shared.saw_existing.load(Ordering::Acquire);
    if unasked {
        shared.found(pods_of(&found));
    }
    shared.saw_existing.store(true, Ordering::Release);
    for (docker_id, summary) in found.into_iter().filter(|_| unasked) {
        let labels = summary.labels.unwrap_or_default();
        if labels::pod(&labels).is_some_and(|pod| !known.contains(&pod)) {
            remove(docker, &docker_id).await;
        }
    }
}

/// Whether Docker's word for a state means that there are processes.
pub(crate) fn is_alive(state: ContainerSummaryStateEnum) -> bool {
    use ContainerSummaryStateEnum::{PAUSED, RESTARTING, RUNNING};
    matches!(state, RUNNING | PAUSED | RESTARTING)
}

/// Removes a container whatever it does; one that is not there is removed.
pub(crate) async fn remove(docker: &Docker, id: &str) -> bool {
    let options = RemoveContainerOptions { force: true, v: true, link: false };
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => true,
        Err(error) if is_missing(&error) => true,
        Err(error) => {
            // Another request may remove it at this moment.
            let error = sentence(&error);
            tracing::debug!(container = id, error, "a container is not removed yet");
            error.contains("is already in progress")
        }
    }
}

fn happened(shared: &Arc<Shared>, docker: &Docker, event: EventMessage) {
    let Some(actor) = event.actor else { return };
    let (Some(docker_id), Some(attributes)) = (actor.id, actor.attributes) else { return };
    if !labels::are_ours(&shared.options, &attributes) {
        return;
    }
    let Some(id) = labels::container(&attributes) else {
        return sandbox_ended(shared, docker, &docker_id, &attributes);
    };
    let code = attributes.get("exitCode").and_then(|code| code.parse().ok());
    match shared.container(&id) {
        Some(tracked) if tracked.docker == docker_id => ended(shared, docker, id, code),
        _ => {}
    }
}

/// Without its sandbox a pod has no network: its containers end with it, and are started again as their pod says.
fn sandbox_ended(shared: &Arc<Shared>, docker: &Docker, docker_id: &str, attributes: &HashMap<String, String>) {
    let Some(pod) = labels::pod(attributes) else { return };
    if shared.sandbox(&pod).as_deref() == Some(docker_id) {
        shared.doubt(Some(&pod));
        kill_containers(shared, docker, &pod);
    }
}

/// Ends the containers of a pod that have lost their network.
pub(crate) fn kill_containers(shared: &Shared, docker: &Docker, pod: &Uid) {
    for (_, tracked) in shared.of_pod(pod).into_iter().filter(|(_, tracked)| tracked.state == State::Running) {
        let docker = docker.clone();
        tokio::spawn(async move {
            let options = KillContainerOptions { signal: "KILL".into() };
            // One that does not run needs no end.
            let _ = docker.kill_container(&tracked.docker, Some(options)).await;
        });
    }
}

/// A container ended: what there is to say of that is gathered and told.
pub(crate) fn ended(shared: &Arc<Shared>, docker: &Docker, id: ContainerId, code: Option<i32>) {
    match shared.container(&id).map(|tracked| tracked.state) {
        Some(State::Running) => {
            let (shared, docker) = (Arc::clone(shared), docker.clone());
            tokio::spawn(async move { tell_end(&shared, &docker, &id, code).await });
        }
        Some(State::Starting) => _ = shared.set_state(&id, State::EndedEarly(code)),
        _ => {}
    }
}

async fn tell_end(shared: &Shared, docker: &Docker, id: &ContainerId, code: Option<i32>) {
    let Some(mut tracked) = shared.container(id) else { return };
    let mut exit = exit_of(docker, &tracked.docker, code).await;
    let _ = tokio::time::timeout(DRAIN_WAIT, tracked.drained.wait_for(|drained| *drained)).await;
    exit.message = exit.message.or_else(|| last_words(shared, id));
    shared.ended(id, exit);
}

/// What a container left at its termination message path.
pub(crate) fn last_words(shared: &Shared, id: &ContainerId) -> Option<String> {
    shared.pod_dir(&id.pod).ok()?.termination_message(&id.container, id.instance)
}

/// How a container ended, as Docker has it; `code` where it is gone already.
pub(crate) async fn exit_of(docker: &Docker, id: &str, code: Option<i32>) -> Exit {
    let exit = |code, reason: Option<&str>| Exit {
        code,
        signal: None,
        reason: reason.map(str::to_owned),
        message: None,
        log_tail: None,
    };
    match docker.inspect_container(id, None::<InspectContainerOptions>).await {
        Ok(found) => {
            let state = found.state.unwrap_or_default();
            let code = state.exit_code.map_or_else(|| code.unwrap_or(137), |code| code as i32);
            exit(code, (state.oom_killed == Some(true) && code != 0).then_some("OOMKilled"))
        }
        Err(_) => code.map_or_else(|| lost(REMOVED), |code| exit(code, None)),
    }
}
