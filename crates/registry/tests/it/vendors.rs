//! What registries that people use do beside the specification, a line each, against one that does just that.

use model::digest::Digest;
use registry::{Access, Begun, Credentials};
use testkit::fake_registry::{Answer, FakeRegistry, Image, Reply, Seen, gzip, noise};

use crate::{me, open, path_is, read};

/// What is done with such a registry.
#[derive(Clone, Copy, PartialEq)]
enum Deed {
    Pull,
    Push,
    Tags,
}

/// A habit: what it is, who has it, what is done, and the rules that make the stub have it; the second is another server.
type Habit = (&'static str, &'static str, Deed, fn(&FakeRegistry, &FakeRegistry));

const HABITS: &[Habit] = &[
    ("basic credentials for everything", "ECR", Deed::Pull, |fake, _| basic(fake)),
    ("a token in `token`", "Docker Hub, Quay, GitLab", Deed::Pull, |fake, _| tokens(fake, r#"{"token":"t1"}"#, "")),
    ("a token in `access_token`", "ACR, Harbor", Deed::Pull, |fake, _| tokens(fake, r#"{"access_token":"t1"}"#, "")),
    ("both, equal", "Docker Hub, Harbor", Deed::Push, |fake, _| {
        tokens(fake, r#"{"token":"t1","access_token":"t1","expires_in":300,"issued_at":"2024-01-01T00:00:00Z"}"#, "");
    }),
    ("a challenge without a scope", "Artifactory, Nexus", Deed::Push, |fake, _| {
        tokens(fake, r#"{"token":"t1"}"#, "none")
    }),
    ("a challenge with a scope of its own", "GitLab", Deed::Pull, |fake, _| tokens(fake, r#"{"token":"t1"}"#, "more")),
    ("two challenges", "GHCR, Nexus", Deed::Pull, |fake, _| tokens(fake, r#"{"token":"t1"}"#, "two")),
    ("a token that is refused once", "Harbor", Deed::Pull, |fake, _| refuse_twice(fake)),
    ("blobs behind a 307 to another host", "ECR, GHCR, GitLab", Deed::Pull, |fake, other| elsewhere(fake, other, 307)),
    ("blobs behind a 301", "Nexus", Deed::Pull, |fake, other| elsewhere(fake, other, 301)),
    ("blobs behind a 302", "Artifactory", Deed::Pull, |fake, other| elsewhere(fake, other, 302)),
    ("blobs behind a 303", "Quay", Deed::Pull, |fake, other| elsewhere(fake, other, 303)),
    ("a relative redirect with dot segments", "Artifactory", Deed::Pull, |fake, _| dots(fake)),
    ("no Docker-Content-Digest", "Nexus", Deed::Pull, |fake, _| undigested(fake)),
    ("HEAD refused by 405", "Nexus", Deed::Pull, |fake, _| headless(fake, 405)),
    ("HEAD refused by 404", "Artifactory", Deed::Pull, |fake, _| headless(fake, 404)),
    ("gzip although identity was asked", "front ends", Deed::Pull, |fake, _| compressed(fake)),
    ("connections closed after each answer", "front ends", Deed::Pull, |fake, _| closing(fake)),
    ("429 with Retry-After", "Docker Hub, GitLab", Deed::Pull, |fake, _| busy(fake)),
    ("tags in pages by Link", "ECR, Quay, Harbor", Deed::Tags, |fake, _| pages(fake, "/v2/app/tags/list?last=a&n=1")),
    ("tags in pages by a relative Link", "Artifactory", Deed::Tags, |fake, _| pages(fake, "list?last=a&n=1")),
    ("tags in pages by an absolute Link", "GitLab", Deed::Tags, |fake, _| {
        let next = format!("http://{}/v2/app/tags/list?last=a&n=1", fake.address());
        pages(fake, &next);
    }),
    ("202 for the closing PUT", "Quay", Deed::Push, |fake, _| closing_put(fake, 202)),
    ("204 for the closing PUT", "Harbor", Deed::Push, |fake, _| closing_put(fake, 204)),
    ("200 for the closing PUT", "Nexus", Deed::Push, |fake, _| closing_put(fake, 200)),
    ("200 for the beginning of an upload", "Artifactory", Deed::Push, |fake, _| beginning(fake, 200)),
    ("an upload location relative with dot segments", "Artifactory", Deed::Push, |fake, _| {
        upload_at(fake, |path| format!("./../uploads/./x/../{}", path.rsplit('/').next().unwrap()))
    }),
    ("an upload location with a query of its own", "Harbor, GitLab", Deed::Push, |fake, _| {
        upload_at(fake, |path| format!("{path}?_state=a%3Db"));
    }),
    ("an upload location at another host", "ECR, GHCR", Deed::Push, |fake, other| upload_elsewhere(fake, other)),
    ("OCI-Subject in the answer to a manifest", "Harbor, Quay", Deed::Push, |fake, _| subject(fake)),
];

#[tokio::test]
async fn every_habit_is_coped_with() {
    for (habit, whose, deed, rules) in HABITS {
        let (fake, other) = (FakeRegistry::start(), FakeRegistry::start());
        let image = Image::of_noise(&[200_000]);
        let digest = fake.image("app", "1", &image);
        let layer = fake.blob(&image.layers[0]);
        other.blob(&image.layers[0]);
        rules(&fake, &other);
        let told = match deed {
            Deed::Pull => pull(&fake, (&digest, &layer), &image).await,
            Deed::Push => push(&fake, &other).await,
            Deed::Tags => tags(&fake).await,
        };
        assert!(told.is_ok(), "{habit} ({whose}): {told:?}: {:?}", fake.seen());
        let leaked = other.seen().iter().any(|seen| !seen.header("authorization").is_empty());
        assert!(!leaked, "{habit} ({whose}): credentials went to another host");
    }
}

fn differs<T: PartialEq + ?Sized>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what} is another")) }
}

async fn pull(fake: &FakeRegistry, (digest, layer): (&str, &str), image: &Image) -> Result<(), String> {
    let repository = open(fake, me(), Access::Pull).await;
    let text = |fault: registry::Fault| fault.error.message().to_owned();
    if let Some(resolved) = repository.resolve("1").await.map_err(text)? {
        differs("digest", &resolved.digest.as_str(), &digest)?;
    }
    differs("manifest", &repository.manifest("1").await.map_err(text)?.bytes[..], &image.manifest[..])?;
    let by_digest = repository.manifest_by_digest(&Digest::parse(digest).unwrap()).await.map_err(text)?;
    differs("manifest by digest", &by_digest.bytes[..], &image.manifest[..])?;
    let size = image.layers[0].len() as u64;
    differs("blob", &read(&repository, layer, size, 0).await.map_err(text)?, &image.layers[0])
}

async fn push(fake: &FakeRegistry, other: &FakeRegistry) -> Result<(), String> {
    let repository = open(fake, me(), Access::Push).await;
    let text = |fault: registry::Fault| fault.error.message().to_owned();
    let bytes = noise(5, 300_000);
    let digest = Digest::of(model::digest::Algorithm::Sha256, &bytes);
    if repository.has_blob(&digest).await.map_err(text)? {
        return Err("the blob is there already".into());
    }
    let (begun, upload) = repository.begin_upload(&digest, None).await.map_err(text)?;
    let Some(upload) = upload.filter(|_| begun == Begun::Upload) else { return Err("no upload".into()) };
    let source = |from: u64, length: u64| {
        let (sender, receiver) = tokio::sync::mpsc::channel(100);
        for piece in bytes[from as usize..(from + length) as usize].chunks(64 << 10) {
            sender.try_send(Ok(piece.to_vec().into())).unwrap();
        }
        receiver
    };
    upload.whole(&digest, bytes.len() as u64, &source).await.map_err(text)?;
    let kept = fake.blob_bytes(digest.as_str()).or_else(|| other.blob_bytes(digest.as_str()));
    differs("blob", &kept, &Some(bytes.clone()))?;
    let manifest = br#"{"schemaVersion":2}"#;
    let given =
        repository.put_manifest("2", "application/x", &bytes::Bytes::from_static(manifest)).await.map_err(text)?;
    match given {
        Some(given) if !given.is_of(manifest) => Err(format!("the manifest is {given}")),
        _ => Ok(()),
    }
}

async fn tags(fake: &FakeRegistry) -> Result<(), String> {
    let repository = open(fake, Credentials::default(), Access::Pull).await;
    let found = repository.tags().await.map_err(|fault| fault.error.message().to_owned())?;
    differs("list", &found, &vec!["a".to_owned(), "b".to_owned()])
}

/// A rule that answers what it gives an answer to.
fn answering(fake: &FakeRegistry, mut answer: impl FnMut(&Seen) -> Option<Answer> + Send + 'static) {
    fake.rule(move |seen| answer(seen).map(Reply::Send));
}

fn unauthorized(challenges: &[String]) -> Answer {
    let refused = Answer::refusal(401, "UNAUTHORIZED", "authentication required");
    challenges.iter().fold(refused, |refused, challenge| refused.with("WWW-Authenticate", challenge))
}

fn basic(fake: &FakeRegistry) {
    answering(fake, |seen| {
        (seen.header("authorization") != "Basic bWU6c2VjcmV0").then(|| unauthorized(&["Basic realm=\"r\"".into()]))
    });
}

fn challenge(fake: &FakeRegistry) -> String {
    format!("Bearer realm=\"http://{}/service/token?x=1\",service=\"reg\"", fake.address())
}

fn tokens(fake: &FakeRegistry, body: &'static str, scope: &str) {
    let plain = challenge(fake);
    let challenges = match scope {
        "none" => vec![plain],
        "more" => vec![format!("{plain},scope=\"repository:app:pull repository:base:pull\",error=\"invalid_token\"")],
        "two" => vec!["Basic realm=\"r\"".into(), format!("{plain},scope=\"repository:app:pull\"")],
        _ => vec![format!("{plain},scope=\"repository:app:pull\"")],
    };
    answering(fake, move |seen| {
        if seen.path.starts_with("/service/token?x=1&") {
            return Some(Answer::new(200, body));
        }
        (!matches!(seen.header("authorization"), "Bearer t1" | "Basic bWU6c2VjcmV0")).then(|| unauthorized(&challenges))
    });
}

fn refuse_twice(fake: &FakeRegistry) {
    let (challenges, mut given) = ([challenge(fake)], 0);
    answering(fake, move |seen| {
        if seen.path.starts_with("/service/token") {
            given += 1;
            return Some(Answer::new(200, format!("{{\"token\":\"t{given}\"}}")));
        }
        // The first is of a server that has not heard of it yet.
        (seen.header("authorization") != "Bearer t2").then(|| unauthorized(&challenges))
    });
}

fn elsewhere(fake: &FakeRegistry, other: &FakeRegistry, status: u16) {
    basic(fake);
    let there = other.address();
    answering(fake, move |seen| {
        let authorized = !seen.header("authorization").is_empty();
        (path_is(seen, "/blobs/sha256:") && authorized && seen.method == "GET").then(|| {
            Answer::new(status, "").with("Location", &format!("http://{there}{}?X-Signature=a%2Fb", seen.path))
        })
    });
}

fn dots(fake: &FakeRegistry) {
    answering(fake, |seen| {
        let digest = seen.path.strip_prefix("/v2/app/blobs/")?.to_owned();
        Some(Answer::new(302, "").with("Location", &format!("../../x/./../app/../mirror/blobs/{digest}")))
    });
}

fn undigested(fake: &FakeRegistry) {
    let image = Image::of_noise(&[200_000]);
    answering(fake, move |seen| {
        path_is(seen, "/manifests/")
            .then(|| Answer::new(200, image.manifest.clone()).with("Content-Type", "text/plain"))
    });
}

fn headless(fake: &FakeRegistry, status: u16) {
    answering(fake, move |seen| (seen.method == "HEAD").then(|| Answer::new(status, "")));
}

fn compressed(fake: &FakeRegistry) {
    let image = Image::of_noise(&[200_000]);
    answering(fake, move |seen| {
        let body = if path_is(seen, "/manifests/") { &image.manifest } else { &image.layers[0] };
        let known = seen.method == "GET" && (path_is(seen, "/manifests/") || path_is(seen, "/blobs/"));
        known.then(|| Answer::new(200, gzip(body)).with("Content-Encoding", "gzip"))
    });
}

fn closing(fake: &FakeRegistry) {
    let image = Image::of_noise(&[200_000]);
    fake.rule(move |seen| {
        let body = if path_is(seen, "/manifests/") { &image.manifest } else { &image.layers[0] };
        let answer = Answer::new(200, body.clone()).with("Connection", "close");
        // Everything is sent, and the connection closed.
        (seen.method == "GET").then_some(Reply::Cut(Some(answer), body.len()))
    });
}

fn busy(fake: &FakeRegistry) {
    let mut left = 2;
    answering(fake, move |seen| {
        left -= i32::from(seen.method == "GET");
        let refusal = Answer::refusal(429, "TOOMANYREQUESTS", "later").with("Retry-After", "0");
        (seen.method == "GET" && left >= 0).then_some(refusal)
    });
}

fn pages(fake: &FakeRegistry, next: &str) {
    let link = format!("<{next}>; rel=\"next\"");
    answering(fake, move |seen| match (path_is(seen, "/tags/list"), path_is(seen, "last=a")) {
        (true, false) => Some(Answer::new(200, r#"{"name":"app","tags":["a"]}"#).with("Link", &link)),
        (true, true) => Some(Answer::new(200, r#"{"name":"app","tags":["b"]}"#)),
        _ => None,
    });
}

/// The blob is kept, unseen until it is asked for by its bytes.
fn closing_put(fake: &FakeRegistry, status: u16) {
    let bytes = noise(5, 300_000);
    let digest = Digest::of(model::digest::Algorithm::Sha256, &bytes);
    answering(fake, move |seen| {
        let closes = seen.method == "PUT" && path_is(seen, "/blobs/uploads/");
        closes.then(|| Answer::new(status, ""))
    });
    // What the stub would have kept.
    let missing = digest.as_str().to_owned();
    answering(fake, move |seen| {
        (seen.method == "HEAD" && path_is(seen, &missing)).then(|| Answer::refusal(404, "BLOB_UNKNOWN", "unknown"))
    });
    fake.blob_as(digest.as_str(), &bytes);
}

fn beginning(fake: &FakeRegistry, status: u16) {
    answering(fake, move |seen| {
        (seen.method == "POST").then(|| Answer::new(status, "").with("Location", "/v2/app/blobs/uploads/own"))
    });
}

fn upload_at(fake: &FakeRegistry, place: fn(&str) -> String) {
    answering(fake, move |seen| {
        let place = place("/v2/app/blobs/uploads/own");
        (seen.method == "POST").then(|| Answer::new(202, "").with("Location", &place))
    });
}

fn upload_elsewhere(fake: &FakeRegistry, other: &FakeRegistry) {
    basic(fake);
    let place = format!("http://{}/v2/app/blobs/uploads/own", other.address());
    answering(fake, move |seen| {
        let authorized = !seen.header("authorization").is_empty();
        (seen.method == "POST" && authorized).then(|| Answer::new(202, "").with("Location", &place))
    });
}

fn subject(fake: &FakeRegistry) {
    answering(fake, |seen| {
        let puts = seen.method == "PUT" && path_is(seen, "/manifests/");
        puts.then(|| Answer::new(201, "").with("OCI-Subject", &format!("sha256:{}", "a".repeat(64))))
    });
}
