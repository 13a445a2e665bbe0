//! The wire protocol between daemon and monitor: one postcard message per SEQPACKET packet.
//!
//! Additive for ever, because a newer daemon drives older monitors: new variants go to the end of an enum, new fields to
//! the end of a *message's* payload, and their zero value means the old behaviour. A decoder ignores what it does not know
//! at the end of a message and reads what is missing there as zero ([`decode`]). Only [`StartSpec`] is free to change: it is
//! read by a monitor that the very same executable has just been started as. An exec's process travels as JSON, which
//! tolerates change by itself. The golden tests below pin every message's bytes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use model::Kind;
use runtime::{Bundle, Scope, StartError, oci};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Counts incompatible changes; there are none so far.
pub const VERSION: u16 = 1;
/// Bytes of one packet, in either direction.
pub const MAX_PACKET: usize = 64 * 1024;
/// Bytes of [`Attach::prefix`]; a client that has sent more ahead is attached through a socket pair.
pub const MAX_PREFIX: usize = 32 * 1024;
/// Bytes of a [`StartSpec`] or of an exec's process in their memfd.
pub const MAX_SPEC: usize = 16 * 1024 * 1024;
/// Texts in events are cut to this many bytes.
pub const MAX_TEXT: usize = 8 * 1024;
/// Ended execs that a [`State`] remembers.
pub const MAX_ENDED_EXECS: usize = 64;
/// Running execs that a [`State`] lists, so that it fits into a packet.
pub const MAX_RUNNING_EXECS: usize = 512;

/// How long a container that is paused in passing waits for its daemon's next request before it goes on.
pub const PASSING: Duration = Duration::from_secs(20);

/// What travels: `seq` is the daemon's number of a request, repeated in its answer; 0 in an event that answers nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Packet<T> {
    pub seq: u32,
    pub body: T,
}

/// From the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Starts the container, once in a monitor's life. Descriptors: a memfd with the [`StartSpec`]; the socket on which to
    /// listen for further daemons; the network namespace if `netns`; one namespace per `joined`; `trees` mounts; one socket per `attach`. Answer: `Started` or `Failed` (the monitor then ends).
    Start,
    /// Published ports, one bound (TCP: listening) socket per entry. Answer: `Done`.
    Ports(Vec<Port>),
    /// Runs a further process. Descriptors: a memfd with the `oci::Process` as JSON; the client's socket if `attach`.
    /// Answer: `Started` or `Failed`; at its end `Exited`.
    Exec(Exec),
    /// Connects a client to the container's streams. Descriptor: its socket. Answer: `Done`.
    Attach(Attach),
    /// Sets the size of the terminal of the container (`None`) or of an exec. Answer: `Done`.
    Resize { exec: Option<String>, rows: u16, columns: u16 },
    /// Answer: `Done`.
    Signal { exec: Option<String>, signal: i32, scope: Scope },
    /// Pauses or resumes the container. Answer: `Done`. Paused in passing it goes on when the connection ends, and when no
    /// request comes through it for [`PASSING`].
    Freeze { frozen: bool, passing: bool },
    /// The daemon has recorded the exit: the monitor may end. No answer.
    Release,
    /// As `Ports`, their sockets parked in the queue of the one socket that comes along (`sys::fdpass::Parked`); `None` = one
    /// that no proxy serves. Answer: `Done`.
    ParkedPorts(Vec<Option<Port>>),
    /// Whether the monitor does its work. Answer: `Done`; one that does not know it refuses it, which is as good.
    Ping,
    /// Closes the sockets of published ports that are bound so; none named = all. Connections that stand go on. Answer:
    /// `Done`.
    Unpublish(Vec<Bound>),
    /// What the sandbox's resolver knows from now on. Descriptor: the sandbox's namespace, for a monitor that has no resolver
    /// yet. Answer: `Done`.
    Resolver(ResolverSpec),
    /// Connects from inside the sandbox: a probe of a health check. Answer: `Started`, without a pid, or `Failed`; then
    /// `Probed`.
    Reach(ReachSpec),
}

