//! From `--tls*`, the file and the environment to the certificates of the tcp listeners.
//!
//! - `--tlsverify`, whatever its value, turns TLS on; TLS without `tlsverify` verifies clients.
//! - Default files lie in `$DOCKER_CERT_PATH`, else `$DOCKER_CONFIG`, else `~/.docker`.

use std::path::{Path, PathBuf};

use super::{Env, Listen, Tls, go};

/// Fills `listen.tls` and `listen.insecure_tcp_accepted` from the raw options.
pub fn resolve(listen: &mut Listen, env: &Env) -> Result<(), String> {
    let wanted = if listen.tlsverify_flag.is_some() { Some(true) } else { listen.tls_flag };
    listen.insecure_tcp_accepted = wanted.is_some();
    if wanted != Some(true) {
        listen.tls = None;
        return Ok(());
    }
    let dir = certificate_dir(env);
    let given = |text: &str, name: &str| if text.is_empty() { dir.join(name) } else { PathBuf::from(text) };
    let tls = Tls {
        ca: given(&listen.tlscacert, "ca.pem"),
        cert: given(&listen.tlscert, "cert.pem"),
        key: given(&listen.tlskey, "key.pem"),
        verify_clients: listen.tlsverify_flag.unwrap_or(true),
    };
    check(&tls).map_err(|why| format!("invalid TLS configuration: {why}"))?;
    listen.tls = Some(tls);
    Ok(())
}

fn certificate_dir(env: &Env) -> PathBuf {
    let var = |name: &str| env.get(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("DOCKER_CERT_PATH")
        .or_else(|| var("DOCKER_CONFIG"))
        .unwrap_or_else(|| var("HOME").unwrap_or_else(|| "/root".into()).join(".docker"))
}

fn check(tls: &Tls) -> Result<(), String> {
    let quoted = |path: &Path| go::quote(&path.display().to_string());
    for path in [&tls.cert, &tls.key] {
        if let Err(error) = std::fs::File::open(path) {
            let (cert, key) = (quoted(&tls.cert), quoted(&tls.key));
            return Err(format!(
                "could not load X509 key pair (cert: {cert}, key: {key}): open {}: {}",
                path.display(),
                super::file::errno_text(&error)
            ));
        }
    }
    if tls.verify_clients
        && let Err(error) = std::fs::File::open(&tls.ca)
    {
        return Err(format!(
            "could not read CA certificate {}: open {}: {}",
            quoted(&tls.ca),
            tls.ca.display(),
            super::file::errno_text(&error)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(tls: Option<bool>, verify: Option<bool>) -> (Listen, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "x").unwrap();
            path.display().to_string()
        };
        let listen = Listen {
            tls_flag: tls,
            tlsverify_flag: verify,
            tlscacert: file("ca.pem"),
            tlscert: file("cert.pem"),
            tlskey: file("key.pem"),
            ..Listen::default()
        };
        (listen, dir)
    }

    #[test]
    fn what_turns_tls_on() {
        for (tls, verify, expected, accepted) in [
            (None, None, None, false),
            (Some(false), None, None, true),
            (Some(true), None, Some(true), true),
            (None, Some(true), Some(true), true),
            (None, Some(false), Some(false), true),
            (Some(true), Some(false), Some(false), true),
        ] {
            let (mut listen, _dir) = listen(tls, verify);
            resolve(&mut listen, &Env::new()).unwrap();
            assert_eq!(listen.tls.as_ref().map(|t| t.verify_clients), expected, "{tls:?} {verify:?}");
            assert_eq!(listen.insecure_tcp_accepted, accepted);
        }
    }

    #[test]
    fn missing_certificates_are_named() {
        let (mut listen, _dir) = listen(Some(true), None);
        listen.tlscert = "/nonexistent/cert.pem".into();
        let text = resolve(&mut listen, &Env::new()).unwrap_err();
        assert!(
            text.starts_with(
                "invalid TLS configuration: could not load X509 key pair (cert: \"/nonexistent/cert.pem\""
            ),
            "{text}"
        );
        assert!(text.ends_with("open /nonexistent/cert.pem: no such file or directory"), "{text}");
    }
}
