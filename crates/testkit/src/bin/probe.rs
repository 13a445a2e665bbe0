//! `gantry-probe`: a static program with many small behaviours, the only content of the image `probe`.
//!
//! It needs nothing of its root file system, so what it reports is what the engine has set up.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Bytes of one write or read of a stream.
const BLOCK: usize = 256 << 10;
/// Datagrams on their way at once, and the bytes of each.
const WINDOW: usize = 32;
const DATAGRAM: usize = 1200;
/// Longest wait for a server that is not up yet, and for a datagram that may be lost.
const SERVER: Duration = Duration::from_secs(10);
const LOST: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |n: usize| words.get(n).map_or("", String::as_str);
    let number = |n: usize| word(n).parse::<u64>().unwrap_or(0);
    match word(0) {
        "" | "true" => {}
        "exit" => return ExitCode::from(u8::try_from(number(1)).unwrap_or(255)),
        "env" => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        "args" => words.iter().for_each(|word| println!("{word}")),
        "echo" => println!("{}", words[1..].join(" ")),
        "warn" => eprintln!("{}", words[1..].join(" ")),
        "cat" => copy_input(),
        "flood" => flood(number(1), number(2).max(2)),
        "sleep" => std::thread::sleep(Duration::from_secs(number(1))),
        "ticks" => ticks(number(1)),
        "wait" => wait_for_ever(),
        "descriptors" => list("/proc/self/fd"),
        "list" => list(word(1)),
        "read" => print!("{}", std::fs::read_to_string(word(1)).unwrap_or_else(|e| e.to_string())),
        "write" => return report(std::fs::write(word(1), word(2))),
        "fork" => fork(number(1)),
        "fork-bomb" => fork_bomb(),
        "udp-echo" => return report(udp_echo(number(1))),
        "dns-flood" => return report(dns_flood(word(1), Duration::from_secs(number(2)))),
        "udp-flood" => return report(udp_flood(word(1), Duration::from_secs(number(2)))),
        "tcp-drain" => return report(tcp_drain(number(1))),
        "tcp-send" => return report(tcp_send(word(1), Duration::from_secs(number(2)))),
        "udp-ask" => return report(udp_ask(word(1), word(2))),
        "unix-ask" => return report(unix_ask(word(1), word(2))),
        "socket" => return report(sys::seccomp::socket_of_register(number(1)).map(drop)),
        "allocate" => allocate(number(1)),
        other => {
            eprintln!("gantry-probe: unknown word {other}");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn report(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Standard input to standard output, then the number of bytes on standard error.
fn copy_input() {
    let copied = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::stdout().lock());
    eprintln!("{} bytes", copied.unwrap_or(0));
}

/// `total` bytes in lines of `width` bytes.
fn flood(total: u64, width: u64) {
    let line = [vec![b'x'; usize::try_from(width - 1).unwrap_or(99)], vec![b'\n']].concat();
    let lines_per_write = (65536 / line.len()).max(1);
    let block = line.repeat(lines_per_write);
    let mut out = std::io::stdout().lock();
    let mut left = usize::try_from(total).unwrap_or(usize::MAX);
    while left > 0 {
        let size = left.min(block.len());
        if out.write_all(&block[..size]).is_err() {
            return;
        }
        left -= size;
    }
}

/// A counter, one line every `pause` milliseconds (10 when 0).
fn ticks(pause: u64) {
    for n in 0.. {
        println!("tick {n}");
        std::thread::sleep(Duration::from_millis(if pause == 0 { 10 } else { pause }));
    }
}

/// As PID 1 without handlers it ignores SIGTERM; reads its input so that closing it is seen.
fn wait_for_ever() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn list(dir: &str) {
    let mut found: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let target = std::fs::read_link(entry.path()).map(|t| format!(" -> {}", t.display())).unwrap_or_default();
            format!("{}{target}", entry.file_name().display())
        })
        .collect();
    found.sort();
    println!("{}", found.join("\n"));
}