/// What a probe connects to; without an address: the loopback addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachSpec {
    pub id: String,
    pub address: Option<IpAddr>,
    pub port: u16,
    /// Of a request of HTTP; `None`: a connection is enough.
    pub path: Option<String>,
    /// Milliseconds.
    pub timeout: u32,
}

/// What the resolver of a sandbox knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverSpec {
    /// The networks whose names it answers for, in the order in which they are asked.
    pub zones: Vec<Zone>,
    /// Who is asked for other names.
    pub upstream: Upstream,
    /// No network leads out: nothing is sent by way of the host.
    pub is_internal: bool,
    /// Names of one label that are not known are not asked for elsewhere: the client will add its search domains.
    pub keeps_single_labels: bool,
    /// The gates at the sandbox's links that check destinations.
    pub gates: Vec<GateSpec>,
    /// Every link has such a gate: names that no rule has are not asked for elsewhere.
    pub is_confined: bool,
}

/// A gate at a link of the sandbox (`sys::gate`), whose rules may have names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateSpec {
    /// Id of the network that the link leads to.
    pub network: String,
    /// Name of the link's end on the host.
    pub link: String,
    pub whose: Whose,
    /// As `model::egress::Egress` is written.
    pub rules: String,
    /// Networks whose addresses no name opens, since others than its owner decide about them: address, length in bits.
    pub never: Vec<(IpAddr, u8)>,
}

/// Whose rules a gate has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    #[default]
    Container,
    Network,
}

/// Something that the rules of a sandbox do not let pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The protocol's number in the IP header; 0 of a name.
    pub protocol: u8,
    /// The destination; its port is 0 of protocols without ports. `None`: a name was asked for.
    pub to: Option<SocketAddr>,
    /// The name.
    pub name: String,
}

/// The names of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The network's name.
    pub network: String,
    /// The file that has them ([`dns::names`]).
    pub names: PathBuf,
    /// Further names that this container alone has for others: the alias, and a name of the network.
    pub aliases: Vec<(String, String)>,
}

/// Servers for names that no network has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upstream {
    /// Those of the host's configuration, asked from the host's network.
    #[default]
    Host,
    /// These, asked from the sandbox.
    Given(Vec<IpAddr>),
}

/// To the daemon; events go to the newest connection, answers to the one that asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The first message on a connection to the monitor's listening socket, with the pidfd of the container's first process.
    Hello(State),
    /// `exec: None` is the container, with its first process's pidfd. `at`: unix nanoseconds.
    Started {
        exec: Option<String>,
        pid: i32,
        at: i64,
    },
    Failed {
        exec: Option<String>,
        error: StartError,
    },
    /// All output has been delivered and logged, and (container) the exit record is on disk.
    Exited {
        exec: Option<String>,
        exit: Exit,
    },
    /// A client has typed its detach keys.
    Detached {
        exec: Option<String>,
    },
    Done {
        refused: Option<Refusal>,
    },
    /// To a start, before its `Started` or `Failed`: the container's first process is there, its program does not run yet.
    /// What a later daemon is told of pid and time is the same.
    Born {
        pid: i32,
        at: i64,
    },
    /// The container's last process is gone, all output delivered and logged; `Exited` follows when what the run had is
    /// removed. What a later daemon is told is `Exited` only.
    Died {
        exit: Exit,
    },
    /// The kernel has killed one or more of the container's processes for want of memory. Comes before `Died`.
    OutOfMemory,
    /// What the sandbox's rules about destinations did not let pass, each once a minute; `more`: how many are not told.
    Denied {
        denied: Vec<Denied>,
        more: u32,
    },
    /// A probe has ended; of an exec that is one, in place of `Exited`. The newest results come once more behind a `Hello`.
    Probed(Probed),
}

/// The result of a probe. Times are unix nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    pub id: String,
    /// The exit code; -1: it took too long.
    pub code: i32,
    /// It took too long.
    pub is_late: bool,
    /// The beginning of its output.
    pub output: Vec<u8>,
    pub started_at: i64,
    pub ended_at: i64,
}

