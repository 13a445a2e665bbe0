//! What builds take of the sessions and requests of their clients besides files: policies for sources, tokens, contexts in bodies.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde_json::{Value, json};
use testkit::command;
use testkit::fake_registry::{Answer, FakeRegistry, Image, Reply};
use testkit::images::{Tar, busybox_tar};
use testkit::{Connection, Daemon};

use crate::build_context::Context;
use crate::buildx::{client, new_context, with_buildx};
use crate::with_busybox;

/// The client reads a policy from a file.
fn policy(d: &Daemon, rules: &Value) -> String {
    let path = d.path("policy.json");
    fs::write(&path, json!({"version": 1, "rules": rules}).to_string()).unwrap();
    path.display().to_string()
}

fn build(d: &Daemon, context: &Context, policy: &str, args: &[&str]) -> command::Output {
    let words = [&["build", "--progress=plain"], args, &[context.dir.to_str().unwrap()]].concat();
    command::run(client(d, &words).env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", policy), b"")
}

#[test]
fn sources_are_refused_and_replaced_as_the_policy_of_the_client_says() {
    let d = with_buildx();
    let other = new_context(&d, "other", "FROM busybox\nRUN echo other > /which\n");
    let _ = other.build(&d, &["-t", "other:1"]).ok();
    let context = new_context(&d, "policy", "FROM busybox\nRUN touch /which\nCMD [\"cat\", \"/which\"]\n");
    let image = |name: &str| json!({"identifier": format!("docker-image://docker.io/library/{name}")});
    let denied = policy(&d, &json!([{"action": "DENY", "selector": image("busybox*")}]));
    let output = build(&d, &context, &denied, &[]);
    let text = "source \"docker-image://docker.io/library/busybox:latest\" denied by policy";
    assert!(output.code != 0 && output.stderr.contains(text), "{}", output.stderr);
    // The last rule that matches counts.
    let allowed = json!([
        {"action": "DENY", "selector": image("*")},
        {"action": "ALLOW", "selector": image("busybox:latest")},
    ]);
    let _ = build(&d, &context, &policy(&d, &allowed), &[]).ok();
    let converted = json!([{"action": "CONVERT", "selector": image("busybox:latest"), "updates": image("other:1")}]);
    let _ = build(&d, &context, &policy(&d, &converted), &["-t", "app"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "other");
    // Without it the image is the one that the file names, whatever was built before.
    let _ = context.build(&d, &["-t", "app"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "");
    d.finish();
}

/// The registry is in the daemon's network, the token server is not: the client asks it.
#[test]
fn tokens_are_fetched_by_the_client() {
    let d = with_buildx();
    let tokens = FakeRegistry::start();
    let basic = "Basic bWU6c2VjcmV0";
    tokens.rule(move |seen| match (seen.method.as_str(), seen.header("authorization") == basic) {
        ("GET", true) => Some(Reply::Send(Answer::new(200, json!({"token": "given", "expires_in": 300}).to_string()))),
        ("GET", false) => Some(Reply::Send(Answer::new(401, ""))),
        _ => Some(Reply::Send(Answer::new(405, ""))),
    });
    let registry = FakeRegistry::inside(d.namespaces(), "127.0.0.1:0");
    registry.image("private", "1", &Image::new(&[busybox_tar()], &json!({"Env": ["PATH=/bin"]})));
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"r\"", tokens.address());
    registry.rule(move |seen| {
        let refused = || Reply::Send(Answer::refusal(401, "UNAUTHORIZED", "no").with("WWW-Authenticate", &challenge));
        (seen.header("authorization") != "Bearer given").then(refused)
    });
    let accounts = json!({"auths": {registry.address(): {"auth": "bWU6c2VjcmV0"}}});
    fs::write(d.path("cli/config.json"), accounts.to_string()).unwrap();
    let dockerfile = format!("FROM {}/private:1\nCMD [\"echo\", \"hello\"]\n", registry.address());
    let _ = new_context(&d, "private", &dockerfile).build(&d, &["-t", "app"]).ok();
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "hello");
    assert!(tokens.seen().iter().any(|seen| seen.path.contains("scope=repository%3Aprivate%3Apull")));
    drop((registry, tokens));
    d.finish();
}

/// Messages of agents (draft-ietf-sshm-ssh-agent): a question for its keys, the answer, and a refusal.
const ASK_KEYS: u8 = 11;
const KEYS: u8 = 12;
const REFUSED: u8 = 5;

/// An agent with one key, whose comment is told; it refuses all else. It ends with the process.
fn agent(path: &Path, comment: &'static str) {
    let listener = UnixListener::bind(path).unwrap();
    let text = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat();
    let key = [text(b"ssh-ed25519"), text(&[7; 32])].concat();
    let keys = [&[KEYS, 0, 0, 0, 1][..], &text(&key), &text(comment.as_bytes())].concat();
    let answer = move |mut stream: UnixStream| -> std::io::Result<()> {
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let mut question = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            stream.read_exact(&mut question)?;
            let told = if question == [ASK_KEYS] { keys.clone() } else { vec![REFUSED] };
            stream.write_all(&text(&told))?;
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream));
        }
    });
}

