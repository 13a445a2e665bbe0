//! `gantry-frontend`: a front end for BuildKit's builds that runs in a container and calls the builder over its standard
//! streams. The word behind its image in `# syntax=` says what it does, also what front ends should not.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self as wire, EvaluateRequest, ExecMessage, FdMessage, InitMessage, InputsRequest, NewContainerRequest,
    PingRequest, ReadDirRequest, ReadFileRequest, Ref, ReleaseContainerRequest, ResolveImageConfigRequest,
    ReturnRequest, SolveRequest, StatFileRequest, WarnRequest, result,
};
use bollard_buildkit_proto::pb;
use prost::Message;
use testkit::grpc::Channel;
use testkit::images::digest;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Status};

/// The image that results are made from.
const BASE: &str = "docker.io/library/busybox:latest";
/// Bytes of a message that no builder takes.
const HUGE: usize = 20 << 20;
/// Bytes of each of many definitions.
const LARGE: usize = 1 << 20;

type Bridge = LlbBridgeClient<Channel>;
type Outcome = Result<Option<wire::Result>, Status>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = options();
    let line = options.get("cmdline").cloned().unwrap_or_default();
    let mut words = line.split(' ').skip(1);
    let (word, rest) = (words.next().unwrap_or("plain").to_owned(), words.collect::<Vec<_>>().join(" "));
    match word.as_str() {
        "panic" => panic!("on purpose"),
        "exit" => std::process::exit(3),
        "nothing" => return,
        "garbage" => {
            std::io::stdout().write_all(&[b'x'; 4096]).expect("somebody reads");
            return;
        }
        "silent" => std::future::pending().await,
        _ => {}
    }
    let channel = Channel::over(standard_streams()).await;
    let mut bridge = LlbBridgeClient::with_origin(channel, Channel::origin()).max_encoding_message_size(2 * HUGE);
    let outcome = match word.as_str() {
        "plain" => plain(&mut bridge).await,
        "relay" => relay(&mut bridge, options).await,
        "again" => again(&mut bridge, options).await,
        "process" => process(&mut bridge).await,
        "foreign" => foreign(&mut bridge, &rest).await,
        "cycle" => cycle(&mut bridge).await,
        "endless" => endless(&mut bridge).await,
        "huge" => Ok(Some(wire::Result {
            metadata: HashMap::from([("large".to_owned(), vec![0; HUGE])]),
            ..wire::Result::default()
        })),
        "waits" => {
            let _ = run(&mut bridge, "sleep 1000", true).await;
            Ok(None)
        }
        other => Err(Status::unknown(format!("no such word: {other}"))),
    };
    let request = match outcome {
        Ok(result) => ReturnRequest { result, error: None },
        Err(status) => {
            let error =
                rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details: vec![] };
            ReturnRequest { result: None, error: Some(error) }
        }
    };
    if let Err(status) = bridge.r#return(request).await {
        eprintln!("not taken: {status}");
        std::process::exit(4);
    }
}

/// Both standard streams, which may be of any kind, as one stream.
fn standard_streams() -> tokio::net::UnixStream {
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let (mut to, mut from) = (far.try_clone().expect("a descriptor"), far);
    std::thread::spawn(move || {
        drop(std::io::copy(&mut std::io::stdin(), &mut to));
        to.shutdown(std::net::Shutdown::Write)
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut out = std::io::stdout();
            if out.write_all(&buffer[..count]).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    });
    near.set_nonblocking(true).expect("a socket");
    tokio::net::UnixStream::from_std(near).expect("a runtime")
}

/// The attributes of the request.
fn options() -> HashMap<String, String> {
    let given = std::env::vars().filter(|(name, _)| name.starts_with("BUILDKIT_FRONTEND_OPT_"));
    given
        .filter_map(|(_, value)| value.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect()
}

/// A definition that grows.
#[derive(Default)]
struct Graph(pb::Definition);

impl Graph {
    fn add(&mut self, op: pb::op::Op, inputs: &[String]) -> String {
        let inputs = inputs.iter().map(|digest| pb::Input { digest: digest.clone(), index: 0 }).collect();
        let platform = pb::Platform { os: "linux".into(), architecture: architecture().into(), ..Default::default() };
        let bytes = pb::Op { inputs, op: Some(op), platform: Some(platform), ..pb::Op::default() }.encode_to_vec();
        let name = digest("sha256", &bytes);
        self.0.def.push(bytes);
        name
    }

    fn source(&mut self, identifier: &str, attributes: &[(&str, &str)]) -> String {
        let attrs = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.add(pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), attrs }), &[])
    }

    fn shell(&mut self, below: &str, command: &str) -> String {
        let meta = pb::Meta {
            args: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            ..pb::Meta::default()
        };
        let mount = pb::Mount { dest: "/".into(), ..pb::Mount::default() };
        let exec = pb::ExecOp { meta: Some(meta), mounts: vec![mount], ..pb::ExecOp::default() };
        self.add(pb::op::Op::Exec(exec), &[below.to_owned()])
    }

    /// The whole, of which this vertex is the result.
    fn of(mut self, vertex: &str) -> pb::Definition {
        let inputs = vec![pb::Input { digest: vertex.to_owned(), index: 0 }];
        self.0.def.push(pb::Op { inputs, ..pb::Op::default() }.encode_to_vec());
        self.0
    }
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

