//! `pods/log`: which container's log, and which part of it.

use std::fmt::Write as _;

use coracle_api::{Request, Response, Status, Uid};
use coracle_base::Timestamp;
use serde_json::Value;

use crate::context::{Context, Step};
use crate::error::{field_cause, forbidden_cause, not_supported_cause};
use crate::machine::{LogOptions, TunnelSpec};
use crate::request::options::flag;
use crate::verb::create::value_of;
use crate::verb::get::existing;

/// Checks what is asked, and leads to the node that has the log.
pub(super) fn log(context: &mut Context<'_>) -> Result<Step, Status> {
    let options = parse(context.request)?;
    let object = existing(context)?;
    let pod = value_of(context, object);
    let container = container(&pod, context.request.param("container").unwrap_or_default())?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // No node has anything to tell yet.
        return Ok(Step::Respond(Response { status: 204, headers: Vec::new(), body: Vec::new() }));
    }
    check_state(&pod, &container, &options)?;
    let uid = object.metadata().uid.clone().unwrap_or_else(|| Uid::from(""));
    let pod = (context.path.namespace.clone(), context.path.name.clone(), uid);
    Ok(Step::Tunnel(TunnelSpec::Log { node: node.to_owned(), pod, container, options }))
}

/// Reads `PodLogOptions`.
fn parse(request: &Request) -> Result<LogOptions, Status> {
    let mut causes = Vec::new();
    let mut number = |name: &str, least: i64| -> Option<i64> {
        let text = request.param(name).filter(|text| !text.is_empty())?;
        match text.parse::<i64>() {
            Ok(number) if number >= least => Some(number),
            Ok(number) => {
                let message = format!("Invalid value: {number}: must be greater than or equal to {least}");
                causes.push(field_cause("FieldValueInvalid", name, message));
                None
            }
            Err(_) => {
                let message = format!("Invalid value: {text:?}: must be an integer");
                causes.push(field_cause("FieldValueInvalid", name, message));
                None
            }
        }
    };
    let (tail, bytes, since) = (number("tailLines", 0), number("limitBytes", 1), number("sinceSeconds", 1));
    let mut since_time = None;
    if let Some(text) = request.param("sinceTime").filter(|text| !text.is_empty()) {
        match Timestamp::parse(text) {
            Ok(_) if since.is_some() => {
                causes.push(forbidden_cause("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
            }
            Ok(time) => since_time = Some(time),
            Err(error) => {
                causes.push(field_cause("FieldValueInvalid", "sinceTime", format!("Invalid value: {text:?}: {error}")));
            }
        }
    }
    let stream = match request.param("stream") {
        None | Some("" | "All") => None,
        Some(one @ ("Stdout" | "Stderr")) => Some(one.to_owned()),
        Some(other) => {
            causes.push(not_supported_cause("stream", other, &["All", "Stderr", "Stdout"]));
            None
        }
    };
    let instance = request.param("instance").filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(other) = instance.as_deref().filter(|one| !["first", "1", "2", "3", "4", "5"].contains(one)) {
        causes.push(not_supported_cause("instance", other, &["first", "1", "2", "3", "4", "5"]));
    }
    if !causes.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", "", causes));
    }
    Ok(LogOptions {
        follow: flag(request, "follow"),
        previous: flag(request, "previous"),
        instance,
        since_seconds: since,
        since_time,
        tail_lines: tail.map(i64::cast_unsigned),
        limit_bytes: bytes.map(i64::cast_unsigned),
        timestamps: flag(request, "timestamps"),
        stream,
    })
}

/// The container that is meant: the one that is named, or the only one.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if asked.is_empty() {
        if let [only] = main.as_slice() {
            return Ok(only.clone());
        }
        let mut message =
            format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
        if !init.is_empty() {
            let init = init.join(" ");
            write!(message, " or one of the init containers: [{init}]").expect("a text is written to memory");
        }
        return Err(Status::bad_request(message));
    }
    if main.iter().chain(&init).chain(&ephemeral).any(|one| one == asked) {
        return Ok(asked.to_owned());
    }
    Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
}

/// A container that never ran has no log, and one that never restarted has no previous one.
fn check_state(pod: &Value, container: &str, options: &LogOptions) -> Result<(), Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let found = lists
        .iter()
        .flat_map(|list| pod["status"][*list].as_array().into_iter().flatten())
        .find(|status| status["name"] == container);
    let Some(status) = found else {
        let why = format!("container {container:?} in pod {name:?} is not available");
        return Err(Status::bad_request(why));
    };
    let ended_before = !status["lastState"]["terminated"].is_null();
    if options.previous || options.instance.is_some() {
        let kept = ended_before || (options.instance.is_some() && !status["state"]["terminated"].is_null());
        return if kept {
            Ok(())
        } else {
            let why = format!("previous terminated container {container:?} in pod {name:?} not found");
            Err(Status::bad_request(why))
        };
    }
    let state = &status["state"];
    let Some(reason) = state["waiting"]["reason"].as_str().filter(|_| !ended_before) else { return Ok(()) };
    if !state["running"].is_null() || !state["terminated"].is_null() {
        return Ok(());
    }
    let why = match reason {
        "ErrImagePull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        other => other.to_owned(),
    };
    Err(Status::bad_request(format!("container {container:?} in pod {name:?} is waiting to start: {why}")))
}
