//! A rolling update under load: nobody who asks the Service notices it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::harness::Cluster;

const DEPLOYMENT: &str = include_str!("../../examples/web/deployment.yaml");
const CONFIG: &str = include_str!("../../examples/web/configmap.yaml");
const NODE_PORT: u16 = 30982;
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: express-api}
spec:
  type: NodePort
  selector: {app: express-api}
  ports: [{port: 80, targetPort: 3000, nodePort: 30982}]
";
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many more requests a client makes when the rollout is over: the last old pods may still be at their end.
const MORE_MAX: u32 = 1000;

#[test]
fn rolling_from_one_release_to_the_next_under_load_loses_no_request() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.apply(&format!("{CONFIG}\n---\n{DEPLOYMENT}\n---\n{SERVICE}"));
    cluster.kubectl("rollout status deployment express-api-deployment --timeout=60s");
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, answered) = mpsc::channel();
    let clients: Vec<JoinHandle<Answers>> = [Connections::OneARequest, Connections::KeptAlive]
        .into_iter()
        .flat_map(|connections| (0..3).map(move |_| connections))
        .map(|connections| {
            let (stop, sender) = (Arc::clone(&stop), sender.clone());
            thread::spawn(move || ask_until(&stop, connections, &sender))
        })
        .collect();
    for _ in &clients {
        answered.recv_timeout(PATIENCE).unwrap();
    }
    cluster.kubectl("set image deployment/express-api-deployment express-api-container=coracle.dev/examples/web:v2");
    cluster.kubectl("rollout status deployment express-api-deployment --timeout=60s");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let answers = client.join().unwrap();
        assert_eq!(answers.failures, Vec::<String>::new());
        assert!(answers.first.contains(" v1, "), "{answers:?}");
        assert!(answers.last.contains(" v2, "), "{answers:?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    OneARequest,
    KeptAlive,
}

#[derive(Debug, Default)]
struct Answers {
    first: String,
    last: String,
    failures: Vec<String>,
}

/// Asks again and again, says when it has its first answer, and ends with the first answer of the new release after it is
/// told to stop.
fn ask_until(stop: &AtomicBool, connections: Connections, answered: &mpsc::Sender<()>) -> Answers {
    let mut answers = Answers::default();
    let mut connection = None;
    let mut more = MORE_MAX;
    loop {
        match ask(&mut connection, connections) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => {
                if answers.first.is_empty() {
                    answers.first.clone_from(&answer);
                    let _ = answered.send(());
                }
                answers.last = answer;
            }
            Ok(answer) => answers.failures.push(answer),
            Err(error) => {
                answers.failures.push(error.to_string());
                connection = None;
            }
        }
        if stop.load(Ordering::Relaxed) {
            more -= 1;
            if more == 0 || answers.last.contains(" v2, ") {
                return answers;
            }
        }
    }
}

/// One request; the connection is kept where it may be.
fn ask(connection: &mut Option<TcpStream>, connections: Connections) -> std::io::Result<String> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(("127.0.0.1", NODE_PORT))?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: express-api\r\n\r\n")?;
    let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
    // The guest's answers are chunked.
    while !answer.ends_with(b"\r\n0\r\n\r\n") {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            let text = format!("the answer ends after {:?}", String::from_utf8_lossy(&answer));
            return Err(std::io::Error::other(text));
        }
        answer.extend_from_slice(&piece[..count]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if connections == Connections::KeptAlive && !answer.to_lowercase().contains("\r\nconnection: close\r\n") {
        *connection = Some(stream);
    }
    Ok(answer)
}
