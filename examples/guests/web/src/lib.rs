//! The guide's web application as a Wasm guest: a `wasi:http` service that checks its configuration before it serves.
//!
//! Its two binaries are the two releases that the guide rolls between. They differ in one constant.

mod config;
mod database;
mod fetch;

use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

use wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam};

use crate::config::Config;

/// What runs once, before the first request: connects to the database with the configured password.
/// A failure ends the process with exit code 1, as it would any web application's.
pub fn start(version: &str) {
    println!("express-api {version} is starting");
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => fail(&error.to_string()),
    };
    match database::connect(&config) {
        Ok(()) => println!("connected to {} as {}", config.database_host, config.database_user),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(reason: &str) -> ! {
    eprintln!("DatabaseConnectionError: {reason}");
    std::process::exit(1)
}

/// Answers one request: `/` greets, `/healthz` is for probes, `/fetch?HOST` asks another service and passes its answer
/// on, `/wait/MILLISECONDS` takes its time, and two pages show what becomes of them: `/crash` panics, and `/memory/MEBIBYTES`
/// takes so much.
pub fn handle(version: &str, request: &IncomingRequest, out: ResponseOutparam) {
    let path = request.path_with_query().unwrap_or_else(|| "/".to_owned());
    let (page, query) = path.split_once('?').unwrap_or((&path, ""));
    let (page, number) = page.rsplit_once('/').filter(|(page, _)| !page.is_empty()).unwrap_or((page, ""));
    let (status, body) = match (request.method(), page) {
        (Method::Get | Method::Head, "/") => (200, greeting(version)),
        (Method::Get | Method::Head, "/healthz") => (200, "ok\n".to_owned()),
        (Method::Get, "/fetch") => match fetch::get(query) {
            Ok(body) => (200, body),
            Err(error) => (502, format!("cannot fetch http://{query}/: {error}\n")),
        },
        (Method::Get, "/wait") => numbered(number, wait),
        (Method::Get, "/crash") => panic!("asked to crash"),
        (Method::Get, "/memory") => numbered(number, take),
        (Method::Get | Method::Head, _) => (404, format!("no such page: {path}\n")),
        _ => (405, "only GET is understood here\n".to_owned()),
    };
    respond(out, status, &body);
    if path != "/healthz" {
        println!("{status} {path}");
    }
}

/// What a page answers that is told a number.
fn numbered(number: &str, page: impl FnOnce(u32) -> String) -> (u16, String) {
    number.parse().map_or_else(|_| (400, format!("no number: {number}\n")), |number| (200, page(number)))
}

fn wait(milliseconds: u32) -> String {
    std::thread::sleep(Duration::from_millis(milliseconds.into()));
    format!("waited for {milliseconds} ms\n")
}

fn take(mebibytes: u32) -> String {
    let taken = vec![1_u8; (mebibytes as usize) << 20];
    format!("took {} bytes\n", black_box(taken).len())
}

fn greeting(version: &str) -> String {
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello from express-api".to_owned());
    let pod = std::env::var("HOSTNAME").unwrap_or_else(|_| "an unnamed pod".to_owned());
    format!("{greeting} {version}, served by {pod}\n")
}

/// Sends a response. A client that has gone away is none of this guest's business, so a failed write ends it quietly.
fn respond(out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.set("content-type", &[b"text/plain; charset=utf-8".to_vec()]);
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("the codes above are valid");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().expect("the stream is taken once");
    let sent = stream.write_all(text.as_bytes()).and_then(|()| Write::flush(&mut stream));
    drop(stream);
    if sent.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}
