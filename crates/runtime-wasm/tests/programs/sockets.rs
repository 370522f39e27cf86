//! A program that uses what the standard library makes of sockets, and says what it found. Its arguments say what to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// Prints, and leaves it as the last word of the container.
macro_rules! say {
    ($($words:tt)*) => {
        let words = format!($($words)*);
        println!("{words}");
        let _ = std::fs::write("/dev/termination-log", &words);
    };
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [_, "serve", address] => serve(address),
        [_, "hold", address] => hold(address),
        [_, "pour", address, count] => pour(address, count.parse().unwrap()),
        [_, "ask", to, question] => ask(to, question),
        [_, "insist", to, question] => insist(to, question),
        [_, "take", to, count] => take(to, count.parse().unwrap()),
        [_, "lookup", name] => lookup(name),
        [_, "udp-serve", address] => udp_serve(address),
        [_, "udp-ask", to, question] => udp_ask(to, question),
        [_, "udp-insist", to, question] => udp_insist(to, question),
        [_, "many"] => many(),
        other => panic!("no such task: {other:?}"),
    };
    if let Err(error) = done {
        say!("error {:?}", error.kind());
        std::process::exit(1);
    }
}

/// Answers each line with who sent it.
fn serve(address: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    say!("listening at {}", listener.local_addr()?);
    loop {
        let (mut stream, peer) = listener.accept()?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let answer = format!("{} heard {:?} from {}\n", std::env::var("HOSTNAME").unwrap(), line.trim(), peer.ip());
        // Who only looks whether somebody listens takes no answer.
        let _ = stream.write_all(answer.as_bytes());
    }
}

/// Keeps every connection.
fn hold(address: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    say!("listening at {}", listener.local_addr()?);
    let mut kept = Vec::new();
    loop {
        kept.push(listener.accept()?);
    }
}

/// Gives so many bytes to the first who comes, and says how many it was sent.
fn pour(address: &str, count: usize) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    say!("listening at {}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    let bytes: Vec<u8> = (0..count).map(|number| number as u8).collect();
    stream.write_all(&bytes)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    say!("poured {count}, back {}, the same: {}", back.len(), back == bytes);
    Ok(())
}

fn ask(to: &str, question: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(question.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    say!("from {} at {}: {}", stream.peer_addr()?, stream.local_addr()?.ip(), answer.trim());
    Ok(())
}

/// Asks again while there is nobody.
fn insist(to: &str, question: &str) -> std::io::Result<()> {
    while ask(to, question).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Opens so many connections, and keeps them.
fn take(to: &str, count: usize) -> std::io::Result<()> {
    let mut kept = Vec::new();
    for _ in 0..count {
        kept.push(TcpStream::connect(to)?);
    }
    say!("took {}", kept.len());
    Ok(())
}

fn lookup(name: &str) -> std::io::Result<()> {
    let found: Vec<_> = (name, 80).to_socket_addrs()?.map(|address| address.ip()).collect();
    say!("{name} is {found:?}");
    Ok(())
}

/// Answers each datagram.
fn udp_serve(address: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    say!("bound to {}", socket.local_addr()?);
    let mut buffer = vec![0; 70_000];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        let word = String::from_utf8_lossy(&buffer[..length.min(20)]).into_owned();
        let answer = format!("heard {word:?}, {length} bytes, from {}:{}", peer.ip(), peer.port());
        socket.send_to(answer.as_bytes(), peer)?;
    }
}

/// Sends a datagram from port 6000 and waits for the answer.
fn udp_ask(to: &str, question: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:6000")?;
    let question = match question.strip_prefix("long:") {
        Some(length) => vec![b'x'; length.parse().unwrap()],
        None => question.as_bytes().to_vec(),
    };
    socket.connect(to)?;
    socket.send(&question)?;
    let mut buffer = vec![0; 1_000];
    let length = socket.recv(&mut buffer)?;
    say!("{}", String::from_utf8_lossy(&buffer[..length]));
    Ok(())
}

/// Sends until there is an answer.
fn udp_insist(to: &str, question: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_nonblocking(true)?;
    let mut buffer = vec![0; 1_000];
    loop {
        // Nobody may have the name yet.
        let _ = socket.send_to(question.as_bytes(), to);
        std::thread::sleep(Duration::from_millis(50));
        if let Ok((length, _)) = socket.recv_from(&mut buffer) {
            say!("{}", String::from_utf8_lossy(&buffer[..length]));
            return Ok(());
        }
    }
}

/// Binds sockets until there are no more to be had.
fn many() -> std::io::Result<()> {
    let mut kept = Vec::new();
    loop {
        match UdpSocket::bind("0.0.0.0:0") {
            Ok(socket) => kept.push(socket),
            Err(error) => {
                say!("{} sockets, then {:?}", kept.len(), error.raw_os_error().is_some());
                return Ok(());
            }
        }
    }
}
