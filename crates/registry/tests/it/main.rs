//! The client against a registry that misbehaves: retries, redirects, ranges, credentials, proxies.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

mod near;
mod vendors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::digest::Digest;
use model::reference::ImageRef;
use model::{Error, Kind};
use registry::{Access, Begun, Credentials, Registries, Repository, Settings, Timeouts};
use testkit::fake_registry::{Answer, FakeRegistry, Image, MANIFEST, Reply, Seen, noise};

fn settings() -> Settings {
    let timeouts =
        Timeouts { pause: Duration::from_millis(5), longest_pause: Duration::from_secs(2), ..Timeouts::default() };
    Settings { timeouts, certs_dirs: Vec::new(), ..Settings::default() }
}

/// Of somebody who soon loses patience with a registry that has begun to send.
fn impatient() -> Settings {
    let usual = settings();
    Settings { timeouts: Timeouts { stall: Duration::from_millis(400), ..usual.timeouts }, ..usual }
}

async fn open(fake: &FakeRegistry, credentials: Credentials, access: Access) -> Arc<Repository> {
    with(settings(), fake, credentials, access).await
}

async fn with(settings: Settings, fake: &FakeRegistry, credentials: Credentials, access: Access) -> Arc<Repository> {
    let reference = ImageRef::parse_normalized(&format!("{}/app:1", fake.address())).unwrap();
    Registries::new(settings).repository(&reference, credentials, access).await.unwrap()
}

async fn anonymous(fake: &FakeRegistry) -> Arc<Repository> {
    open(fake, Credentials::default(), Access::Pull).await
}

fn me() -> Credentials {
    Credentials { username: "me".into(), password: "secret".into(), ..Credentials::default() }
}

fn path_is(seen: &Seen, part: &str) -> bool {
    seen.path.contains(part)
}