/// One client of the container's or an exec's streams.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Eight-byte frame headers; with a terminal for a client of an exec session that asked for them only.
    pub multiplex: bool,
    /// Empty = ctrl-p, ctrl-q. Only looked for with a terminal.
    pub detach_keys: Vec<u8>,
    /// Bytes that the client has sent already, behind its request; at most [`MAX_PREFIX`].
    pub prefix: Vec<u8>,
}

/// A further process in the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    pub id: String,
    /// Its standard input is a pipe (or the terminal), not `/dev/null`.
    pub open_stdin: bool,
    /// `None` = detached: output is read and dropped.
    pub attach: Option<Attach>,
    /// It is a probe that may take so many milliseconds: its end is told as `Probed`. 0 = it is none.
    pub probe: u32,
}

/// A published port: connections and datagrams to its socket go to `target`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub transport: Transport,
    pub target: SocketAddr,
}

/// Where the socket of a published port is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bound {
    /// The protocol's number in the IP header.
    pub protocol: u8,
    /// Where it listens.
    pub address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    Tcp,
    Udp,
}

/// How a process ended. Also the container's exit record, as JSON, in [`StartSpec::exit_path`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// 0–255, or 128 + signal.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The kernel killed a process of the container for want of memory.
    pub oom: bool,
    /// Unix nanoseconds.
    #[serde(rename = "at_unix_nanos")]
    pub at: i64,
    /// What went wrong at the end; usually empty.
    pub error: String,
}

/// All that a daemon needs to take over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub version: u16,
    pub id: String,
    /// 0 = not started yet.
    pub pid: i32,
    /// Unix nanoseconds.
    pub started_at: i64,
    pub tty: bool,
    pub paused: bool,
    /// The container has ended.
    pub exit: Option<Exit>,
    /// Running ones ([`MAX_RUNNING_EXECS`]) and the last [`MAX_ENDED_EXECS`] ended ones.
    pub execs: Vec<ExecState>,
    /// What [`Event::OutOfMemory`] has told before.
    pub memory_has_run_out: bool,
    /// Sockets of published ports that the monitor serves.
    pub ports: u32,
    /// A probe is under way.
    pub probe: Option<ProbeState>,
}

/// A probe that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeState {
    pub id: String,
    /// Unix nanoseconds.
    pub started_at: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecState {
    pub id: String,
    pub pid: i32,
    pub exit: Option<Exit>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The container, exec or process is not there (any more).
    NotRunning,
    /// The message makes no sense to this monitor.
    NotUnderstood,
    Failed,
}

impl Refusal {
    pub fn new(reason: Reason, message: impl Into<String>) -> Refusal {
        let mut message = model::worded(message.into());
        cut(&mut message);
        Refusal { reason, message }
    }

    pub fn to_error(&self) -> model::Error {
        let kind = match self.reason {
            Reason::NotRunning => Kind::Conflict,
            Reason::NotUnderstood => Kind::NotImplemented,
            Reason::Failed => Kind::System,
        };
        model::Error::new(kind, self.message.clone())
    }
}

/// Cuts a text that goes into an event to [`MAX_TEXT`] bytes.
pub(crate) fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
}

/// What a monitor starts with, postcard in a memfd. See [`Request::Start`] for the descriptors that go with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartSpec {
    pub bundle: Bundle,
    pub runtime: RuntimeChoice,
    /// The container has a standard input; else it is `/dev/null`.
    pub open_stdin: bool,
    /// The first client that ends its input ends the container's (never with a terminal).
    pub stdin_once: bool,
    pub log: logs::Spec,
    /// Where the [`Exit`] record goes, `<exec-root>/<id>/exit`.
    pub exit_path: PathBuf,
    /// A directory on disk (not tmpfs) for unnamed files with the backlog of slow clients.
    pub spill_dir: PathBuf,
    /// A network namespace descriptor follows the memfd.
    pub netns: bool,
    /// What the specification joins ([`runtime::oci::PASSED`]): a descriptor of each follows. `Mount` is that of other
    /// containers' mounts.
    pub joined: Vec<oci::NamespaceKind>,
    /// So many detached mounts follow, which the specification attaches ([`runtime::oci::Mount::tree`]).
    pub trees: u16,
    /// Clients that were attached before the start.
    pub attach: Vec<Attach>,
    /// What the resolver in the network namespace knows, if there is one.
    pub resolver: Option<ResolverSpec>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RuntimeChoice {
    Builtin,
    /// Any OCI command-line runtime.
    Cli {
        path: PathBuf,
        args: Vec<String>,
    },
}

