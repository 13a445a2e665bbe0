//! A registry that is insecure by its addresses is asked at these and nowhere else, whatever its name means later.

use std::fs;
use std::path::Path;

use model::reference::ImageRef;
use registry::{Access, Credentials, Registries, Settings};
use serde_json::json;
use testkit::fake_registry::{Answer, FakeRegistry, Image, Reply};

use crate::{path_is, settings};

fn named(dir: &Path) -> Settings {
    Settings { hosts_file: dir.join("hosts"), resolv_conf: dir.join("none"), ..settings() }
}

/// Retries, redirects within the registry and its token server go where the first request went.
#[tokio::test]
async fn a_name_that_changes_its_meaning_leads_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("hosts"), "127.0.0.1 near.test\n").unwrap();
    let fake = FakeRegistry::start();
    fake.image("app", "1", &Image::of_noise(&[10]));
    let host = fake.address().replace("127.0.0.1", "near.test");
    let realm = format!("Bearer realm=\"http://{host}/token\",service=\"x\"");
    let mut failures = 2;
    fake.rule(move |seen| {
        if path_is(seen, "/token") {
            return Some(Reply::Send(Answer::new(200, json!({"token": "t"}).to_string())));
        }
        if seen.header("authorization").is_empty() {
            return Some(Reply::Send(Answer::new(401, "").with("WWW-Authenticate", &realm)));
        }
        failures -= 1;
        match failures {
            1 => Some(Reply::Cut(Some(Answer::new(503, "")), 0)),
            0 => Some(Reply::Send(Answer::new(307, "").with("Location", &seen.path).with("Connection", "close"))),
            _ => None,
        }
    });
    let reference = ImageRef::parse_normalized(&format!("{host}/app:1")).unwrap();
    let registries = Registries::new(named(dir.path()));
    let session = registries.repository(&reference, Credentials::default(), Access::Pull).await.unwrap();
    // Nobody listens there.
    fs::write(dir.path().join("hosts"), "127.77.0.1 near.test\n").unwrap();
    session.manifest("1").await.unwrap();
    assert_eq!((fake.count("GET /token"), fake.count("GET /v2/app/manifests/1")), (1, 4));
    let session = registries.repository(&reference, Credentials::default(), Access::Pull).await.unwrap();
    let error = session.manifest("1").await.unwrap_err().error;
    assert!(error.message().contains("dial tcp 127.77.0.1:"), "{error}");
}

/// One near address among others makes nothing insecure: no request goes out in clear.
#[tokio::test]
async fn one_near_address_among_others_is_not_enough() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeRegistry::start();
    fake.image("app", "1", &Image::of_noise(&[10]));
    for (other, insecure) in
        [("127.0.0.2", true), ("192.0.2.1", false), ("2001:db8::1", false), ("::ffff:192.0.2.1", false)]
    {
        fs::write(dir.path().join("hosts"), format!("127.0.0.1 torn.test\n{other} torn.test\n")).unwrap();
        let name = format!("{}/app:1", fake.address().replace("127.0.0.1", "torn.test"));
        let reference = ImageRef::parse_normalized(&name).unwrap();
        let registries = Registries::new(named(dir.path()));
        let session = registries.repository(&reference, Credentials::default(), Access::Pull).await.unwrap();
        assert_eq!(session.manifest("1").await.is_ok(), insecure, "{other}");
        assert_eq!(fake.count("GET"), 1, "{other}");
    }
}