/// `--ssh`: a program of a step speaks to the agents of the client, each by its id.
#[test]
fn steps_speak_to_the_agents_of_the_client() {
    let d = with_buildx();
    let dockerfile = "FROM busybox\nCOPY probe /\nRUN --mount=type=ssh /probe unix-ask $SSH_AUTH_SOCK 000000010b > /usual\n\
        RUN --mount=type=ssh,id=other,target=/agent,uid=7,mode=0640 stat -c '%u %a' /agent > /mode && \
        /probe unix-ask /agent 000000010b > /other && /probe unix-ask /agent 0000000113 > /refused\n\
        RUN test ! -e /agent && test -z \"$SSH_AUTH_SOCK\"\n";
    let context = new_context(&d, "agents", dockerfile);
    fs::copy(testkit::places::program("gantry-probe"), context.dir.join("probe")).unwrap();
    let (usual, other) = (d.path("usual.sock"), d.path("other.sock"));
    agent(&usual, "the-usual");
    agent(&other, "the-other");
    let agents = [format!("default={}", usual.display()), format!("other={}", other.display())];
    let _ = context.build(&d, &["--ssh", &agents[0], "--ssh", &agents[1], "-t", "app"]).ok();
    let seen = d.docker(&["run", "--rm", "app", "cat", "/usual", "/other", "/refused", "/mode"]).text();
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines: Vec<&str> = seen.lines().collect();
    assert!(lines[0].starts_with("0c00000001") && lines[0].ends_with(&hex("the-usual")), "{seen}");
    assert!(lines[1].starts_with("0c00000001") && lines[1].ends_with(&hex("the-other")), "{seen}");
    assert_eq!(&lines[2..], ["05", "7 640"], "{seen}");
    // Steps that need an agent that the client has not given.
    let needs = "FROM busybox\nRUN --mount=type=ssh,id=none,required true\n";
    let refused = new_context(&d, "needs", needs).build(&d, &["--ssh", &agents[0]]);
    assert!(refused.code != 0 && refused.stderr.contains("unset ssh forward key none"), "{}", refused.stderr);
    d.finish();
}

