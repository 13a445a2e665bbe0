//! What a build ended with, for one platform or for several, as front ends and clients describe it.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::oci;
use image::oci::{Document, parse};
use model::digest::Digest;
use model::platform::Platform;
use model::{Context as _, Error, Result};
use serde::Deserialize;

use crate::record::Chain;

/// What a front end says of a result, by name.
pub type Metadata = BTreeMap<String, Vec<u8>>;

/// Platforms of one result.
const PLATFORMS: usize = 256;
/// The names of metadata: the configuration, that of the base image, the platforms, the chosen time (seconds since 1970).
const CONFIG: &str = "containerimage.config";
const BASE_CONFIG: &str = "containerimage.base.config";
const REFS_PLATFORMS: &str = "refs.platforms";
const EPOCH: &str = "source.date.epoch";

/// The files of a result.
#[derive(Clone, Debug)]
pub enum Refs {
    /// Of one that is not told apart by platforms.
    One(Chain),
    /// By the ids that the metadata has for them.
    Many(BTreeMap<String, Chain>),
}

/// A result.
#[derive(Clone, Debug)]
pub struct Source {
    /// One for each platform; one at least.
    pub targets: Vec<Target>,
    /// They are told apart, even if there is one.
    pub multiple: bool,
    /// What else the front end said.
    pub metadata: Metadata,
}

/// The result for a platform.
#[derive(Clone, Debug)]
pub struct Target {
    /// What it is called: `linux/amd64`.
    pub id: String,
    /// Where it runs.
    pub platform: oci::Platform,
    /// Its files.
    pub chain: Chain,
    /// Its configuration without its layers; empty: that of an empty file system.
    pub config: Vec<u8>,
    /// That of the image that it is built on.
    pub base: Option<Document>,
    /// The time that was chosen for it, in seconds since 1970.
    pub epoch: Option<i64>,
    /// What is said of it.
    pub attestations: Vec<Attestation>,
    /// A description of the build cache that goes into its configuration ([`crate::cache::inline`]).
    pub cache: Option<Vec<u8>>,
}

/// Something that is said of a result (in-toto attestation).
#[derive(Clone, Debug)]
pub struct Attestation {
    /// The name of its file, or of the directory of a bundle.
    pub path: String,
    /// `https://slsa.dev/provenance/v1`; empty in a bundle: any.
    pub predicate_type: String,
    /// What it is said of; none: of the result.
    pub subjects: Vec<Subject>,
    /// What is said.
    pub content: Content,
    /// It belongs to images that are kept or pushed, and is no file of its own.
    pub inline_only: bool,
    /// Of a list of packages: the beginning of the name of the main one.
    pub core: String,
}

/// Where an attestation's predicate is.
#[derive(Clone, Debug)]
pub enum Content {
    /// Here. Only the daemon itself gives it so.
    Bytes(Arc<Vec<u8>>),
    /// In the file of these layers that the attestation's path names.
    File(Chain),
    /// In each file of the directory that the path names, as a whole statement.
    Bundle(Chain),
}

/// What an attestation is said of.
#[derive(Clone, Debug)]
pub enum Subject {
    /// The result; with a further name, if it is not empty.
    Itself(String),
    /// Something of this name and these digests.
    Other(String, Vec<Digest>),
}

/// `refs.platforms`
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listed {
    #[serde(rename = "Platforms")]
    platforms: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: oci::Platform,
}

