//! Exporters and their options, from the attributes that clients send.

use std::io::Write;

use dockerfile::boolean;
use model::reference::ImageRef;
use model::{Error, Result};

use super::annotations::Annotations;
use crate::job::Attributes;

/// Names of one image.
const NAMES: usize = 256;
/// Levels of gzip and zstd.
const GZIP_LEVELS: std::ops::RangeInclusive<i64> = 0..=9;
const ZSTD_LEVELS: std::ops::RangeInclusive<i64> = 0..=22;
/// Attributes that say how layers are compressed.
const COMPRESSION: [&str; 3] = ["compression", "compression-level", "force-compression"];
/// What a result without a name is called before its digest.
const DANGLING: &str = "moby-dangling";

/// What becomes of a result.
#[derive(Clone, Debug)]
pub enum Exporter {
    /// An image of this daemon, which may be pushed, too.
    Image(Image),
    /// An image for the client, as an archive or blob by blob.
    Archive(Archive),
    /// The files of the result for the client.
    Files(FileTree),
    /// Nothing but the build cache.
    Nothing,
}

/// The names of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// These; there may be none.
    Given(Vec<ImageRef>),
    /// Those that the front end says.
    FromFrontend,
}

/// How an image is made and what becomes of it.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is called.
    pub names: Names,
    /// It goes to its registry.
    pub push: bool,
    /// There it gets no tag.
    pub push_by_digest: bool,
    /// The registry need not have verified TLS.
    pub insecure: bool,
    /// Whether its layers are unpacked at once; `None`: if they are here.
    pub unpack: Option<bool>,
    /// It becomes an image of this daemon.
    pub store: bool,
    /// What is before the digest in the name of one that has no other.
    pub dangling_prefix: String,
    /// Each name gets one with the digest beside it.
    pub name_canonical: bool,
    /// How its documents and layers look.
    pub packing: Packing,
}

/// How an image is sent to the client.
#[derive(Clone, Debug)]
pub struct Archive {
    /// What its archive looks like.
    pub variant: Variant,
    /// What it is called.
    pub names: Names,
    /// As one archive; else blob by blob.
    pub tar: bool,
    /// How its documents and layers look.
    pub packing: Packing,
}

/// Which readers an archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// An OCI layout.
    Oci,
    /// An OCI layout that `docker load` of any version reads.
    Docker,
}

/// How files are sent to the client.
#[derive(Clone, Debug)]
pub struct FileTree {
    /// As one archive; else each on its own.
    pub tar: bool,
    /// What names of attestations begin with.
    pub attestation_prefix: String,
    /// Whether each platform has a directory of its own; `None`: if there are several.
    pub platform_split: Option<bool>,
    /// The time of all files, in seconds since 1970; `Some(None)`: none, whatever the front end says.
    pub epoch: Option<Option<i64>>,
    /// What else lies in the client's directory is removed.
    pub delete: bool,
}

/// How documents and layers of an image look.
#[derive(Clone, Debug)]
pub struct Packing {
    /// Media types of the OCI, or Docker's; `None`: those of the OCI.
    pub oci_types: Option<bool>,
    /// Attestations are artifacts that refer to their manifest; `None`: if media types are those of the OCI.
    pub artifact: Option<bool>,
    /// Attestations that are only for images that are kept or pushed are there as well.
    pub inline_attestations: bool,
    /// Layers that registries do not distribute keep their media types.
    pub keeps_foreign: bool,
    /// Free texts.
    pub annotations: Annotations,
    /// The time that nothing is later than, in seconds since 1970; `Some(None)`: none, whatever the front end says.
    pub epoch: Option<Option<i64>>,
    /// Files in layers of this build are not later, either.
    pub rewrites_times: bool,
    /// Of layers.
    pub compression: Compression,
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The form of new layers.
    pub form: Form,
    /// Layers of other images get it, too.
    pub force: bool,
}

/// The form of a layer's archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Uncompressed,
    /// gzip of this level; `None`: the usual one.
    Gzip(Option<u32>),
    /// zstd of this level; `None`: the usual one.
    Zstd(Option<i32>),
}

impl Default for Compression {
    fn default() -> Compression {
        Compression { form: Form::Gzip(None), force: false }
    }
}

impl Default for Packing {
    fn default() -> Packing {
        Packing {
            oci_types: None,
            artifact: None,
            inline_attestations: true,
            keeps_foreign: false,
            annotations: Annotations::default(),
            epoch: None,
            rewrites_times: false,
            compression: Compression::default(),
        }
    }
}

