//! Datagrams for containers of the tests: `serve PORT` answers each with the machine's name before what it said, `ask ADDRESS:PORT TEXT`
//! sends one until there is an answer, and prints that.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// How long an answer may take, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: usize = 5;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", port] => serve(port.parse().map_err(io::Error::other)?),
        ["ask", address, text] => ask(address, text),
        _ => Err(io::Error::other("serve PORT, or ask ADDRESS:PORT TEXT")),
    }
}

fn serve(port: u16) -> io::Result<()> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        // Who is gone needs no answer.
        let _ = socket.send_to(format!("{}: {text}", name.trim()).as_bytes(), from);
    }
}

fn ask(address: &str, text: &str) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 2048];
    let mut last = io::Error::other("nobody was asked");
    for _ in 0..TRIES {
        socket.send_to(text.as_bytes(), address)?;
        match socket.recv_from(&mut buffer) {
            // An answer counts when it comes from where the question went.
            Ok((length, from)) if from.to_string() == address => {
                return writeln!(io::stdout(), "{}", String::from_utf8_lossy(&buffer[..length]));
            }
            Ok((_, from)) => last = io::Error::other(format!("{from} answered, not {address}")),
            Err(error) => last = error,
        }
    }
    Err(last)
}
