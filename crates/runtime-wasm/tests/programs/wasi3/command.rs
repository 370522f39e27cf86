//! A command of WASI 0.3. Its arguments say what to do.

use wasi3::say;
use wasip3::clocks::monotonic_clock;
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket};
use wasip3::wit_stream;

wasip3::cli::command::export!(Command);

struct Command;

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
        match words.as_slice() {
            ["hello", name] => say(format!("hello {name}\n")).await,
            ["sleep", seconds] => {
                monotonic_clock::wait_for(seconds.parse::<u64>().unwrap() * 1_000_000_000).await;
                say("awake\n".to_owned()).await;
            }
            ["fail"] => return Err(()),
            ["exit", code] => wasip3::cli::exit::exit_with_code(code.parse().unwrap()),
            ["trap"] => panic!("asked to"),
            ["spin"] => loop {
                std::hint::black_box(());
            },
            ["grow"] => {
                let mut kept = Vec::new();
                loop {
                    kept.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            ["serve", port] => serve(port.parse().unwrap()).await,
            ["ask", name, port, question] => _ = ask(name, port.parse().unwrap(), question).await,
            ["insist", name, port, question] => {
                while !ask(name, port.parse().unwrap(), question).await {
                    monotonic_clock::wait_for(50_000_000).await;
                }
            }
            ["udp-serve", port] => udp_serve(port.parse().unwrap()).await,
            ["udp-ask", name, port, question] => udp_ask(name, port.parse().unwrap(), question).await,
            other => panic!("no such task: {other:?}"),
        }
        Ok(())
    }
}

fn at(address: (u8, u8, u8, u8), port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

async fn address_of(name: &str, port: u16) -> IpSocketAddress {
    let mut found = resolve_addresses(name.to_owned()).await;
    while found.is_err() {
        monotonic_clock::wait_for(50_000_000).await;
        found = resolve_addresses(name.to_owned()).await;
    }
    match found.unwrap().remove(0) {
        IpAddress::Ipv4(address) => at(address, port),
        IpAddress::Ipv6(_) => panic!("an address of version 6"),
    }
}

/// Gives back what comes on each connection, two at a time.
async fn serve(port: u16) {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    socket.bind(at((0, 0, 0, 0), port)).unwrap();
    let mut arrivals = socket.listen().unwrap();
    say("listening\n".to_owned()).await;
    while let Some(connection) = arrivals.next().await {
        wasip3::wit_bindgen::spawn_local(async move {
            let (mut from, _) = connection.receive();
            let (mut to, sent) = wit_stream::new();
            let done = connection.send(sent);
            loop {
                let (_, bytes) = from.read(Vec::with_capacity(4096)).await;
                if bytes.is_empty() {
                    break;
                }
                to.write_all(bytes).await;
            }
            drop(to);
            let _ = done.await;
        });
    }
}

async fn ask(name: &str, port: u16, question: &str) -> bool {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    if let Err(error) = socket.connect(address_of(name, port).await).await {
        say(format!("error {error:?}\n")).await;
        return false;
    }
    let (mut to, sent) = wit_stream::new();
    let (from, _) = socket.receive();
    let done = socket.send(sent);
    let question = question.as_bytes().to_vec();
    wasip3::wit_bindgen::spawn_local(async move {
        to.write_all(question).await;
    });
    let answer = from.collect().await;
    done.await.unwrap();
    say(format!("heard {:?}\n", String::from_utf8(answer).unwrap())).await;
    true
}

async fn udp_serve(port: u16) {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).unwrap();
    socket.bind(at((0, 0, 0, 0), port)).unwrap();
    say("bound\n".to_owned()).await;
    loop {
        let (bytes, peer) = socket.receive().await.unwrap();
        socket.send(bytes, Some(peer)).await.unwrap();
    }
}

async fn udp_ask(name: &str, port: u16, question: &str) {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).unwrap();
    socket.send(question.as_bytes().to_vec(), Some(address_of(name, port).await)).await.unwrap();
    let (bytes, _) = socket.receive().await.unwrap();
    say(format!("heard {:?}\n", String::from_utf8(bytes).unwrap())).await;
}
