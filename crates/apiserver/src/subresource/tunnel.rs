//! Subresources that join the client to byte streams: exec, attach, port-forward and proxy.

use coracle_api::{Status, Uid};

use crate::context::{Context, Step};
use crate::error;
use crate::machine::{SessionStreams, TunnelSpec};
use crate::request::options::flag;
use crate::verb::create::value_of;
use crate::verb::get::existing;

use super::log;

/// `pods/portforward`.
pub(super) fn port_forward(context: &mut Context<'_>) -> Result<Step, Status> {
    let pod = existing(context)?;
    let node = node_of(context)?;
    let mut ports = Vec::new();
    for (_, value) in context.request.query.iter().filter(|(key, _)| key == "ports") {
        for text in value.split(',').filter(|text| !text.is_empty()) {
            let port = text.parse::<u16>().ok().filter(|port| *port != 0);
            ports.push(port.ok_or_else(|| Status::bad_request(format!("unable to parse {text:?} as a port")))?);
        }
    }
    let uid = pod.metadata().uid.clone().unwrap_or_else(|| Uid::from(""));
    let pod = (context.path.namespace.clone(), context.path.name.clone(), uid);
    Ok(Step::Tunnel(TunnelSpec::PortForward { node, pod, ports }))
}

/// `pods/proxy` and `services/proxy`; the name may be `[scheme:]name[:port]`.
pub(super) fn proxy(context: &mut Context<'_>) -> Result<Step, Status> {
    let resource = context.resource.group_resource.resource.to_string();
    if !matches!(resource.as_str(), "pods" | "services") {
        return Err(error::not_here(&format!("the proxy subresource of {resource}")));
    }
    let given = context.path.name.clone();
    let (https, name, port) = split_name(&given)
        .ok_or_else(|| Status::bad_request(format!("invalid {} request {given:?}", resource.trim_end_matches('s'))))?;
    let key = context.key_of(name);
    let object = context.view.object(&key).ok_or_else(|| Status::not_found(&key.resource, name))?;
    if resource == "pods" {
        let pod = value_of(context, object);
        if pod["status"]["podIP"].as_str().is_none_or(str::is_empty) {
            return Err(Status::failure(
                503,
                Some(coracle_api::Reason::ServiceUnavailable),
                format!("no address is known for pod {name:?}: it is not running yet"),
            ));
        }
    }
    let path = if context.path.rest.is_empty() { "/".into() } else { context.path.rest.clone() };
    Ok(Step::Tunnel(TunnelSpec::Proxy {
        namespace: context.path.namespace.clone(),
        resource,
        name: name.to_owned(),
        port: port.map(str::to_owned),
        https,
        path,
    }))
}

/// `[scheme:]name[:port]`; `None` when it is something else.
fn split_name(given: &str) -> Option<(bool, &str, Option<&str>)> {
    let (https, name, port) = match given.split(':').collect::<Vec<_>>().as_slice() {
        [name] => (false, *name, ""),
        [name, port] | ["" | "http", name, port] => (false, *name, *port),
        ["https", name, port] => (true, *name, *port),
        _ => return None,
    };
    Some((https, name, (!port.is_empty()).then_some(port)))
}

/// `pods/exec` and `pods/attach`.
pub(super) fn session(context: &mut Context<'_>) -> Result<Step, Status> {
    let object = existing(context)?;
    let pod = value_of(context, object);
    let container = log::container(&pod, context.request.param("container").unwrap_or_default())?;
    let node = node_of(context)?;
    let tty = flag(context.request, "tty");
    let wants = |name: &str| flag(context.request, name);
    // A terminal has one output.
    let streams =
        SessionStreams { stdin: wants("stdin"), stdout: wants("stdout"), stderr: wants("stderr") && !tty, tty };
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let command: Vec<String> =
        context.request.query.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone()).collect();
    let is_exec = context.path.subresource == "exec";
    if is_exec && command.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    let uid = object.metadata().uid.clone().unwrap_or_else(|| Uid::from(""));
    let pod = (context.path.namespace.clone(), context.path.name.clone(), uid);
    Ok(Step::Tunnel(TunnelSpec::Session { node, pod, container, command: is_exec.then_some(command), streams }))
}

/// The node that the pod of the path runs on.
fn node_of(context: &Context<'_>) -> Result<String, Status> {
    let pod = value_of(context, existing(context)?);
    match pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        Some(node) => Ok(node.to_owned()),
        None => Err(Status::bad_request(format!("pod {} does not have a host assigned", context.path.name))),
    }
}