/// Secrets that are not there, and what a step gets that can do without.
#[test]
fn secrets_that_are_missing_are_told_of_by_name() {
    let d = with_buildx();
    let build = |dockerfile: &str, args: &[&str]| new_context(&d, "secrets", dockerfile).build(&d, args);
    let needed = "FROM busybox\nRUN --mount=type=secret,id=key,required true\n";
    let refused = build(needed, &[]);
    assert!(refused.code != 0 && refused.stderr.contains("secret key: not found"), "{}", refused.stderr);
    let refused = build(&needed.replace("id=key,", "id=key,env=KEY,"), &["--secret", "id=other,env=HOME"]);
    assert!(refused.code != 0 && refused.stderr.contains("secret key: not found"), "{}", refused.stderr);
    let optional = "FROM busybox\nRUN --mount=type=secret,id=key --mount=type=secret,id=key,env=KEY \
        test ! -e /run/secrets/key && test -z \"$KEY\"\n";
    let _ = build(optional, &[]).ok();
    let large = d.path("large");
    fs::write(&large, vec![b'x'; 600 << 10]).unwrap();
    let refused = build(needed, &["--secret", &format!("id=key,src={}", large.display())]);
    assert!(refused.code != 0 && refused.stderr.contains("secret key too big. max size 500KiB"), "{}", refused.stderr);
    d.finish();
}

/// Posts a body as clients of version 2 of the builder do; what the answer told, line by line.
fn post(d: &Daemon, query: &str, body: &[u8]) -> (u16, Vec<Value>) {
    let mut connection: Connection = d.connection();
    let head = format!(
        "POST /v1.40/build?version=2&{query} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    connection.send(&[head.as_bytes(), body].concat()).unwrap();
    let head = connection.head().unwrap();
    let body = connection.body(&head).unwrap();
    let lines = String::from_utf8_lossy(&body).into_owned();
    let lines = lines.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect();
    (head.status, lines)
}

/// The id of the image that an answer tells, and whether it told of steps.
fn told(lines: &[Value]) -> (String, bool) {
    let id = lines.iter().find(|line| line["id"] == "moby.image.id").map(|line| line["aux"]["ID"].clone());
    let id = id.unwrap_or_else(|| panic!("no image: {lines:?}"));
    (id.as_str().unwrap().to_owned(), lines.iter().any(|line| line["id"] == "moby.buildkit.trace"))
}

#[test]
fn a_build_of_version_2_takes_its_context_in_the_body() {
    let d = with_busybox();
    let context = Tar::new()
        .file("Dockerfile", 0o644, b"FROM busybox\nARG WORD\nCOPY f /f\nRUN echo $WORD >> /f\nCMD [\"cat\", \"/f\"]\n")
        .file("f", 0o644, b"one\n")
        .bytes();
    let (status, lines) = post(&d, "t=app&buildargs=%7B%22WORD%22%3A%22two%22%7D", &context);
    assert_eq!(status, 200, "{lines:?}");
    let (id, traced) = told(&lines);
    assert!(traced && id.starts_with("sha256:"), "{lines:?}");
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "one\ntwo");
    assert_eq!(d.docker(&["run", "--rm", &id]).text(), "one\ntwo");
    // A Dockerfile alone.
    let (_, lines) = post(&d, "t=alone", b"FROM busybox\nCMD [\"echo\", \"alone\"]\n");
    let _ = told(&lines);
    assert_eq!(d.docker(&["run", "--rm", "alone"]).text(), "alone");
    let (_, lines) = post(&d, "", b"FROM busybox\nRUN exit 7\n");
    let text = lines.last().unwrap()["error"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("did not complete successfully: exit code: 7"), "{lines:?}");
    d.finish();
}

/// `remote=upload-request`: the context comes with a request of its own, before or after the one that builds.
#[test]
fn a_context_of_version_2_comes_with_a_request_of_its_own() {
    let d = with_busybox();
    let dockerfile = b"FROM busybox\nCMD [\"echo\", \"uploaded\"]\n";
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| post(&d, "buildid=upload-request%3Aone", dockerfile));
        let (_, lines) = post(&d, "remote=upload-request&buildid=one&t=app", b"");
        let _ = told(&lines);
        assert_eq!(upload.join().unwrap(), (200, Vec::new()));
    });
    assert_eq!(d.docker(&["run", "--rm", "app"]).text(), "uploaded");
    let (status, lines) = post(&d, "remote=upload-request&buildid=two", b"");
    assert_eq!((status, lines[0]["message"].as_str().unwrap()), (500, "context deadline exceeded"));
    d.finish();
}
