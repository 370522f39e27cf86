//! The requests in `tests/data/requests.txt` against the answers in `tests/data/answers.txt`.
//!
//! The answers are those of a kube-apiserver 1.36 with its controllers, masked. With `RECORDING=<file>` in the environment the
//! answers are made anew out of a raw recording.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use coracle_api::{Method, Request, Response, UserInfo};
use serde_json::Value;

use crate::harness::{Reply, Server, bytes, request};
use crate::masking::{mask, masked};

const REQUESTS: &str = include_str!("../data/requests.txt");
const CONTROLLERS: &str = include_str!("../data/controllers.txt");
const ANSWERS: &str = include_str!("../data/answers.txt");

/// Answers that differ, each with its reason.
const DIFFERENT: &[(&str, &str)] = &[
    ("table roles", "the default roles are made by the control plane, which this server is without"),
    ("jwks", "tokens are signed with ES256 here, so the key is of another type"),
    ("oidc", "tokens are signed with ES256 here"),
];

/// Headers that are compared where the recording has headers.
const HEADERS: [&str; 5] = ["warning", "cache-control", "vary", "etag", "location"];

/// An answer in the form in which it is compared.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    /// The code and the content type.
    head: String,
    headers: Vec<String>,
    documents: Vec<Value>,
}

impl Answer {
    fn text(&self) -> String {
        let mut text = self.head.clone();
        for header in &self.headers {
            write!(text, "\n{header}").unwrap();
        }
        for document in &self.documents {
            write!(text, "\n\n{document}").unwrap();
        }
        text
    }

    fn parse(block: &str) -> Self {
        let (head, body) = block.split_once("\n\n").unwrap_or((block, ""));
        let mut lines = head.lines();
        let head = lines.next().unwrap_or_default().trim().to_owned();
        let headers = lines.map(str::to_owned).collect();
        let documents = body.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap());
        Self { head, headers, documents: documents.collect() }
    }
}

fn blocks(text: &str) -> Vec<(String, String)> {
    text.split(">>> ")
        .skip(1)
        .map(|block| {
            let (name, rest) = block.split_once('\n').unwrap_or((block, ""));
            (name.trim().to_owned(), rest.trim_end().to_owned())
        })
        .collect()
}

/// Reads a request; `None` when nobody knows who asks, which is the driver's to answer.
fn parse_request(block: &str) -> Option<Request> {
    let (head, body) = block.split_once("\n\n").unwrap_or((block, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let method = match method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        other => panic!("unknown method {other}"),
    };
    let mut request = request(method, path);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        match (name, value) {
            ("as", "admin") => {}
            ("as", "nobody") => request.user = UserInfo::anonymous(),
            ("as", _) => return None,
            ("content-type", value) => request.content_type = Some(value.into()),
            ("accept", value) => request.accept = Some(value.into()),
            ("user-agent", value) => request.user_agent = Some(value.into()),
            (name, value) => request.headers.push((name.into(), value.into())),
        }
    }
    if !body.is_empty() {
        request.body = bytes(body);
    }
    Some(request)
}

fn documents(text: &str) -> Vec<Value> {
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match stream.collect::<Result<Vec<Value>, _>>() {
        Ok(mut documents) => {
            documents.iter_mut().for_each(mask);
            documents
        }
        Err(_) if text.trim().is_empty() => Vec::new(),
        Err(_) => vec![Value::from(text.trim())],
    }
}

fn answer_of(response: &Response, headers: bool) -> Answer {
    let content_type = response.headers.iter().find(|(name, _)| *name == "content-type").map_or("", |(_, value)| value);
    let mut answer =
        Answer { head: format!("{} {content_type}", response.status).trim().to_owned(), ..Answer::default() };
    if headers {
        let compared = response.headers.iter().filter(|(name, _)| HEADERS.contains(name));
        answer.headers = compared.map(|(name, value)| masked_header(name, value)).collect();
        answer.headers.sort();
    } else {
        answer.documents = documents(&String::from_utf8_lossy(&response.bytes()));
    }
    answer
}

fn masked_header(name: &str, value: &str) -> String {
    match (name, value.split_once("hash=")) {
        ("etag", _) => "etag: ETAG".into(),
        (_, Some((before, _))) => format!("{name}: {before}hash=ETAG"),
        _ => format!("{name}: {}", masked(value)),
    }
}

/// The answer in a block of a raw recording.
fn recorded(block: &str) -> Answer {
    let (body, last) = block.trim_end().rsplit_once('\n').unwrap_or(("", block));
    let head = last.trim().trim_start_matches('<').trim_end_matches('>').trim().to_owned();
    if !body.starts_with("HTTP/") {
        return Answer { head, documents: documents(body), ..Answer::default() };
    }
    let mut headers: Vec<String> = body
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| HEADERS.contains(name))
        .map(|(name, value)| masked_header(name, value.trim()))
        .collect();
    headers.sort();
    Answer { head, headers, documents: Vec::new() }
}

fn run(server: &mut Server, request: Request, headers: bool) -> Answer {
    match server.run(request) {
        Reply::Response(response) => answer_of(&response, headers),
        Reply::Tunnel(tunnel) => panic!("a recorded request leads to {tunnel:?}"),
        Reply::Watch(mut watcher) => {
            let (mut told, closed) = server.poll(&mut watcher);
            if !closed {
                server.advance(Duration::from_secs(1));
                told.extend(server.poll(&mut watcher).0);
            }
            told.iter_mut().for_each(mask);
            Answer { head: format!("200 {}", watcher.content_type()), documents: told, ..Answer::default() }
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the environment says when the answers are made anew")]
fn every_answer_is_that_of_a_real_api_server() {
    if let Ok(path) = std::env::var("RECORDING") {
        return remake(&path);
    }
    let answers = blocks(ANSWERS);
    let different: BTreeMap<&str, &str> = DIFFERENT.iter().copied().collect();
    let mut server = Server::new();
    server.advance(Duration::from_secs(26));
    let mut report = String::new();
    for ((name, block), (answer_name, answer)) in blocks(REQUESTS).into_iter().zip(answers) {
        assert_eq!(name, answer_name);
        let expected = Answer::parse(&answer);
        controllers_write(&mut server, &name);
        let Some(request) = parse_request(&block) else { continue };
        let found = run(&mut server, request, !expected.headers.is_empty());
        match (found == expected, different.get(name.as_str())) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(reason)) => writeln!(report, "\n{name}: is equal, though: {reason}").unwrap(),
            (false, None) => {
                writeln!(report, "\n{name}\n--- recorded\n{}\n--- answered\n{}", expected.text(), found.text())
                    .unwrap();
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}

/// What the controllers of the recorded cluster wrote before a request.
#[track_caller]
fn controllers_write(server: &mut Server, name: &str) {
    for (before, block) in blocks(CONTROLLERS) {
        if before == name {
            let request = parse_request(&block).unwrap();
            let seconds = request.header("advance").map_or(0, |seconds| seconds.parse().unwrap());
            server.advance(Duration::from_secs(seconds));
            let response = server.response(request);
            assert!(response.is_success(), "before {name}: {}", String::from_utf8_lossy(&response.bytes()));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it reads a recording and writes the answers")]
fn remake(path: &str) {
    let raw = std::fs::read_to_string(path).unwrap();
    let mut text = String::new();
    for (name, block) in blocks(&raw) {
        writeln!(text, ">>> {name}\n{}\n", recorded(&block).text()).unwrap();
    }
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/answers.txt"), text).unwrap();
}
