//! Watches: selectors, bookmarks, slices, and falling behind.

use std::time::Duration;

use coracle_api::Method;
use serde_json::{Value, json};

use crate::harness::{MAPS, Server, config_map};

fn kinds_of(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            let metadata = &event["object"]["metadata"];
            format!("{} {}", event["type"].as_str().unwrap(), metadata["name"].as_str().unwrap_or("-"))
        })
        .collect()
}

#[test]
fn a_watch_tells_when_an_object_begins_and_ceases_to_match() {
    let mut server = Server::new();
    let mut watcher =
        server.watch(&format!("{MAPS}?watch=true&labelSelector=app%3Dx&resourceVersion={}", server.view().revision()));
    server.ok(Method::Post, MAPS, json!({"metadata": {"name": "a"}}));
    let label = |value: Value| json!({"metadata": {"labels": {"app": value}}});
    for value in [json!("x"), json!("x"), json!("y")] {
        server.merge(&format!("{MAPS}/a"), label(value));
    }
    let (events, closed) = server.poll(&mut watcher);
    assert_eq!((kinds_of(&events), closed), (vec!["ADDED a".into(), "DELETED a".into()], false));
    let last = events[1]["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(last, server.view().revision().to_string());
}

#[test]
fn a_watch_sends_bookmarks_each_minute_and_before_its_end() {
    let mut server = Server::new();
    let path = format!(
        "{MAPS}?watch=true&allowWatchBookmarks=true&timeoutSeconds=90&resourceVersion={}",
        server.view().revision()
    );
    let mut watcher = server.watch(&path);
    let mut told = Vec::new();
    for second in 1..=90 {
        server.advance(Duration::from_secs(1));
        let (events, closed) = server.poll(&mut watcher);
        told.extend(events.iter().map(|_| second));
        assert_eq!(closed, second == 90);
    }
    assert_eq!(told, [60, 88]);
}

#[test]
fn a_long_backlog_is_told_in_slices() {
    let mut server = Server::new();
    let revision = server.view().revision();
    for index in 0..300 {
        server.ok(Method::Post, MAPS, config_map(&format!("c{index}"), "1"));
    }
    let mut watcher = server.watch(&format!("{MAPS}?watch=true&resourceVersion={revision}"));
    let first = watcher.poll(&server.view(), server.now);
    assert_eq!((first.frames.len(), first.wake_at), (256, Some(server.now.mono)));
    let second = watcher.poll(&server.view(), server.now);
    assert_eq!(second.frames.len(), 44);
    assert!(second.wake_at > Some(server.now.mono));
}

#[test]
fn what_changes_while_a_watch_tells_what_was_there_is_told_next() {
    let mut server = Server::new();
    for index in 0..256 {
        server.ok(Method::Post, MAPS, config_map(&format!("c{index}"), "1"));
    }
    let mut watcher = server.watch(&format!("{MAPS}?watch=true"));
    server.ok(Method::Post, MAPS, config_map("late", "1"));
    let first = watcher.poll(&server.view(), server.now);
    assert_eq!((first.frames.len(), first.wake_at), (256, Some(server.now.mono)));
    let (events, _) = server.poll(&mut watcher);
    assert_eq!(kinds_of(&events), ["ADDED late"]);
}

#[test]
fn a_watcher_that_falls_out_of_the_window_is_told_to_list_again() {
    let mut server = Server::new();
    let mut watcher = server.watch(&format!("{MAPS}?watch=true&resourceVersion={}", server.view().revision()));
    server.ok(Method::Post, MAPS, config_map("a", "1"));
    server.advance(Duration::from_mins(10));
    server.ok(Method::Post, MAPS, config_map("b", "1"));
    let (events, closed) = server.poll(&mut watcher);
    assert_eq!((events.len(), closed), (1, true));
    assert_eq!((&events[0]["type"], &events[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(events[0]["object"]["reason"], "Expired");
}

#[test]
fn a_watch_of_a_deprecated_kind_carries_its_warning() {
    let mut server = Server::new();
    let watcher = server.watch("/api/v1/endpoints?watch=true");
    let warning = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    assert!(watcher.headers().contains(&("warning", warning.to_owned())));
}