impl Exporter {
    /// Reads what a client asks for: `image`, `moby`, `oci`, `docker`, `local`, `tar`, `cacheonly`. Attributes that no exporter has
    /// are logged and have no effect, as with the reference.
    ///
    /// Errors: `InvalidParameter` for a value that is none; `NotFound` for an unknown exporter.
    pub fn read(kind: &str, attributes: &Attributes) -> Result<Exporter> {
        let mut read = Read { attributes: attributes.clone() };
        let exporter = match kind {
            "image" | "moby" => Exporter::Image(read.image()?),
            "oci" => Exporter::Archive(read.archive(Variant::Oci)?),
            "docker" => Exporter::Archive(read.archive(Variant::Docker)?),
            "local" => Exporter::Files(read.files(false)?),
            "tar" => Exporter::Files(read.files(true)?),
            "cacheonly" => Exporter::Nothing,
            other => return Err(Error::not_found(format!("exporter {other:?} could not be found"))),
        };
        for name in read.attributes.keys() {
            tracing::warn!(exporter = kind, attribute = %name, "an attribute that the exporter does not have");
        }
        Ok(exporter)
    }

    /// What the step of the export is called.
    pub fn name(&self) -> &'static str {
        match self {
            Exporter::Image(_) => "exporting to image",
            Exporter::Archive(Archive { variant: Variant::Oci, .. }) => "exporting to oci image format",
            Exporter::Archive(Archive { variant: Variant::Docker, .. }) => "exporting to docker image format",
            Exporter::Files(FileTree { tar: true, .. }) => "exporting to client tarball",
            Exporter::Files(_) => "exporting to client directory",
            Exporter::Nothing => "",
        }
    }
}

/// Attributes that nobody has taken yet.
struct Read {
    attributes: Attributes,
}

impl Read {
    fn text(&mut self, name: &str) -> Option<String> {
        self.attributes.remove(name)
    }

    /// An empty value is a yes.
    fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let invalid = || Error::invalid(format!("non-bool value specified for {name}: {text:?}: invalid syntax"));
        if text.is_empty() { Ok(Some(true)) } else { boolean(&text).map(Some).ok_or_else(invalid) }
    }

    fn image(&mut self) -> Result<Image> {
        let packing = self.packing(true)?;
        let names = self.names()?;
        // An image always has only the one or the other kind of name.
        self.text("danging-name-empty-only");
        Ok(Image {
            names,
            push: self.flag("push")?.unwrap_or(false),
            push_by_digest: self.flag("push-by-digest")?.unwrap_or(false),
            insecure: self.flag("registry.insecure")?.unwrap_or(false),
            unpack: self.flag("unpack")?,
            store: self.flag("store")?.unwrap_or(true),
            dangling_prefix: self.text("dangling-name-prefix").unwrap_or_else(|| DANGLING.to_owned()),
            name_canonical: self.flag("name-canonical")?.unwrap_or(false),
            packing,
        })
    }

    fn archive(&mut self, variant: Variant) -> Result<Archive> {
        let packing = self.packing(false)?;
        Ok(Archive { variant, names: self.names()?, tar: self.flag("tar")?.unwrap_or(true), packing })
    }

    fn files(&mut self, tar: bool) -> Result<FileTree> {
        let mode = self.text("mode").unwrap_or_default();
        if !matches!(mode.as_str(), "" | "copy" | "delete") {
            return Err(Error::invalid(format!("invalid local exporter mode {mode:?}")));
        }
        Ok(FileTree {
            tar,
            attestation_prefix: self.text("attestation-prefix").unwrap_or_default(),
            platform_split: self.flag("platform-split")?,
            epoch: self.epoch()?,
            delete: mode == "delete",
        })
    }

    fn names(&mut self) -> Result<Names> {
        match self.text("name").unwrap_or_default().as_str() {
            "*" => Ok(Names::FromFrontend),
            text => names(text).map(Names::Given),
        }
    }

    fn packing(&mut self, inline: bool) -> Result<Packing> {
        let compression = self.compression()?;
        let mut packing = Packing {
            oci_types: self.flag("oci-mediatypes")?,
            artifact: self.flag("oci-artifact")?,
            inline_attestations: self.flag("attestation-inline")?.unwrap_or(inline),
            keeps_foreign: self.flag("prefer-nondist-layers")?.unwrap_or(false),
            annotations: Annotations::default(),
            epoch: self.epoch()?,
            rewrites_times: self.flag("rewrite-timestamp")?.unwrap_or(false),
            compression,
        };
        for (name, value) in std::mem::take(&mut self.attributes) {
            if !packing.annotations.take(&name, &value)? {
                self.attributes.insert(name, value);
            }
        }
        packing.check()?;
        Ok(packing)
    }

    fn epoch(&mut self) -> Result<Option<Option<i64>>> {
        const NAME: &str = "source-date-epoch";
        self.text(NAME).map(|text| epoch(&text).map_err(|error| error.prefix(format!("invalid {NAME}")))).transpose()
    }

    fn compression(&mut self) -> Result<Compression> {
        let compression = Compression::read(&self.attributes)?;
        COMPRESSION.iter().for_each(|name| _ = self.attributes.remove(*name));
        Ok(compression)
    }
}

