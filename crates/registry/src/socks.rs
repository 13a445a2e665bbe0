//! SOCKS 5 (RFC 1928) with a name and a password perhaps (RFC 1929): asks a proxy for a connection. Names go to the proxy
//! as they are.

use std::io;
use std::net::IpAddr;

use model::authority::Host;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::connect::unescape;
use crate::proxy::Proxy;

const VERSION: u8 = 5;
const PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;

fn refuse(why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("socks connect: {why}"))
}

/// A text of at most 255 bytes, its length before it.
fn counted(bytes: &[u8], what: &str) -> io::Result<Vec<u8>> {
    let length = u8::try_from(bytes.len()).map_err(|_| refuse(format!("{what} is too long")))?;
    Ok([&[length], bytes].concat())
}

/// Asks for a connection to a host; afterwards the stream leads there.
pub async fn ask<S>(stream: &mut S, proxy: &Proxy, host: &Host, port: u16) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let credentials = proxy.user.as_ref().map(|user| {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        (unescape(name), unescape(password))
    });
    let methods: &[u8] = if credentials.is_some() {
        &[VERSION, 2, NO_AUTHENTICATION, PASSWORD]
    } else {
        &[VERSION, 1, NO_AUTHENTICATION]
    };
    stream.write_all(methods).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => {}
        ([VERSION, PASSWORD], Some((name, password))) => {
            let request = [vec![PASSWORD_VERSION], counted(&name, "the name")?, counted(&password, "the password")?];
            stream.write_all(&request.concat()).await?;
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await?;
            if answer[1] != 0 {
                return Err(refuse("username/password authentication failed"));
            }
        }
        ([VERSION, _], _) => return Err(refuse("no acceptable authentication methods")),
        _ => return Err(refuse(format!("unexpected protocol version {}", chosen[0]))),
    }
    let address = match host {
        Host::Address(IpAddr::V4(address)) => [&[V4][..], &address.octets()].concat(),
        Host::Address(IpAddr::V6(address)) => [&[V6][..], &address.octets()].concat(),
        Host::Name(name) => [vec![NAME], counted(name.as_bytes(), "the host")?].concat(),
    };
    stream.write_all(&[&[VERSION, CONNECT, 0][..], &address, &port.to_be_bytes()].concat()).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    if head[0] != VERSION {
        return Err(refuse(format!("unexpected protocol version {}", head[0])));
    }
    if head[1] != 0 {
        return Err(refuse(failure(head[1])));
    }
    let bound = match head[3] {
        V4 => 4,
        V6 => 16,
        NAME => usize::from(stream.read_u8().await?),
        other => return Err(refuse(format!("unknown address type {other}"))),
    };
    // Where the proxy's own end is, with its port, is of no use.
    stream.read_exact(&mut [0; 255 + 2][..bound + 2]).await?;
    Ok(())
}

/// RFC 1928, section 6.
fn failure(code: u8) -> String {
    let known = [
        "general SOCKS server failure",
        "connection not allowed by ruleset",
        "network unreachable",
        "host unreachable",
        "connection refused",
        "TTL expired",
        "command not supported",
        "address type not supported",
    ];
    let at = usize::from(code).checked_sub(1).and_then(|at| known.get(at));
    at.map_or_else(|| format!("unknown code: {code}"), |text| (*text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn talk(user: &str, host: &str, answers: &[u8]) -> (Vec<u8>, Result<(), String>) {
        let proxy = crate::proxy::parse(&format!("socks5://{user}p.test")).unwrap();
        let host = Host::parse(host).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(4096);
            theirs.write_all(answers).await.unwrap();
            theirs.shutdown().await.unwrap();
            let outcome = ask(&mut ours, &proxy, &host, 443).await.map_err(|e| e.to_string());
            drop(ours);
            let mut asked = Vec::new();
            theirs.read_to_end(&mut asked).await.unwrap();
            (asked, outcome)
        })
    }

    #[test]
    fn a_connection_is_asked_for() {
        let good = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(talk("", "r.test", &good), (b"\x05\x01\x00\x05\x01\x00\x03\x06r.test\x01\xbb".to_vec(), Ok(())));
        let (asked, outcome) = talk("u:p%40@", "10.0.0.1", &[5, 2, 1, 0, 5, 0, 0, 3, 1, b'x', 0, 0]);
        let expected = b"\x05\x02\x00\x02\x01\x01u\x02p@\x05\x01\x00\x01\x0a\x00\x00\x01\x01\xbb";
        assert_eq!((asked.as_slice(), outcome), (&expected[..], Ok(())));
    }

    #[test]
    fn refusals_are_named() {
        let why = |user: &str, answers: &[u8]| talk(user, "[::1]", answers).1.unwrap_err();
        assert_eq!(why("", &[5, 255]), "socks connect: no acceptable authentication methods");
        assert_eq!(why("", &[5, 2]), "socks connect: no acceptable authentication methods");
        assert_eq!(why("u@", &[5, 2, 1, 1]), "socks connect: username/password authentication failed");
        assert_eq!(why("", &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0]), "socks connect: connection refused");
        assert_eq!(why("", &[5, 0, 5, 9, 0, 1]), "socks connect: unknown code: 9");
        assert_eq!(why("", b"HTTP/1.1"), "socks connect: unexpected protocol version 72");
        assert_eq!(why(&format!("{}@", "u".repeat(256)), &[5, 2]), "socks connect: the name is too long");
    }

    proptest! {
        #[test]
        fn any_answer_is_taken_or_refused(answers in proptest::collection::vec(any::<u8>(), 0..32)) {
            drop(talk("u:p@", "r.test", &answers));
        }
    }
}
