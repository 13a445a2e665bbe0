//! A client against buses that are no good, and one that is.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use dbus::{Address, Call, Connection, Error, HEAD, Value};

/// What a bus does with a client that came.
type Manner = fn(UnixStream);

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

fn met<T>(manner: Manner, client: impl FnOnce(&[Address]) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || manner(listener.accept().unwrap().0));
    let result = client(&[Address::Path(Path::new("/no/bus").into()), Address::Path(path)]);
    server.join().unwrap();
    result
}

/// Reads the handshake.
fn greet(stream: &mut UnixStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    assert!(text.starts_with(b"\0AUTH EXTERNAL "));
    stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
    let mut begin = [0; 7];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"BEGIN\r\n");
}

/// Reads a call; its number and its method.
fn take(stream: &mut UnixStream) -> (u32, String) {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).unwrap();
    let mut bytes = head.to_vec();
    bytes.resize(dbus::length(&head).unwrap(), 0);
    stream.read_exact(&mut bytes[HEAD..]).unwrap();
    let message = dbus::decode(&bytes).unwrap();
    (message.serial, message.member.unwrap())
}

/// A message without values; of kind 2 the reply to a call, 3 an error, 4 a signal.
fn message(kind: u8, reply_to: u32) -> Vec<u8> {
    let mut bytes = vec![b'l', kind, 0, 1, 0, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 5, 1, b'u', 0];
    bytes.extend(reply_to.to_le_bytes());
    bytes
}

fn ask(connection: &mut Connection) -> Result<Vec<Value>, Error> {
    connection.call(&Call { destination: "a.b", path: "/a", interface: "a.b", member: "Do", body: &[] })
}

fn hello(stream: &mut UnixStream) {
    greet(stream);
    let (serial, method) = take(stream);
    assert_eq!(method, "Hello");
    stream.write_all(&message(2, serial)).unwrap();
}

#[test]
fn replies_errors_and_signals_are_told_apart() {
    let manner = |mut stream: UnixStream| {
        hello(&mut stream);
        let (serial, _) = take(&mut stream);
        // A signal, an answer to somebody else, then the answer, in pieces.
        let bytes = [message(4, 0), message(2, serial + 1), message(2, serial)].concat();
        bytes.chunks(5).for_each(|piece| stream.write_all(piece).unwrap());
        let (serial, _) = take(&mut stream);
        stream.write_all(&message(3, serial)).unwrap();
        stream.write_all(&message(4, 0)).unwrap();
        let _ = stream.read(&mut [0]);
    };
    met(manner, |addresses| {
        let mut connection = Connection::open(addresses, LONG).unwrap();
        assert_eq!(ask(&mut connection).unwrap(), []);
        assert!(connection.read_signal().unwrap().is_some());
        let error = ask(&mut connection).unwrap_err();
        assert!(error.is_answer(), "{error}");
        assert!(connection.read_signal().unwrap().is_some());
    });
}

#[test]
fn a_bus_that_is_silent_is_waited_for_no_longer_than_said() {
    let silent: [Manner; 4] = [
        |mut stream| drop(stream.read_to_end(&mut Vec::new())),
        |mut stream| {
            greet(&mut stream);
            drop(stream.read_to_end(&mut Vec::new()));
        },
        // A head without a body.
        |mut stream| {
            hello(&mut stream);
            let (serial, _) = take(&mut stream);
            stream.write_all(&message(2, serial)[..20]).unwrap();
            drop(stream.read_to_end(&mut Vec::new()));
        },
        // Bytes now and then do not make the wait longer.
        |mut stream| {
            greet(&mut stream);
            while stream.write_all(b"l").is_ok() {
                std::thread::sleep(SHORT / 30);
            }
        },
    ];
    for manner in silent {
        let begun = Instant::now();
        let error = met(manner, |addresses| Connection::open(addresses, SHORT).and_then(|mut c| ask(&mut c)));
        assert!(matches!(error, Err(Error::Io(_) | Error::Malformed(_))), "{error:?}");
        assert!(begun.elapsed() >= SHORT / 30);
    }
}

#[test]
fn a_bus_that_says_nonsense_is_left() {
    let nonsense: [Manner; 5] = [
        drop,
        |mut stream| stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap(),
        |mut stream| drop(stream.write_all(&[b'x'; 1 << 16])),
        |mut stream| {
            greet(&mut stream);
            stream.write_all(&[0xff; 64]).unwrap();
        },
        // A message of four gigabytes.
        |mut stream| {
            greet(&mut stream);
            let mut bytes = message(2, 1);
            bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
            stream.write_all(&bytes).unwrap();
        },
    ];
    for manner in nonsense {
        let error = met(manner, |addresses| Connection::open(addresses, LONG).map(drop)).unwrap_err();
        assert!(!error.is_answer(), "{error}");
    }
}

#[test]
fn without_a_bus_that_is_said() {
    for nowhere in [&[][..], &[Address::Path("/no/bus".into())]] {
        let error = Connection::open(nowhere, LONG).unwrap_err();
        assert!(matches!(error, Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound));
    }
}
