//! An engine as its clients see it: a socket, requests on a kept-alive connection, the time they take. The version of the
//! API is one that older engines speak, too.

use std::path::{Path, PathBuf};
use std::time::Instant;

use testkit::http::Connection;

/// Which network a container gets.
#[derive(Clone, Copy)]
pub enum Network {
    /// Only `lo`.
    None,
    /// The default bridge.
    Bridge,
    /// A network of users, [`Engine::bench_network`], with one published port that the engine chooses.
    Published,
    /// The same without a port.
    User,
}

/// Name of the network of users.
const USER_NETWORK: &str = "bench";

impl Network {
    fn mode(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Bridge => "bridge",
            Network::Published | Network::User => USER_NETWORK,
        }
    }

    /// What else HostConfig says.
    fn ports(self) -> &'static str {
        match self {
            Network::Published => r#","PortBindings":{"80/tcp":[{"HostPort":""}]}"#,
            Network::None | Network::Bridge | Network::User => "",
        }
    }
}

/// Times of cycles, in microseconds.
#[derive(Clone, Default)]
pub struct Cycles {
    /// create + start + wait + remove.
    pub whole: Vec<f64>,
    /// start alone.
    pub start: Vec<f64>,
    /// create alone.
    pub create: Vec<f64>,
}

/// All latencies of one engine.
#[derive(Clone, Default)]
pub struct Latencies {
    /// With `--network none`.
    pub none: Cycles,
    /// On the default bridge.
    pub bridge: Cycles,
    /// exec of `true` in a running container.
    pub exec: Vec<f64>,
}

impl Latencies {
    /// Every kind with its name.
    pub fn all(&self) -> Vec<(&'static str, crate::Samples)> {
        [
            ("cycle, none", &self.none.whole),
            ("create, none", &self.none.create),
            ("start, none", &self.none.start),
            ("cycle, bridge", &self.bridge.whole),
            ("start, bridge", &self.bridge.start),
            ("exec", &self.exec),
        ]
        .into_iter()
        .map(|(name, values)| (name, crate::Samples::new(values.clone())))
        .collect()
    }
}

/// One engine.
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// An engine that answers on `socket`.
    pub fn open(socket: &Path) -> Self {
        Self { socket: socket.to_path_buf() }
    }

    /// A connection of its own.
    pub fn connect(&self) -> Client {
        let connection = Connection::open(&self.socket).unwrap_or_else(|e| panic!("{}: {e}", self.socket.display()));
        Client { connection }
    }

    /// Loads an image archive.
    pub fn load(&self, archive: &[u8]) {
        let mut connection = self.connect().connection;
        let head = format!(
            "POST /v1.41/images/load?quiet=1 HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            archive.len()
        );
        connection.send(head.as_bytes()).and_then(|()| connection.send(archive)).expect("the engine takes the archive");
        let head = connection.head().expect("the engine answers");
        connection.body(&head).expect("the answer is whole");
        assert_eq!(head.status, 200, "loading the image");
    }

    /// Where it answers.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Process id of who listens there.
    pub fn pid(&self) -> u32 {
        let stream = std::os::unix::net::UnixStream::connect(&self.socket).expect("the engine accepts");
        let peer = rustix::net::sockopt::socket_peercred(&stream).expect("a unix socket knows its peer");
        peer.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Makes the network that containers of [`Network::User`] join.
    pub fn bench_network(&self) {
        self.connect().post("/v1.41/networks/create", &format!(r#"{{"Name":"{USER_NETWORK}"}}"#), 201);
    }

    /// Removes it.
    pub fn remove_bench_network(&self) {
        self.connect().delete(&format!("/v1.41/networks/{USER_NETWORK}"));
    }

    /// Runs whole cycles one after another on one connection.
    pub fn cycles(&self, rounds: usize, network: Network, found: &mut Cycles) {
        let mut client = self.connect();
        client.cycle(network);
        for _ in 0..rounds {
            let (create, start, whole) = client.cycle(network);
            found.create.push(create);
            found.start.push(start);
            found.whole.push(whole);
        }
    }

    /// Runs execs of `true` in one container.
    pub fn execs(&self, rounds: usize, found: &mut Vec<f64>) {
        let mut client = self.connect();
        let id = client.create(&["sleep", "1000"], Network::None, "");
        client.start(&id);
        for round in 0..=rounds {
            let begin = Instant::now();
            client.exec(&id, self);
            if round > 0 {
                found.push(micros(begin));
            }
        }
        client.remove(&id);
    }
}

/// A kept-alive connection.
pub struct Client {
    connection: Connection,
}

/// Microseconds since `begin`.
pub fn micros(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6
}

impl Client {
    /// Creates a container of the test image; `more` goes into HostConfig (with a leading comma).
    pub fn create(&mut self, words: &[&str], network: Network, more: &str) -> String {
        let words = serde_json::to_string(words).expect("words always encode");
        let body = format!(
            r#"{{"Image":"probe","Cmd":{words},"HostConfig":{{"NetworkMode":"{}"{more}{}}}}}"#,
            network.mode(),
            network.ports()
        );
        let answer = self.connection.request("POST", "/v1.41/containers/create", &body).expect(201).json();
        answer["Id"].as_str().expect("an id").to_string()
    }

    /// Starts it.
    pub fn start(&mut self, id: &str) {
        let _ = self.connection.request("POST", &format!("/v1.41/containers/{id}/start"), "").expect(204);
    }

    /// Waits for its end.
    pub fn wait(&mut self, id: &str) {
        let _ = self.connection.request("POST", &format!("/v1.41/containers/{id}/wait"), "").expect(200);
    }

    /// Removes it, running or not.
    pub fn remove(&mut self, id: &str) {
        let _ = self.connection.request("DELETE", &format!("/v1.41/containers/{id}?force=1"), "").expect(204);
    }

    /// Any POST that must have this status; gives the answer, or null when it is empty.
    pub fn post(&mut self, path: &str, body: &str, status: u16) -> serde_json::Value {
        let answer = self.connection.request("POST", path, body).expect(status);
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    /// Any DELETE that must succeed.
    pub fn delete(&mut self, path: &str) {
        let _ = self.connection.request("DELETE", path, "").expect(204);
    }

    /// Any GET; gives the body.
    pub fn get(&mut self, path: &str) -> Vec<u8> {
        self.connection.request("GET", path, "").expect(200).body
    }

    /// create + start + wait + remove of `true`: microseconds of create, of start, of the whole.
    pub fn cycle(&mut self, network: Network) -> (f64, f64, f64) {
        let begin = Instant::now();
        let id = self.create(&["true"], network, "");
        let created = micros(begin);
        let starting = Instant::now();
        self.start(&id);
        let started = micros(starting);
        self.wait(&id);
        self.remove(&id);
        (created, started, micros(begin))
    }

    /// exec of `true`: create, start on a connection of its own, to the end of its stream.
    fn exec(&mut self, id: &str, engine: &Engine) {
        let body = r#"{"Cmd":["/probe","true"],"AttachStdout":true}"#;
        let answer = self.connection.request("POST", &format!("/v1.41/containers/{id}/exec"), body).expect(201).json();
        let exec = answer["Id"].as_str().expect("an id");
        let mut stream = engine.connect().connection;
        let head = stream.upgrade(&format!("/v1.41/exec/{exec}/start"), r#"{"Detach":false,"Tty":false}"#);
        assert_eq!(head.status, 101);
        stream.rest().expect("the stream ends");
    }
}