/// One packet's bytes.
pub fn encode<T: Serialize>(seq: u32, body: T) -> Vec<u8> {
    postcard::to_stdvec(&Packet { seq, body }).expect("messages contain nothing that postcard refuses")
}

/// Zero bytes that stand for the fields which an older sender does not know.
const UNKNOWN_FIELDS: usize = 64;

/// The message in a packet, whatever its sender's age.
pub fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<Packet<T>, NotUnderstood> {
    let (seq, body) = postcard::take_from_bytes::<u32>(packet).map_err(|_| NotUnderstood { seq: 0 })?;
    // Fields may be missing at the end, but not all of the message.
    if body.is_empty() {
        return Err(NotUnderstood { seq });
    }
    let mut padded = Vec::with_capacity(body.len() + UNKNOWN_FIELDS);
    padded.extend_from_slice(body);
    padded.resize(body.len() + UNKNOWN_FIELDS, 0);
    match postcard::take_from_bytes::<T>(&padded) {
        Ok((body, _)) => Ok(Packet { seq, body }),
        Err(_) => Err(NotUnderstood { seq }),
    }
}

/// A packet that cannot be decoded; its sequence number, if it has one, to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUnderstood {
    pub seq: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + Clone>(message: &T, bytes: &str) {
        let packet = encode(300, message);
        let text: String = packet.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(text, bytes, "{message:?}");
        assert_eq!(decode::<T>(&packet).unwrap(), Packet { seq: 300, body: message.clone() });
    }

    fn attach() -> Attach {
        Attach { stdin: true, stderr: true, detach_keys: vec![16], prefix: b"ab".to_vec(), ..Attach::default() }
    }

    #[test]
    fn requests_on_the_wire() {
        golden(&Request::Start, "ac0200");
        let port = Port { transport: Transport::Udp, target: "172.17.0.2:80".parse().unwrap() };
        golden(&Request::Ports(vec![port]), "ac020101010".to_owned().replace("0101010", "01010100ac11000250").as_str());
        golden(
            &Request::Exec(Exec { id: "e".into(), open_stdin: true, attach: Some(attach()), probe: 300 }),
            "ac020201650101010001000110026162ac02",
        );
        golden(&Request::Attach(attach()), "ac0203010001000110026162");
        golden(&Request::Resize { exec: None, rows: 24, columns: 200 }, "ac02040018c801");
        golden(&Request::Signal { exec: Some("e".into()), signal: 15, scope: Scope::All }, "ac02050101651e01");
        golden(&Request::Freeze { frozen: true, passing: true }, "ac02060101");
        // As a daemon says it that knows of no passing.
        let older: Packet<Request> = decode(&[0xac, 0x02, 0x06, 0x01]).unwrap();
        assert_eq!(older.body, Request::Freeze { frozen: true, passing: false });
        golden(&Request::Release, "ac0207");
        golden(&Request::Ping, "ac0209");
        let bound = Bound { protocol: 6, address: "172.17.0.2:80".parse().unwrap() };
        golden(&Request::Unpublish(vec![bound]), "ac020a010600ac11000250");
        let zone = Zone { network: "n".into(), names: "/n".into(), aliases: vec![("a".into(), "b".into())] };
        let upstream = Upstream::Given(vec!["1.2.3.4".parse().unwrap()]);
        let gate = GateSpec {
            network: "n".into(),
            link: "v".into(),
            whose: Whose::Network,
            rules: "r".into(),
            never: vec![("1.2.3.4".parse().unwrap(), 32)],
        };
        let mut spec =
            ResolverSpec { zones: vec![zone], upstream, is_internal: true, gates: vec![gate], ..Default::default() };
        golden(
            &Request::Resolver(spec.clone()),
            "ac020b01016e022f6e0101610162010100010203040100\
             01016e01760101720100010203042000",
        );
        (spec.gates, spec.is_confined) = (Vec::new(), true);
        golden(&Request::Resolver(spec), "ac020b01016e022f6e01016101620101000102030401000001");
        let address = Some("1.2.3.4".parse().unwrap());
        let spec = ReachSpec { id: "p".into(), address, port: 80, path: Some("/".into()), timeout: 9 };
        golden(&Request::Reach(spec), "ac020c01700100010203045001012f09");
    }

    #[test]
    fn events_on_the_wire() {
        let exit = Exit { code: 137, signal: Some(9), oom: true, at: 5, error: "e".into() };
        let state = State {
            version: 1,
            id: "c".into(),
            pid: 7,
            started_at: 4,
            tty: true,
            paused: false,
            exit: Some(exit.clone()),
            execs: vec![ExecState { id: "x".into(), pid: 8, exit: None }],
            memory_has_run_out: true,
            ports: 2,
            probe: Some(ProbeState { id: "p".into(), started_at: 3 }),
        };
        golden(&Event::Hello(state), "ac02000101630e0801000192020112010a01650101781000010201017006");
        golden(&Event::Started { exec: None, pid: 7, at: 4 }, "ac0201000e08");
        let error = StartError::new(runtime::Stage::Clone, 11, "d");
        golden(&Event::Failed { exec: None, error }, "ac02020000160164");
        golden(&Event::Exited { exec: Some("x".into()), exit: exit.clone() }, "ac020301017892020112010a0165");
        golden(&Event::Died { exit }, "ac020792020112010a0165");
        golden(&Event::Detached { exec: None }, "ac020400");
        let refused = Some(Refusal::new(Reason::Failed, "m"));
        golden(&Event::Done { refused }, "ac02050102016d");
        golden(&Event::Born { pid: 7, at: 4 }, "ac02060e08");
        golden(&Event::OutOfMemory, "ac0208");
        let to = Some("1.2.3.4:53".parse().unwrap());
        let denied = Denied { protocol: 17, to, name: "n".into() };
        golden(
            &Event::Denied { denied: vec![denied], more: 3 },
            "ac02090111010001020304 35 016e03".replace(' ', "").as_str(),
        );
        let output = b"o".to_vec();
        let probed = Probed { id: "p".into(), code: -1, is_late: true, output, started_at: 3, ended_at: 4 };
        golden(&Event::Probed(probed), "ac020a01700101016f0608");
    }

    #[test]
    fn older_and_newer_senders_are_understood() {
        // An older sender's exec without the last field; a newer sender's with one more.
        let packet = encode(1, Request::Exec(Exec { id: "e".into(), open_stdin: true, attach: None, probe: 0 }));
        let older = &packet[..packet.len() - 1];
        let newer = [&packet[..], b"more"].concat();
        for packet in [older, &newer] {
            let Request::Exec(exec) = decode::<Request>(packet).unwrap().body else { panic!() };
            assert_eq!((exec.id.as_str(), exec.open_stdin, exec.attach), ("e", true, None));
        }
        assert_eq!(decode::<Request>(&[5]), Err(NotUnderstood { seq: 5 }));
        assert_eq!(decode::<Request>(&[5, 99]), Err(NotUnderstood { seq: 5 }));
        assert_eq!(decode::<Request>(&[]), Err(NotUnderstood { seq: 0 }));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let refusal = Refusal::new(Reason::Failed, "é".repeat(MAX_TEXT));
        assert_eq!(refusal.message.len(), MAX_TEXT);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Event>(&bytes);
            let _ = postcard::from_bytes::<StartSpec>(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(at in 0..40_usize, byte in any::<u8>()) {
            let exec = Exec { id: "e".repeat(20), open_stdin: true, attach: Some(attach()), probe: 1 };
            let mut packet = encode(9, Request::Exec(exec));
            let at = at % packet.len();
            packet[at] = byte;
            let _ = decode::<Request>(&packet);
        }
    }
}
