//! Subresources that join the client to a byte stream: port-forward and proxy; exec and attach are not here yet.

use coracle_api::{Status, Uid};

use crate::context::{Context, Step};
use crate::error;
use crate::machine::TunnelSpec;
use crate::verb::create::value_of;
use crate::verb::get::existing;

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

/// `pods/exec` and `pods/attach`: what is wrong with the request is told first.
pub(super) fn not_yet(context: &mut Context<'_>) -> Result<Step, Status> {
    node_of(context)?;
    let preposition = if context.path.subresource == "exec" { "into" } else { "to" };
    let what = format!("{} {preposition} a container", context.path.subresource);
    Err(error::not_here(&what))
}

/// The node that the pod of the path runs on.
fn node_of(context: &Context<'_>) -> Result<String, Status> {
    let pod = value_of(context, existing(context)?);
    match pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        Some(node) => Ok(node.to_owned()),
        None => Err(Status::bad_request(format!("pod {} does not have a host assigned", context.path.name))),
    }
}