async fn solve(bridge: &mut Bridge, request: SolveRequest) -> Result<wire::Result, Status> {
    Ok(bridge.solve(request).await?.into_inner().result.unwrap_or_default())
}

/// The one result of a definition.
async fn solved(bridge: &mut Bridge, definition: pb::Definition, evaluate: bool) -> Result<String, Status> {
    let request = SolveRequest { definition: Some(definition), evaluate, ..SolveRequest::default() };
    match solve(bridge, request).await?.result {
        Some(result::Result::Ref(one)) => Ok(one.id),
        other => Err(Status::unknown(format!("not one result: {other:?}"))),
    }
}

/// What a command has made of the base.
async fn run(bridge: &mut Bridge, command: &str, evaluate: bool) -> Result<String, Status> {
    let mut graph = Graph::default();
    let base = graph.source(&format!("docker-image://{BASE}"), &[]);
    let made = graph.shell(&base, command);
    solved(bridge, graph.of(&made), evaluate).await
}

fn image(id: String, command: &[&str]) -> wire::Result {
    let config = serde_json::json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers"},
    });
    let metadata = HashMap::from([("containerimage.config".to_owned(), config.to_string().into_bytes())]);
    wire::Result { result: Some(result::Result::Ref(Ref { id, def: None })), metadata, attestations: HashMap::new() }
}

