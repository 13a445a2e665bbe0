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

/// The form of an operating system in the reference's words; a version behind it is not taken here.
const OS: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";
/// How far the images of a 32-bit ancestor are at least: behind all of the machine's own.
const ANCESTOR: u32 = 100;

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
        if !valid(parts[0]) || parts[0].contains('.') {
            return refuse(format!(
                "{:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match {OS:?}",
                parts[0]
            ));
        }
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

    /// The same, but a variant that was named stays even where it is the usual one, as documents say it.
    pub fn parse_in_full(text: &str, host: &Platform) -> Result<Platform> {
        let mut platform = Platform::parse(text, host)?;
        if platform.variant.is_empty() && text.split('/').count() == 3 {
            let usual = match platform.architecture.as_str() {
                "arm" => "v7",
                "arm64" => "v8",
                _ => "",
            };
            platform.variant = usual.into();
        }
        Ok(platform)
    }

    /// Whether an image of that platform is one for `self`.
    pub fn runs(&self, image: &Platform) -> bool {
        self.suits(image).is_some()
    }

    /// How far an image of that platform is from what `self` would like best; `None`: it does not run at all. Machines
    /// run what older ones of their kind do, and, last, what their 32-bit ancestors do.
    pub fn suits(&self, image: &Platform) -> Option<u32> {
        if self.os != image.os {
            return None;
        }
        if self.architecture == image.architecture && self.variant == image.variant {
            return Some(0);
        }
        let older = |newest: u32| {
            let generation = image.generation()?;
            (generation <= newest).then(|| newest - generation)
        };
        let own = self.generation()?;
        match (self.architecture.as_str(), image.architecture.as_str()) {
            ("amd64", "amd64") | ("arm", "arm") => older(own),
            ("amd64", "386") if image.variant.is_empty() => Some(ANCESTOR),
            // An arm64 of v9.2 has what a v8.7 has.
            ("arm64", "arm64") if own >= 90 && image.generation()? < 90 => older(own - 5).map(|far| far + 5),
            ("arm64", "arm64") => older(own),
            ("arm64", "arm") => older(80).map(|far| ANCESTOR + far),
            _ => None,
        }
    }

    /// Ten times the number in the variant (`v8.2`: 82), where a missing one is the usual.
    fn generation(&self) -> Option<u32> {
        let variant = match (self.architecture.as_str(), self.variant.as_str()) {
            ("arm", "") => "v7",
            ("arm64", "") => "v8",
            (_, "") => "v1",
            (_, variant) => variant,
        };
        let (major, minor) = variant.strip_prefix('v')?.split_once('.').unwrap_or((&variant[1..], "0"));
        let (major, minor): (u8, u8) = (major.parse().ok()?, minor.parse().ok().filter(|minor| *minor < 10)?);
        Some(u32::from(major) * 10 + u32::from(minor))
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
        for (text, platform) in [
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm", "linux/arm"),
            ("linux/amd64/v1", "linux/amd64"),
        ] {
            assert_eq!(Platform::parse_in_full(text, &host()).unwrap().to_string(), platform);
        }
    }

    #[test]
    fn refusals_have_the_references_words() {
        for (text, message) in [
            ("nope", "\"nope\": unknown operating system or architecture: invalid argument"),
            ("linux/*", "\"linux/*\": wildcards not yet supported: invalid argument"),
            (
                "a b",
                "\"a b\" is an invalid OS component of \"a b\": OSAndVersion specifier component must match \
                 \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.%-]*)((?:\\\\+[A-Za-z0-9_.%-]+)*)\\\\))?$\": invalid argument",
            ),
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
    fn hosts_run_their_own_images_and_those_of_their_ancestors_last() {
        let suits = |host: &str, image: &str| {
            let platform = |text: &str| Platform::parse(text, &self::host()).unwrap();
            platform(host).suits(&platform(image))
        };
        for (host, best_first) in [
            ("linux/amd64", &["linux/amd64", "linux/386"][..]),
            ("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
            ("linux/arm/v7", &["linux/arm", "linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm64", &["linux/arm64/v8", "linux/arm/v8", "linux/arm/v7", "linux/arm/v5"]),
            (
                "linux/arm64/v9.1",
                &["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6", "linux/arm64", "linux/arm"],
            ),
            ("linux/s390x", &["linux/s390x"]),
        ] {
            let distances: Vec<_> = best_first.iter().map(|image| suits(host, image)).collect();
            assert!(distances.is_sorted() && distances[0] == Some(0), "{host}: {distances:?}");
        }
        for (host, image) in [
            ("linux/amd64", "linux/amd64/v2"),
            ("linux/amd64", "linux/arm64"),
            ("linux/amd64", "windows/amd64"),
            ("linux/386", "linux/amd64"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/arm64", "linux/arm64/v8.1"),
            ("linux/arm64/v8.9", "linux/arm64/v9"),
            ("linux/riscv64", "linux/riscv64/x"),
        ] {
            assert_eq!(suits(host, image), None, "{host} {image}");
        }
    }
}
