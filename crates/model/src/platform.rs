//! Platforms: `linux/arm64/v8`, in the registries' spelling.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: [&str; 29] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
    "aarch64",
    "x86_64",
    "i386",
    "armhf",
    "armel",
];

/// An operating system, an architecture and perhaps a variant of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`
    pub architecture: String,
    /// `v7`; empty if there is none.
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    /// Normalises the spelling: `Linux/x86_64` is `linux/amd64`, `arm64/v8` is `arm64`.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Platform {
        let (architecture, variant) = normalize(&architecture.to_lowercase(), &variant.to_lowercase());
        Platform { os: normalize_os(os), architecture, variant }
    }

    /// From `os`, `architecture`, `os/architecture` or `os/architecture/variant`; what is missing is the host's.
    pub fn parse(text: &str, host: &Platform) -> Result<Platform> {
        let refuse = |why: String| Err(Error::invalid(format!("{why}: invalid argument")));
        if text.contains('*') {
            return refuse(format!("{text:?}: wildcards not yet supported"));
        }
        let valid =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        let parts: Vec<&str> = text.split('/').collect();
        if let Some(part) = parts.iter().find(|part| !valid(part)) {
            return refuse(format!(
                "{part:?} is an invalid component of {text:?}: platform specifier component must match {:?}",
                "^[A-Za-z0-9_.-]+$"
            ));
        }
        match parts[..] {
            [os] if SYSTEMS.contains(&normalize_os(os).as_str()) => {
                Ok(Platform { os: normalize_os(os), ..host.clone() })
            }
            [architecture] if ARCHITECTURES.contains(&architecture.to_lowercase().as_str()) => {
                Ok(Platform::new(&host.os, architecture, ""))
            }
            [os, architecture] => Ok(Platform::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, variant)),
            [_] => refuse(format!("{text:?}: unknown operating system or architecture")),
            _ => refuse(format!("{text:?}: cannot parse platform specifier")),
        }
    }

    /// Whether an image of that platform is one for `self`; an arm host runs the older variants too.
    pub fn runs(&self, image: &Platform) -> bool {
        let arm = |variant: &str| match variant {
            "" => 7,
            other => other.strip_prefix('v').and_then(|v| v.parse::<u32>().ok()).unwrap_or(u32::MAX),
        };
        let variant = match self.architecture.as_str() {
            "arm" => arm(&image.variant) <= arm(&self.variant),
            _ => image.variant.is_empty() || image.variant == self.variant,
        };
        self.os == image.os && self.architecture == image.architecture && variant
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

fn normalize_os(os: &str) -> String {
    match os.to_lowercase().as_str() {
        "macos" => "darwin".into(),
        other => other.into(),
    }
}

fn normalize(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", ""),
        ("armel", _) => ("arm", "v6"),
        ("arm", "7" | "v7") => ("arm", ""),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.into(), variant.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Platform {
        Platform::new("linux", "amd64", "")
    }

    #[test]
    fn platforms_are_normalised() {
        for (text, platform) in [
            ("linux", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm/v7", "linux/arm"),
            ("linux/arm/6", "linux/arm/v6"),
            ("macos/arm64", "darwin/arm64"),
            ("some/thing", "some/thing"),
        ] {
            assert_eq!(Platform::parse(text, &host()).unwrap().to_string(), platform);
        }
    }

    #[test]
    fn refusals_have_the_references_words() {
        for (text, message) in [
            ("nope", "\"nope\": unknown operating system or architecture: invalid argument"),
            ("linux/*", "\"linux/*\": wildcards not yet supported: invalid argument"),
            ("a/b/c/d", "\"a/b/c/d\": cannot parse platform specifier: invalid argument"),
            (
                "linux/",
                "\"\" is an invalid component of \"linux/\": platform specifier component must match \
                 \"^[A-Za-z0-9_.-]+$\": invalid argument",
            ),
        ] {
            assert_eq!(Platform::parse(text, &host()).unwrap_err().message(), message);
        }
    }

    #[test]
    fn hosts_run_their_own_images() {
        assert!(host().runs(&host()) && !host().runs(&Platform::new("linux", "arm64", "")));
        let arm = Platform::new("linux", "arm", "v7");
        assert!(arm.runs(&Platform::new("linux", "arm", "v6")) && !arm.runs(&Platform::new("linux", "arm", "v8")));
    }
}