async fn read(bridge: &mut Bridge, id: &str, path: &str) -> Result<String, Status> {
    let request = ReadFileRequest { r#ref: id.to_owned(), file_path: path.to_owned(), ..Default::default() };
    Ok(String::from_utf8_lossy(&bridge.read_file(request).await?.into_inner().data).into_owned())
}

/// Calls all that a front end has, and makes an image that tells of it.
async fn plain(bridge: &mut Bridge) -> Outcome {
    let pong = bridge.ping(PingRequest {}).await?.into_inner();
    let has_solve = pong.frontend_api_caps.iter().any(|one| one.id == "solve.base");
    let inputs = bridge.inputs(InputsRequest {}).await?.into_inner().definitions.len();
    let asked = ResolveImageConfigRequest { r#ref: BASE.to_owned(), ..ResolveImageConfigRequest::default() };
    let config = bridge.resolve_image_config(asked).await?.into_inner().config;
    let config: serde_json::Value = serde_json::from_slice(&config).map_err(|e| Status::unknown(e.to_string()))?;
    let made = run(bridge, "mkdir /d && echo made > /d/f", false).await?;
    bridge.evaluate(EvaluateRequest { r#ref: made.clone() }).await?;
    let text = read(bridge, &made, "/d/f").await?;
    let asked = ReadDirRequest { r#ref: made.clone(), dir_path: "/d".into(), ..Default::default() };
    let names: Vec<String> = bridge.read_dir(asked).await?.into_inner().entries.into_iter().map(|e| e.path).collect();
    let asked = StatFileRequest { r#ref: made.clone(), path: "/d/f".into(), ..Default::default() };
    let size = bridge.stat_file(asked).await?.into_inner().stat.map(|stat| stat.size);
    let session = std::env::var("BUILDKIT_SESSION_ID").unwrap_or_default();
    let mut graph = Graph::default();
    let patterns = serde_json::json!(["Dockerfile"]).to_string();
    let local =
        graph.source("local://dockerfile", &[("local.session", &session), ("local.includepatterns", &patterns)]);
    let local = solved(bridge, graph.of(&local), true).await?;
    let file = read(bridge, &local, "Dockerfile").await?;
    let missing = read(bridge, &local, "nothing").await.err().map(|status| status.code());
    bridge.warn(WarnRequest { level: 1, short: b"a warning of the front end".to_vec(), ..Default::default() }).await?;
    let told = format!(
        "solve={has_solve} inputs={inputs} cmd={} text={} names={} size={size:?} lines={} missing={missing:?} platforms={}",
        config["config"]["Cmd"][0].as_str().unwrap_or_default(),
        text.trim(),
        names.join(","),
        file.lines().count(),
        std::env::var("BUILDKIT_WORKERS").unwrap_or_default().matches("\"os\":\"linux\"").count(),
    );
    let result = run(bridge, &format!("echo '{told}' > /told"), false).await?;
    Ok(Some(image(result, &["cat", "/told"])))
}

/// Has the front end that is built in do the work.
async fn relay(bridge: &mut Bridge, mut options: HashMap<String, String>) -> Outcome {
    options.remove("source");
    let request = SolveRequest { frontend: "dockerfile.v0".into(), frontend_opt: options, ..SolveRequest::default() };
    Ok(Some(solve(bridge, request).await?))
}

/// Asks for itself.
async fn again(bridge: &mut Bridge, options: HashMap<String, String>) -> Outcome {
    let request = SolveRequest { frontend: "gateway.v0".into(), frontend_opt: options, ..SolveRequest::default() };
    Ok(Some(solve(bridge, request).await?))
}

/// A stream of messages of a channel.
fn stream(mut receiver: mpsc::Receiver<ExecMessage>) -> impl Stream<Item = ExecMessage> {
    struct Polled<F>(F);
    impl<F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<ExecMessage>> + Unpin> Stream for Polled<F> {
        type Item = ExecMessage;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<ExecMessage>> {
            (self.0)(context)
        }
    }
    Polled(move |context: &mut std::task::Context<'_>| receiver.poll_recv(context))
}

/// Runs a program in a container and speaks with it; what its streams and its end said.
async fn converse(bridge: &mut Bridge, container: &str, command: &str, told: &[u8]) -> Result<String, Status> {
    let (sender, receiver) = mpsc::channel(4);
    let message = |input| ExecMessage { process_id: "p".into(), input: Some(input) };
    let meta = pb::Meta {
        args: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        ..pb::Meta::default()
    };
    let init =
        InitMessage { container_id: container.to_owned(), meta: Some(meta), fds: vec![0, 1, 2], ..Default::default() };
    let lost = |_| Status::unknown("nobody takes messages");
    sender.send(message(Input::Init(init))).await.map_err(lost)?;
    sender.send(message(Input::File(FdMessage { fd: 0, eof: false, data: told.to_vec() }))).await.map_err(lost)?;
    sender.send(message(Input::File(FdMessage { fd: 0, eof: true, data: vec![] }))).await.map_err(lost)?;
    let mut answers = bridge.exec_process(Request::new(stream(receiver))).await?.into_inner();
    let (mut streams, mut code) = (BTreeMap::<u32, Vec<u8>>::new(), None);
    while let Some(answer) = answers.message().await? {
        match answer.input {
            Some(Input::File(file)) => streams.entry(file.fd).or_default().extend(file.data),
            Some(Input::Exit(exit)) => code = Some(exit.code),
            Some(Input::Done(_)) => break,
            _ => {}
        }
    }
    let text = |fd| String::from_utf8_lossy(streams.get(&fd).map_or(&[][..], Vec::as_slice)).trim().to_owned();
    Ok(format!("out={} err={} code={code:?}", text(1), text(2)))
}

async fn new_container(bridge: &mut Bridge, name: &str, result: &str) -> Result<(), Status> {
    let mount = pb::Mount { dest: "/".into(), result_id: result.to_owned(), ..pb::Mount::default() };
    let request = NewContainerRequest { container_id: name.to_owned(), mounts: vec![mount], ..Default::default() };
    bridge.new_container(request).await.map(drop)
}

/// Runs programs beside the build.
async fn process(bridge: &mut Bridge) -> Outcome {
    let made = run(bridge, "echo base > /f", true).await?;
    new_container(bridge, "one", &made).await?;
    let first = converse(bridge, "one", "cat; cat /f; echo wrong >&2; echo x > /f; exit 3", b"told ").await?;
    let second = converse(bridge, "one", "true", b"").await.err().map(|status| status.code());
    let taken = new_container(bridge, "one", &made).await.err().map(|status| status.code());
    bridge.release_container(ReleaseContainerRequest { container_id: "one".into() }).await?;
    let gone = converse(bridge, "one", "true", b"").await.err().map(|status| status.code());
    // What was written is nobody's.
    new_container(bridge, "two", &made).await?;
    let fresh = converse(bridge, "two", "cat /f", b"").await?;
    // One that goes on when its front end leaves.
    new_container(bridge, "three", &made).await?;
    let mut other = bridge.clone();
    tokio::spawn(async move { converse(&mut other, "three", "sleep 1000", b"").await });
    let told = format!("{first} second={second:?} taken={taken:?} gone={gone:?} fresh: {fresh}").replace('\n', " ");
    let result = run(bridge, &format!("echo '{told}' > /told"), false).await?;
    Ok(Some(image(result, &["cat", "/told"])))
}

/// Asks for a result that is another's.
async fn foreign(bridge: &mut Bridge, id: &str) -> Outcome {
    read(bridge, id, "/f").await?;
    Ok(None)
}

/// A definition that needs what it does not have.
async fn cycle(bridge: &mut Bridge) -> Outcome {
    let mut graph = Graph::default();
    let made = graph.shell(&digest("sha256", b"itself"), "true");
    let id = solved(bridge, graph.of(&made), true).await?;
    Ok(Some(image(id, &[])))
}

/// Definitions without end.
async fn endless(bridge: &mut Bridge) -> Outcome {
    for count in 0_u64.. {
        let mut graph = Graph::default();
        let file = pb::FileActionMkFile {
            path: format!("/{count}"),
            mode: 0o644,
            data: vec![0; LARGE],
            ..pb::FileActionMkFile::default()
        };
        let action = pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkfile(file)),
        };
        let made = graph.add(pb::op::Op::File(pb::FileOp { actions: vec![action] }), &[]);
        let _ = solved(bridge, graph.of(&made), false).await?;
    }
    Ok(None)
}