/// Starts `count` sleeping children and says how many could be started.
fn fork(count: u64) {
    let started = (0..count).map_while(|_| Command::new("/proc/self/exe").args(["sleep", "100"]).spawn().ok()).count();
    println!("{started} started");
    std::thread::sleep(Duration::from_secs(100));
}

/// Forks without end; every child does the same.
fn fork_bomb() {
    println!("boom");
    loop {
        if Command::new("/proc/self/exe").arg("fork-bomb").spawn().is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends every datagram back.
fn udp_echo(port: u64) -> std::io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", u16::try_from(port).unwrap_or(0)))?;
    let mut buffer = [0; 65536];
    loop {
        let (size, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..size], from)?;
    }
}

/// Sends one datagram and prints the answer.
fn udp_ask(address: &str, text: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(address)?;
    socket.send(text.as_bytes())?;
    let mut buffer = [0; 65536];
    let size = socket.recv(&mut buffer)?;
    println!("{}", String::from_utf8_lossy(&buffer[..size]));
    Ok(())
}

/// Sends bytes, as hexadecimal digits, over a unix socket and prints the answer the same way: a length of 32 bits and so many bytes.
fn unix_ask(path: &str, digits: &str) -> std::io::Result<()> {
    let malformed = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
    let pairs = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16));
    let bytes = pairs.collect::<Result<Vec<u8>, _>>().map_err(malformed)?;
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(SERVER))?;
    stream.write_all(&bytes)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap_or(0).min(BLOCK)];
    stream.read_exact(&mut answer)?;
    answer.iter().for_each(|byte| print!("{byte:02x}"));
    println!();
    Ok(())
}

/// Keeps a window of queries for the addresses of a name on their way to 127.0.0.11 for so long; prints how many answers with
/// an address came.
fn dns_flood(name: &str, time: Duration) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(LOST))?;
    socket.connect("127.0.0.11:53")?;
    let (query, mut buffer) = (dns::message::query(1, name, dns::message::kind::A), [0; 512]);
    let (end, mut answers, mut free) = (Instant::now() + time, 0u64, WINDOW);
    while Instant::now() < end {
        for _ in 0..free {
            let _ = socket.send(&query);
        }
        free = match socket.recv(&mut buffer) {
            Ok(length) => {
                answers += u64::from(length > query.len());
                1
            }
            Err(_) => WINDOW,
        };
    }
    println!("{answers}");
    Ok(())
}

/// Keeps a window of datagrams on their way to an echo for so long; prints the bytes that came back.
fn udp_flood(address: &str, time: Duration) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(LOST))?;
    socket.connect(address)?;
    let (datagram, mut buffer) = ([b'x'; DATAGRAM], [0; DATAGRAM]);
    let (end, mut bytes, mut free) = (Instant::now() + time, 0, WINDOW);
    while Instant::now() < end {
        for _ in 0..free {
            // A server that is not up yet shows as an error of the send after.
            let _ = socket.send(&datagram);
        }
        match socket.recv(&mut buffer) {
            Ok(size) => (bytes, free) = (bytes + size, 1),
            Err(_) => free = WINDOW,
        }
    }
    println!("{bytes}");
    Ok(())
}

/// Reads every connection to its end.
fn tcp_drain(port: u64) -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", u16::try_from(port).unwrap_or(0)))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let mut buffer = vec![0; BLOCK];
            while matches!(stream.read(&mut buffer), Ok(1..)) {}
        });
    }
    Ok(())
}

/// Writes for so long and waits until everything was read; prints bytes and microseconds.
fn tcp_send(address: &str, time: Duration) -> std::io::Result<()> {
    let patience = Instant::now() + SERVER;
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > patience => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let (block, begin, mut bytes) = (vec![b'x'; BLOCK], Instant::now(), 0);
    while begin.elapsed() < time {
        bytes += stream.write(&block)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    println!("{bytes} {}", begin.elapsed().as_micros());
    Ok(())
}

/// Fills memory of so many bytes.
fn allocate(bytes: u64) {
    let block = vec![1_u8; usize::try_from(bytes).unwrap_or(0)];
    println!("{} bytes", block.iter().map(|b| u64::from(*b)).sum::<u64>());
}