impl Source {
    /// Puts together what a front end returned.
    ///
    /// Errors: `InvalidParameter` for platforms, configurations or times that are none, and for a platform without a result.
    pub fn read(
        refs: Refs,
        metadata: Metadata,
        mut attestations: BTreeMap<String, Vec<Attestation>>,
    ) -> Result<Source> {
        let multiple = matches!(&refs, Refs::Many(refs) if !refs.is_empty());
        if multiple && !metadata.contains_key(REFS_PLATFORMS) {
            return Err(Error::invalid("unable to export multiple refs, missing platforms mapping"));
        }
        let platforms = platforms(&metadata)?;
        if !multiple && platforms.len() > 1 {
            return Err(Error::invalid("unable to export multiple platforms without map"));
        }
        let chain = |id: &str| match &refs {
            Refs::One(chain) => Ok(chain.clone()),
            Refs::Many(refs) if refs.is_empty() => Ok(Chain::default()),
            Refs::Many(refs) => {
                refs.get(id).cloned().ok_or_else(|| Error::invalid(format!("failed to find ref for ID {id}")))
            }
        };
        let mut targets = Vec::with_capacity(platforms.len());
        for Entry { id, platform } in platforms {
            let of = |key: &str| metadata.get(&format!("{key}/{id}")).or_else(|| metadata.get(key));
            let base = of(BASE_CONFIG).filter(|bytes| !bytes.is_empty());
            targets.push(Target {
                chain: chain(&id)?,
                config: of(CONFIG).cloned().unwrap_or_default(),
                base: base.map(|bytes| parse(bytes, "base image configuration")).transpose()?,
                epoch: of(EPOCH).map_or(Ok(None), |bytes| epoch(bytes))?,
                attestations: attestations.remove(&id).unwrap_or_default(),
                cache: None,
                platform,
                id,
            });
        }
        Ok(Source { targets, multiple, metadata })
    }

    /// What a Dockerfile has become; `chains` are the files of its targets, in order.
    pub fn of_dockerfile(build: &dockerfile::Build, chains: &[Chain]) -> Result<Source> {
        let mut metadata = Metadata::new();
        let mut refs = BTreeMap::new();
        let mut listed = Vec::new();
        for (target, chain) in build.results.iter().zip(chains) {
            let end = if build.multiple { format!("/{}", target.id) } else { String::new() };
            let mut say = |key: &str, value: Vec<u8>| _ = metadata.insert(format!("{key}{end}"), value);
            say(CONFIG, target.conversion.image.encoded());
            if let Some(origin) = &target.conversion.origin {
                say(BASE_CONFIG, origin.encoded());
            }
            if let Some(epoch) = target.conversion.epoch {
                say(EPOCH, epoch.to_string().into_bytes());
            }
            let Platform { os, architecture, variant } = target.platform.clone();
            let platform = oci::Platform { os, architecture, variant, ..oci::Platform::default() };
            listed.push(serde_json::json!({"ID": target.id, "Platform": platform}));
            refs.insert(target.id.clone(), chain.clone());
        }
        let one = || Refs::One(chains.first().cloned().unwrap_or_default());
        let refs = if build.multiple { Refs::Many(refs) } else { one() };
        let listed = serde_json::to_vec(&serde_json::json!({"Platforms": listed}));
        let listed = listed.map_err(|error| Error::system(format!("encoding platforms: {error}")))?;
        metadata.insert(REFS_PLATFORMS.into(), listed);
        Source::read(refs, metadata, BTreeMap::new())
    }

    /// What the front end calls the image.
    pub(super) fn name(&self) -> String {
        self.metadata.get("image.name").map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
    }
}

impl Target {
    /// The platform as people write it.
    pub(super) fn platform_text(&self) -> String {
        text(&self.platform)
    }

    /// The platform as rules compare it.
    pub fn platform(&self) -> Platform {
        image::oci::platform(&self.platform)
    }
}

fn epoch(bytes: &[u8]) -> Result<Option<i64>> {
    let text = String::from_utf8_lossy(bytes);
    super::options::epoch(&text).with_context(|| format!("invalid SOURCE_DATE_EPOCH from frontend: {text:?}"))
}

/// The platforms of a result: those that are listed, else that of its configuration, else that of this host.
fn platforms(metadata: &Metadata) -> Result<Vec<Entry>> {
    if let Some(bytes) = metadata.get(REFS_PLATFORMS) {
        let Listed { platforms } = match bytes.as_slice() {
            [] => Listed::default(),
            bytes => parse(bytes, "platforms of the result")?,
        };
        if platforms.is_empty() || platforms.len() > PLATFORMS {
            return Err(Error::invalid("invalid empty platforms index for exporter"));
        }
        return platforms.into_iter().map(checked).collect();
    }
    let platform = match metadata.get(CONFIG).filter(|bytes| !bytes.is_empty()) {
        None => host(),
        Some(bytes) => {
            let document: Document = parse(bytes, "image config")?;
            match (document.platform.os.is_empty(), document.platform.architecture.is_empty()) {
                (true, true) => host(),
                (false, false) => document.platform,
                _ => {
                    let why = "invalid image config: os and architecture must be specified together";
                    return Err(Error::invalid(why));
                }
            }
        }
    };
    let platform = normalized(platform);
    Ok(vec![Entry { id: text(&platform), platform }])
}