async fn read(repository: &Repository, digest: &str, size: u64, from: u64) -> registry::Outcome<Vec<u8>> {
    let mut blob = repository.blob(&Digest::parse(digest).unwrap(), size, from).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn manifests_blobs_and_tags_are_read() {
    let fake = FakeRegistry::start();
    let image = Image::of_noise(&[1000]);
    let digest = fake.image("app", "1", &image);
    let repository = anonymous(&fake).await;
    let resolved = repository.resolve("1").await.unwrap().unwrap();
    assert_eq!((resolved.digest.as_str(), resolved.media_type.as_str()), (digest.as_str(), MANIFEST));
    assert_eq!(repository.manifest("1").await.unwrap().bytes, image.manifest);
    let blob = fake.blob(&noise(9, 100_000));
    assert_eq!(read(&repository, &blob, 100_000, 0).await.unwrap(), noise(9, 100_000));
    assert_eq!(read(&repository, &blob, 100_000, 99_990).await.unwrap(), &noise(9, 100_000)[99_990..]);
    assert_eq!(repository.tags().await.unwrap(), ["1"]);
    assert_eq!(fake.count(""), 5, "nothing is asked twice");
}

#[tokio::test]
async fn what_is_refused_is_told_in_the_registrys_words() {
    let fake = FakeRegistry::start();
    let repository = anonymous(&fake).await;
    let fault = repository.manifest("nosuch").await.unwrap_err();
    assert_eq!(fault.error.message(), "manifest unknown: manifest unknown");
    fake.rule(|_| Some(Reply::Send(Answer::refusal(403, "DENIED", "not you"))));
    let error = repository.manifest("1").await.unwrap_err().of_pull(repository.reference());
    let name = format!("{}/app", fake.address());
    assert_eq!(
        (error.kind(), error.message()),
        (
            Kind::NotFound,
            format!("pull access denied for {name}, repository does not exist or may require 'docker login': denied: not you")
                .as_str()
        )
    );
}

#[tokio::test]
async fn failures_that_pass_are_tried_again_and_retry_after_is_kept() {
    let fake = FakeRegistry::start();
    fake.image("app", "1", &Image::of_noise(&[10]));
    let mut left = 3;
    fake.rule(move |seen| {
        left -= 1;
        let busy = Answer::refusal(429, "TOOMANYREQUESTS", "slow down").with("Retry-After", "1");
        let answer = if left == 2 { busy } else { Answer::new(503, "") };
        (left >= 0 && seen.method == "GET").then_some(Reply::Send(answer))
    });
    let repository = anonymous(&fake).await;
    let started = Instant::now();
    repository.manifest("1").await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(fake.count("GET"), 4);
    fake.rule(|_| Some(Reply::Send(Answer::refusal(429, "TOOMANYREQUESTS", "x").with("Retry-After", "3600"))));
    let started = Instant::now();
    assert_eq!(repository.manifest("1").await.unwrap_err().error.message(), "toomanyrequests: x");
    assert!(started.elapsed() < Duration::from_secs(60), "an hour is not waited for");
    fake.behave();
    fake.rule(|_| Some(Reply::Send(Answer::new(500, ""))));
    let before = fake.count("GET");
    let error = repository.manifest("1").await.unwrap_err().error;
    assert_eq!(error.message(), "received unexpected HTTP status: 500 Internal Server Error");
    assert_eq!(fake.count("GET") - before, 5);
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_given_up() {
    let fake = FakeRegistry::start();
    let blob = fake.blob(&noise(1, 50_000));
    let repository = with(impatient(), &fake, Credentials::default(), Access::Pull).await;
    fake.rule(|seen| path_is(seen, "/blobs/").then_some(Reply::Hang(None, 1000)));
    let fault = read(&repository, &blob, 50_000, 0).await.unwrap_err();
    assert!(fault.error.message().contains("sends nothing any more"), "{}", fault.error);
    fake.rule(|seen| path_is(seen, "/blobs/").then_some(Reply::Cut(None, 1000)));
    let fault = read(&*anonymous(&fake).await, &blob, 50_000, 0).await.unwrap_err();
    assert_eq!((fault.reason, fault.retry), (registry::Reason::Transport, registry::Retry::Later));
}

#[tokio::test]
async fn sizes_that_are_not_as_announced_are_refused() {
    let fake = FakeRegistry::start();
    let blob = fake.blob(b"0123456789");
    let repository = anonymous(&fake).await;
    let message = |fault: registry::Fault| fault.error.message().to_owned();
    assert!(message(read(&repository, &blob, 9, 0).await.unwrap_err()).contains("unexpected size"));
    assert!(message(read(&repository, &blob, 11, 0).await.unwrap_err()).contains("unexpected size"));
    // Chunked: nothing is announced.
    fake.rule(|_| {
        let body = "5\r\n01234\r\nf\r\n567890123456789\r\n0\r\n\r\n";
        Some(Reply::Send(Answer::new(200, body).with("Transfer-Encoding", "chunked")))
    });
    assert!(message(read(&repository, &blob, 10, 0).await.unwrap_err()).contains("larger than announced"));
    fake.behave();
    fake.rule(|_| Some(Reply::Send(Answer::new(206, "56789").with("Content-Range", "bytes 4-8/10"))));
    assert!(message(read(&repository, &blob, 10, 5).await.unwrap_err()).contains("unexpected range"));
    fake.behave();
    fake.rule(|seen| (seen.method == "GET").then(|| Reply::Send(Answer::new(200, vec![b' '; (4 << 20) + 1]))));
    assert!(message(repository.manifest("1").await.unwrap_err()).contains("larger than"));
}

#[tokio::test]
async fn a_registry_without_ranges_sends_everything() {
    let fake = FakeRegistry::start();
    let blob = fake.blob(b"0123456789");
    fake.rule(|seen| path_is(seen, "/blobs/").then(|| Reply::Send(Answer::new(200, "0123456789"))));
    let repository = anonymous(&fake).await;
    let download = repository.blob(&Digest::parse(&blob).unwrap(), 10, 4).await.unwrap();
    assert_eq!(download.offset, 0);
}

/// Credentials never follow a redirect to another host or scheme.
#[tokio::test]
async fn credentials_stay_with_their_host() {
    let (fake, other) = (FakeRegistry::start(), FakeRegistry::start());
    let blob = other.blob(b"elsewhere!");
    let elsewhere = format!("http://{}/v2/x/blobs/{blob}?signature=1", other.address());
    fake.rule(move |seen| {
        let authorized = seen.header("authorization") == "Basic bWU6c2VjcmV0";
        let asking = Answer::refusal(401, "UNAUTHORIZED", "x").with("WWW-Authenticate", "Basic realm=\"r\"");
        let moved = Answer::new(307, "").with("Location", &elsewhere);
        Some(Reply::Send(if authorized { moved } else { asking }))
    });
    let repository = open(&fake, me(), Access::Pull).await;
    assert_eq!(read(&repository, &blob, 10, 0).await.unwrap(), b"elsewhere!");
    let seen = other.seen();
    assert!(!seen.is_empty() && seen.iter().all(|s| s.header("authorization").is_empty()), "{seen:?}");
}

#[tokio::test]
async fn redirects_to_files_and_in_circles_are_refused() {
    let fake = FakeRegistry::start();
    let repository = anonymous(&fake).await;
    let digest = format!("sha256:{}", "a".repeat(64));
    for (location, text) in [
        ("file:///etc/passwd", "unsupported protocol scheme \"file\""),
        ("gopher://x/", "unsupported protocol scheme \"gopher\""),
        ("/v2/again", "stopped after 10 redirects"),
    ] {
        fake.rule(move |_| Some(Reply::Send(Answer::new(302, "").with("Location", location))));
        let error: Error = read(&repository, &digest, 10, 0).await.unwrap_err().into();
        assert!(error.message().contains(text), "{error}");
    }
}

/// A token server beside a registry that wants its tokens.
fn token_server(fake: &FakeRegistry, realm: &str) {
    let challenge = format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:app:pull\"");
    fake.rule(move |seen| {
        if seen.path.starts_with("/token") {
            let known = matches!(seen.header("authorization"), "" | "Basic bWU6c2VjcmV0");
            let body = r#"{"token":"t1","refresh_token":"r1","expires_in":300}"#;
            let answer = if known { Answer::new(200, body) } else { Answer::new(401, r#"{"details":"bad password"}"#) };
            return Some(Reply::Send(answer));
        }
        let shown = seen.header("authorization") == "Bearer t1";
        let refused = Answer::refusal(401, "UNAUTHORIZED", "authentication required");
        (!shown).then(|| Reply::Send(refused.with("WWW-Authenticate", &challenge)))
    });
}

#[tokio::test]
async fn tokens_are_fetched_once_and_shown() {
    let fake = FakeRegistry::start();
    fake.image("app", "1", &Image::of_noise(&[10]));
    token_server(&fake, &format!("http://{}/token", fake.address()));
    let repository = anonymous(&fake).await;
    for _ in 0..3 {
        repository.manifest("1").await.unwrap();
    }
    assert_eq!(fake.count("GET /token?service=reg&scope=repository%3Aapp%3Apull"), 1);
    let repository = open(&fake, me(), Access::Push).await;
    repository.manifest("1").await.unwrap();
    let asked = "GET /token?service=reg&scope=repository%3Aapp%3Apull%2Cpush&account=me";
    assert_eq!(fake.count(asked), 1, "{:?}", fake.seen());
    let wrong = Credentials { password: "x".into(), ..me() };
    let error = open(&fake, wrong, Access::Pull).await.manifest("1").await.unwrap_err().error;
    let told = format!(
        "failed to authorize: failed to fetch oauth token: unexpected status from GET request to http://{}/token: \
         401 Unauthorized: unauthorized: bad password",
        fake.address()
    );
    assert_eq!((error.kind(), error.message()), (Kind::Unauthorized, told.as_str()));
}

/// Whatever keeps a token from being fetched is told as that, with the server's own words behind it.
#[tokio::test]
async fn tokens_that_are_not_given_are_told() {
    for (status, shown, body, words) in [
        (401, "401 Unauthorized", r#"{"details":"no"}"#, "unauthorized: no"),
        (403, "403 Forbidden", r#"{"details":"no"}"#, "no"),
        (404, "404 Not Found", "", "404"),
        (500, "500 Internal Server Error", "", "500"),
    ] {
        let fake = FakeRegistry::start();
        fake.image("app", "1", &Image::of_noise(&[10]));
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"reg\"", fake.address());
        fake.rule(move |seen| {
            Some(Reply::Send(if seen.path.starts_with("/token") {
                Answer::new(status, body)
            } else {
                Answer::refusal(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", &challenge)
            }))
        });
        for (credentials, which) in [(Credentials::default(), "anonymous"), (me(), "oauth")] {
            let error = open(&fake, credentials, Access::Pull).await.manifest("1").await.unwrap_err().error;
            let told = format!(
                "failed to authorize: failed to fetch {which} token: unexpected status from GET request to \
                 http://{}/token: {shown}",
                fake.address()
            );
            assert!(error.message().starts_with(&told), "{status}: {}", error.message());
            assert!(error.message().contains(words), "{status}: {}", error.message());
        }
    }
}

#[tokio::test]
async fn identity_and_registry_tokens_are_used() {
    let fake = FakeRegistry::start();
    fake.image("app", "1", &Image::of_noise(&[10]));
    token_server(&fake, &format!("http://{}/token", fake.address()));
    let identity = Credentials { identitytoken: "refresh me".into(), ..Credentials::default() };
    open(&fake, identity, Access::Pull).await.manifest("1").await.unwrap();
    assert_eq!(fake.count("POST /token"), 1);
    let token = Credentials { registrytoken: "t1".into(), ..Credentials::default() };
    let before = fake.count("");
    open(&fake, token, Access::Pull).await.manifest("1").await.unwrap();
    assert_eq!(fake.count("") - before, 1, "shown at once");
    let foreign = Credentials { serveraddress: "other.test".into(), ..me() };
    open(&fake, foreign, Access::Pull).await.manifest("1").await.unwrap();
    let tokens: Vec<_> = fake.seen().into_iter().filter(|s| s.path.starts_with("/token")).collect();
    assert_eq!(tokens.last().unwrap().header("authorization"), "", "credentials of another registry");
}

#[tokio::test]
async fn without_credentials_basic_is_hopeless() {
    let fake = FakeRegistry::start();
    fake.rule(|_| {
        let refused = Answer::refusal(401, "UNAUTHORIZED", "x").with("WWW-Authenticate", "Basic realm=\"r\"");
        Some(Reply::Send(refused))
    });
    let error = anonymous(&fake).await.manifest("1").await.unwrap_err().error;
    let expected = format!("Get \"http://{}/v2/app/manifests/1\": no basic auth credentials", fake.address());
    assert_eq!(error.message(), expected);
}

/// The golden texts of `auth bad` and `auth ok`.
#[tokio::test]
async fn logins_are_answered_as_recorded() {
    let fake = FakeRegistry::start();
    fake.rule(|seen| {
        let known = seen.header("authorization") == "Basic bWU6c2VjcmV0";
        let refused = Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"r\"");
        (!known).then_some(Reply::Send(refused))
    });
    let registries = Registries::new(settings());
    let credentials = Credentials { serveraddress: fake.address(), ..me() };
    assert_eq!(registry::login(&registries, credentials.clone()).await.unwrap(), "");
    let wrong = Credentials { password: "x".into(), ..credentials.clone() };
    let error = registry::login(&registries, wrong).await.unwrap_err();
    let text = format!("login attempt to http://{}/v2/ failed with status: 401 Unauthorized", fake.address());
    assert_eq!((error.kind(), error.message()), (Kind::System, text.as_str()));
    fake.behave();
    token_server(&fake, &format!("http://{}/token", fake.address()));
    assert_eq!(registry::login(&registries, credentials).await.unwrap(), "r1");
}

#[tokio::test]
async fn blobs_are_mounted_sent_whole_or_in_chunks() {
    let fake = FakeRegistry::start();
    let repository = open(&fake, Credentials::default(), Access::Push).await;
    let bytes = noise(3, 9 << 20);
    let digest = Digest::parse(&FakeRegistry::start().blob(&bytes)).unwrap();
    let source = |from: u64, length: u64| {
        let (sender, receiver) = tokio::sync::mpsc::channel(200);
        for piece in bytes[from as usize..(from + length) as usize].chunks(64 << 10) {
            sender.try_send(Ok(piece.to_vec().into())).unwrap();
        }
        receiver
    };
    for chunked in [false, true] {
        assert!(!repository.has_blob(&digest).await.unwrap());
        let (begun, upload) = repository.begin_upload(&digest, Some("other")).await.unwrap();
        assert_eq!(begun, Begun::Upload);
        match chunked {
            false => upload.unwrap().whole(&digest, bytes.len() as u64, &source).await.unwrap(),
            true => upload.unwrap().chunked(&digest, bytes.len() as u64, &source).await.unwrap(),
        }
        assert!(fake.blob_bytes(digest.as_str()).as_deref() == Some(&bytes[..]));
        fake.forget(digest.as_str());
    }
    assert_eq!(fake.count("PATCH"), 2);
    fake.rule(|seen| (seen.method == "POST" && path_is(seen, "mount=")).then(|| Reply::Send(Answer::new(201, ""))));
    assert_eq!(repository.begin_upload(&digest, Some("other")).await.unwrap().0, Begun::Mounted);
    let put = repository.put_manifest("1", MANIFEST, &bytes::Bytes::from_static(b"{}")).await.unwrap();
    assert!(put.is_some());
}

#[tokio::test]
async fn mirrors_come_first_and_their_failures_do_not_count() {
    let (hub, mirror) = (FakeRegistry::start(), FakeRegistry::start());
    let digest = hub.image("app", "1", &Image::of_noise(&[10]));
    mirror.image("app", "1", &Image::of_noise(&[10]));
    let dir = tempfile::tempdir().unwrap();
    let hosts = format!("[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n", mirror.address());
    std::fs::create_dir(dir.path().join(hub.address())).unwrap();
    std::fs::write(dir.path().join(hub.address()).join("hosts.toml"), hosts).unwrap();
    let settings = Settings { certs_dirs: vec![dir.path().into()], ..settings() };
    let repository = with(settings, &hub, me(), Access::Pull).await;
    assert_eq!(repository.resolve("1").await.unwrap().unwrap().digest.as_str(), digest);
    assert_eq!((mirror.count("HEAD"), hub.count("HEAD")), (1, 0));
    assert!(mirror.seen()[0].path.ends_with(&format!("?ns={}", hub.address().replace(':', "%3A"))));
    mirror.rule(|_| Some(Reply::Send(Answer::new(500, ""))));
    assert_eq!(repository.resolve("1").await.unwrap().unwrap().digest.as_str(), digest);
    assert_eq!(hub.count("HEAD"), 1);
    assert!(mirror.seen().iter().all(|s| s.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_proxy_is_asked() {
    let proxy = FakeRegistry::start();
    proxy.image("app", "1", &Image::of_noise(&[10]));
    let proxies = registry::Proxies {
        http: format!("http://u:p@{}", proxy.address()),
        https: format!("http://{}", proxy.address()),
        none_for: String::new(),
    };
    let settings = Settings { proxies, insecure: vec!["far.test:5000".into()], ..settings() };
    let reference = ImageRef::parse_normalized("far.test:5000/app:1").unwrap();
    let registries = Registries::new(settings);
    let repository = registries.repository(&reference, Credentials::default(), Access::Pull).await.unwrap();
    let error = repository.manifest("1").await.unwrap_err().error;
    assert_eq!(error.message(), "received unexpected HTTP status: 404 Not Found");
    let seen = proxy.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("CONNECT", "far.test:5000"));
    assert_eq!(seen[1].path, "http://far.test:5000/v2/app/manifests/1");
    assert_eq!(seen[1].header("proxy-authorization"), "Basic dTpw");
}