impl Compression {
    /// Reads `compression`, `compression-level` and `force-compression`.
    ///
    /// Errors: `InvalidParameter` for a form or level that is none.
    pub fn read(attributes: &Attributes) -> Result<Compression> {
        const LEVEL: &str = "compression-level";
        let level = attributes.get(LEVEL).map(|text| {
            let invalid = || Error::invalid(format!("non-integer value {text} specified for {LEVEL}"));
            text.parse::<i64>().map_err(|_| invalid())
        });
        let level = level.transpose()?;
        let within = |range: std::ops::RangeInclusive<i64>| match level {
            Some(level) if !range.contains(&level) => {
                let (least, most) = range.into_inner();
                Err(Error::invalid(format!("{LEVEL} {level} is not between {least} and {most}")))
            }
            level => Ok(level),
        };
        let form = match attributes.get("compression").map(String::as_str) {
            None | Some("gzip") => Form::Gzip(within(GZIP_LEVELS)?.map(|level| level as u32)),
            // zstd's own number for its usual level is 0.
            Some("zstd") => Form::Zstd(within(ZSTD_LEVELS)?.filter(|level| *level != 0).map(|level| level as i32)),
            Some("uncompressed") => Form::Uncompressed,
            Some(other) => return Err(Error::invalid(format!("unsupported compression type {other}"))),
        };
        let force = Read { attributes: attributes.clone() }.flag("force-compression")?;
        Ok(Compression { form, force: force.unwrap_or(false) })
    }
}

impl Packing {
    /// Whether media types are those of the OCI.
    pub fn is_oci(&self) -> bool {
        self.oci_types.unwrap_or(true)
    }

    /// Whether attestations are artifacts.
    pub fn is_artifact(&self) -> bool {
        self.artifact.unwrap_or_else(|| self.is_oci())
    }

    /// Refuses options that do not go together.
    fn check(&self) -> Result<()> {
        if self.is_oci() {
            return Ok(());
        }
        let conflict = |option: &str| {
            Err(Error::invalid(format!("exporter option \"{option}\" conflicts with \"oci-mediatypes=false\"")))
        };
        if matches!(self.compression.form, Form::Zstd(_)) {
            return conflict("compression=zstd");
        }
        if self.artifact == Some(true) {
            return conflict("oci-artifact=true");
        }
        Ok(())
    }
}

impl Form {
    /// What a variant of a layer in this form is called; empty for the usual form.
    pub(super) fn word(self) -> String {
        match self {
            Form::Uncompressed => "uncompressed".into(),
            Form::Gzip(None) => String::new(),
            Form::Gzip(Some(level)) => format!("gzip-{level}"),
            Form::Zstd(None) => "zstd".into(),
            Form::Zstd(Some(level)) => format!("zstd-{level}"),
        }
    }

    /// Behind the media type of an uncompressed layer.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Form::Uncompressed => "",
            Form::Gzip(_) => "+gzip",
            Form::Zstd(_) => "+zstd",
        }
    }

    /// Compresses what `write` writes to `out`; answers `out`, which has everything then.
    pub(super) fn compress<W: Write, T>(
        self,
        out: W,
        write: impl FnOnce(&mut dyn Write) -> Result<T>,
    ) -> Result<(W, T)> {
        let failed = |error: std::io::Error| Error::from(error).prefix("writing a layer");
        match self {
            Form::Uncompressed => {
                let mut out = out;
                let value = write(&mut out)?;
                Ok((out, value))
            }
            Form::Gzip(level) => {
                let mut gzip = match level {
                    Some(level) => snapshot::Gzip::with_level(out, level),
                    None => snapshot::Gzip::new(out),
                };
                let value = write(&mut gzip)?;
                Ok((gzip.finish().map_err(failed)?, value))
            }
            Form::Zstd(level) => {
                let zstd = match level {
                    Some(level) => snapshot::Zstd::with_level(out, level),
                    None => snapshot::Zstd::new(out),
                };
                let mut zstd = zstd.map_err(failed)?;
                let value = write(&mut zstd)?;
                Ok((zstd.finish().map_err(failed)?, value))
            }
        }
    }
}

