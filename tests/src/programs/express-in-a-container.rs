//! The examples' web application (`examples/guests/web`) as a program for a container: the same pages, the same texts, the same check of its
//! configuration. Asked to end, it takes in who waits already, answers what it has begun and ends.

use std::convert::Infallible;
use std::env::var;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

const PORT: u16 = 3000;
/// How long the first request of a connection is waited for at the end.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The account that the database was created with.
const ACCOUNT: (&str, &str) = ("express", "correct-horse");

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let version = var("VERSION").unwrap_or_default();
    say(&format!("express-api {version} is starting"));
    let setting = |name| var(name).map_err(|_| format!("the environment variable {name} is not set"));
    let connected = setting("DB_HOST").and_then(|host| {
        let (user, password) = (setting("DB_USER")?, setting("DB_PASSWORD")?);
        let is_known = (user.as_str(), password.as_str()) == ACCOUNT;
        let refused = || format!("{host}: password authentication failed for user \"{user}\"");
        if is_known { Ok(format!("connected to {host} as {user}")) } else { Err(refused()) }
    });
    match connected {
        Ok(connected) => say(&connected),
        Err(why) => {
            say(&format!("DatabaseConnectionError: {why}"));
            return ExitCode::FAILURE;
        }
    }
    match serve(&version).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("cannot listen: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line of its log.
fn say(line: &str) {
    use std::io::Write as _;
    // Without anybody who reads it there is nothing to do about it.
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn serve(version: &str) -> std::io::Result<()> {
    let mut asked_to_end = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let version: Arc<str> = version.into();
    let ending = watch::Sender::new(false);
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                tokio::spawn(connection(stream, Arc::clone(&version), ending.subscribe()));
            },
            _ = asked_to_end.recv() => break,
        }
    }
    // The kernel has accepted these; to close without a word would fail them.
    let listener = listener.into_std()?;
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        tokio::spawn(connection(TcpStream::from_std(stream)?, Arc::clone(&version), ending.subscribe()));
    }
    drop(listener);
    ending.send_replace(true);
    ending.closed().await;
    Ok(())
}

async fn connection(stream: TcpStream, version: Arc<str>, mut ending: watch::Receiver<bool>) {
    let begun = watch::Sender::new(false);
    let pages = service_fn(|request: Request<Incoming>| {
        let version = Arc::clone(&version);
        begun.send_replace(true);
        async move { Ok::<_, Infallible>(answer(&version, &request).await) }
    });
    let mut connection = std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), pages));
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = ending.wait_for(|ending| *ending) => {}
    }
    // A client that has just connected is about to ask.
    let mut first = begun.subscribe();
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = timeout(FIRST_WAIT, first.wait_for(|begun| *begun)) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(version: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let (page, number) = path.rsplit_once('/').filter(|(page, _)| !page.is_empty()).unwrap_or((path, ""));
    let number = number.parse::<u32>().ok();
    let (status, body) = match (request.method(), page, number) {
        (&Method::GET, "/", _) => (200, greeting(version)),
        (&Method::GET, "/healthz", _) => (200, "ok\n".to_owned()),
        (&Method::GET, "/wait", Some(milliseconds)) => {
            tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
            (200, format!("waited for {milliseconds} ms\n"))
        }
        (&Method::GET, "/memory", Some(mebibytes)) => {
            let taken = vec![1_u8; (mebibytes as usize) << 20];
            (200, format!("took {} bytes\n", std::hint::black_box(taken).len()))
        }
        _ => (404, format!("no such page: {}\n", request.uri())),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status.try_into().expect("the codes above are valid");
    response
}

fn greeting(version: &str) -> String {
    let greeting = var("GREETING").unwrap_or_else(|_| "Hello from express-api".to_owned());
    let pod = var("HOSTNAME").unwrap_or_else(|_| "an unnamed pod".to_owned());
    format!("{greeting} {version}, served by {pod}\n")
}