fn checked(entry: Entry) -> Result<Entry> {
    if entry.id.is_empty() {
        return Err(Error::invalid("invalid empty platform key for exporter"));
    }
    if entry.platform.os.is_empty() || entry.platform.architecture.is_empty() {
        return Err(Error::invalid(format!("invalid platform value of {} for exporter", entry.id)));
    }
    Ok(Entry { platform: normalized(entry.platform), ..entry })
}

fn normalized(platform: oci::Platform) -> oci::Platform {
    let Platform { os, architecture, mut variant } = image::oci::platform(&platform);
    // The usual one is named in documents.
    if architecture == "arm" && variant.is_empty() {
        variant = "v7".into();
    }
    oci::Platform { os, architecture, variant, ..platform }
}

/// `linux/arm/v7`
fn text(platform: &oci::Platform) -> String {
    let oci::Platform { os, architecture, variant, .. } = platform;
    if variant.is_empty() { format!("{os}/{architecture}") } else { format!("{os}/{architecture}/{variant}") }
}

fn host() -> oci::Platform {
    let Platform { os, architecture, variant } = image::oci::host();
    oci::Platform { os, architecture, variant, ..oci::Platform::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&str, &str)]) -> Metadata {
        entries.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    fn many(ids: &[&str]) -> Refs {
        Refs::Many(ids.iter().map(|id| ((*id).to_owned(), Chain::default())).collect())
    }

    const TWO: &str = r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}},
        {"ID":"linux/arm64","Platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}"#;

    #[test]
    fn what_is_said_of_a_platform_counts_before_what_is_said_of_all() {
        let said = [
            (REFS_PLATFORMS, TWO),
            ("containerimage.config/linux/arm64", r#"{"os":"linux","architecture":"arm64"}"#),
            (CONFIG, r#"{"os":"linux","architecture":"amd64"}"#),
            ("source.date.epoch/linux/amd64", "5"),
            (EPOCH, ""),
        ];
        let source = Source::read(many(&["linux/amd64", "linux/arm64"]), metadata(&said), BTreeMap::new()).unwrap();
        assert!(source.multiple && source.targets[1].platform.variant.is_empty());
        assert!(String::from_utf8_lossy(&source.targets[1].config).contains("arm64"));
        assert_eq!((source.targets[0].epoch, source.targets[1].epoch), (Some(5), None));
    }

    #[test]
    fn a_platform_is_that_of_the_configuration_or_of_the_host() {
        let id = |said: &[(&str, &str)]| {
            Source::read(Refs::One(Chain::default()), metadata(said), BTreeMap::new()).map(|s| s.targets[0].id.clone())
        };
        assert_eq!(id(&[(CONFIG, r#"{"os":"linux","architecture":"arm","variant":"v6"}"#)]).unwrap(), "linux/arm/v6");
        assert_eq!(id(&[(CONFIG, r#"{"os":"linux","architecture":"arm"}"#)]).unwrap(), "linux/arm/v7");
        assert_eq!(id(&[]).unwrap(), image::oci::host().to_string());
        assert!(id(&[(CONFIG, r#"{"os":"linux"}"#)]).is_err());
        assert!(id(&[(CONFIG, "[")]).is_err());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |refs: Refs, said: &[(&str, &str)]| {
            Source::read(refs, metadata(said), BTreeMap::new()).unwrap_err().message().to_owned()
        };
        assert_eq!(refused(many(&["a"]), &[]), "unable to export multiple refs, missing platforms mapping");
        assert_eq!(refused(many(&["linux/amd64"]), &[(REFS_PLATFORMS, TWO)]), "failed to find ref for ID linux/arm64");
        let one = || Refs::One(Chain::default());
        assert_eq!(refused(one(), &[(REFS_PLATFORMS, TWO)]), "unable to export multiple platforms without map");
        assert_eq!(refused(one(), &[(REFS_PLATFORMS, "{}")]), "invalid empty platforms index for exporter");
        assert!(refused(one(), &[(EPOCH, "x")]).starts_with("invalid SOURCE_DATE_EPOCH from frontend: \"x\": "));
    }
}
