//! Package URLs of images (purl-spec): `pkg:docker/busybox@latest?platform=linux%2Famd64`.

use std::fmt::Write;

use model::reference::ImageRef;

/// Where an image lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In a registry.
    Docker,
    /// In a layout on the client's disk.
    Oci,
}

/// The URL of an image, for a platform (`linux/arm/v7`) if one is given.
pub fn of(kind: Kind, reference: &ImageRef, platform: Option<&str>) -> String {
    let named = reference.clone().with_default_tag();
    let kind = match kind {
        Kind::Docker => "docker",
        Kind::Oci => "oci",
    };
    let name: Vec<String> = named.familiar_name().split('/').map(|part| escaped(part, b"")).collect();
    let mut url = format!("pkg:{kind}/{}", name.join("/"));
    if let Some(tag) = &named.tag {
        url.push('@');
        url.push_str(&escaped(tag, b""));
    }
    let digest = named.digest.as_ref().map(|digest| ("digest", digest.to_string()));
    let platform = platform.map(|platform| ("platform", platform.to_owned()));
    for (at, (name, value)) in digest.into_iter().chain(platform).enumerate() {
        let sign = if at == 0 { '?' } else { '&' };
        // Writing to a text does not fail.
        _ = write!(url, "{sign}{name}={}", escaped(&value, b""));
    }
    url
}

/// Percent-encodes what is neither unreserved (RFC 3986, 2.3), a colon, nor in `also`.
fn escaped(text: &str, also: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tags_digests_and_platforms_have_their_places() {
        let url = |text: &str, platform| of(Kind::Docker, &ImageRef::parse_normalized(text).unwrap(), platform);
        assert_eq!(url("busybox", None), "pkg:docker/busybox@latest");
        assert_eq!(url("a/b:1", Some("linux/arm/v7")), "pkg:docker/a/b@1?platform=linux%2Farm%2Fv7");
        assert_eq!(url("localhost:5000/x:1", None), "pkg:docker/localhost:5000/x@1");
        let digest = format!("sha256:{}", "1".repeat(64));
        assert_eq!(url(&format!("b@{digest}"), None), format!("pkg:docker/b?digest={digest}"));
        let both = url(&format!("b:2@{digest}"), Some("linux/amd64"));
        assert_eq!(both, format!("pkg:docker/b@2?digest={digest}&platform=linux%2Famd64"));
    }
}