/// A list of names with commas: normalised, with a tag, each once.
///
/// Errors: `InvalidParameter` for a name that is none, or has a digest.
pub(super) fn names(text: &str) -> Result<Vec<ImageRef>> {
    let mut found: Vec<ImageRef> = Vec::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let name = ImageRef::parse_normalized(name).map_err(|error| error.prefix(format!("failed to parse {name}")))?;
        if name.digest.is_some() {
            return Err(Error::invalid("build tag cannot contain a digest"));
        }
        let name = name.with_default_tag();
        if !found.contains(&name) {
            found.push(name);
        }
        if found.len() > NAMES {
            return Err(Error::invalid(format!("more than {NAMES} names of one image")));
        }
    }
    Ok(found)
}

/// Seconds since 1970; an empty text is no time.
pub(super) fn epoch(text: &str) -> Result<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || Error::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"));
    text.parse().map(Some).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, attributes: &[(&str, &str)]) -> Result<Exporter> {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Exporter::read(kind, &attributes)
    }

    fn image(attributes: &[(&str, &str)]) -> Image {
        match read("moby", attributes).unwrap() {
            Exporter::Image(image) => image,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_normalised_once_each() {
        let Names::Given(names) = image(&[("name", "a,docker.io/library/a:latest,r.example/x:1,,")]).names else {
            panic!("no names")
        };
        let names: Vec<String> = names.iter().map(ImageRef::canonical).collect();
        assert_eq!(names, ["docker.io/library/a:latest", "r.example/x:1"]);
        assert_eq!(image(&[("name", "*")]).names, Names::FromFrontend);
        assert_eq!(image(&[]).names, Names::Given(Vec::new()));
    }

    #[test]
    fn usual_values_are_those_of_the_reference() {
        let usual = image(&[]);
        assert!(usual.store && !usual.push && usual.packing.is_oci() && usual.packing.inline_attestations);
        assert_eq!((usual.unpack, usual.packing.compression), (None, Compression::default()));
        let set = image(&[
            ("push", ""),
            ("store", "0"),
            ("unpack", "f"),
            ("compression", "zstd"),
            ("compression-level", "9"),
        ]);
        assert!(set.push && !set.store);
        assert_eq!((set.unpack, set.packing.compression.form), (Some(false), Form::Zstd(Some(9))));
        assert!(matches!(read("oci", &[]), Ok(Exporter::Archive(a)) if a.tar && !a.packing.inline_attestations));
        assert!(matches!(read("cacheonly", &[("x", "y")]), Ok(Exporter::Nothing)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused =
            |kind: &str, name: &str, value: &str| read(kind, &[(name, value)]).unwrap_err().message().to_owned();
        assert_eq!(
            refused("image", "name", "a@sha256:".to_owned().as_str()),
            "failed to parse a@sha256:: invalid reference format"
        );
        let digest = format!("a@sha256:{}", "1".repeat(64));
        assert_eq!(refused("image", "name", &digest), "build tag cannot contain a digest");
        assert!(refused("image", "push", "maybe").starts_with("non-bool value specified for push"));
        assert_eq!(refused("image", "compression", "estargz"), "unsupported compression type estargz");
        assert_eq!(refused("image", "compression-level", "x"), "non-integer value x specified for compression-level");
        assert_eq!(refused("image", "compression-level", "10"), "compression-level 10 is not between 0 and 9");
        assert!(refused("image", "source-date-epoch", "x").starts_with("invalid source-date-epoch: "));
        assert_eq!(refused("local", "mode", "x"), "invalid local exporter mode \"x\"");
        assert_eq!(refused("nosuch", "a", ""), "exporter \"nosuch\" could not be found");
        let both = read("image", &[("compression", "zstd"), ("oci-mediatypes", "false")]).unwrap_err();
        let text = "exporter option \"compression=zstd\" conflicts with \"oci-mediatypes=false\"";
        assert_eq!(both.message(), text);
    }
}
