//! What a client wants to be said of a result: attributes `attest:provenance` and `attest:sbom`, and build arguments of the same
//! meaning.

use std::collections::BTreeMap;

use model::{Context as _, Error, Result};

use crate::job::Attributes;

/// The image that lists packages if the client names none.
const GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";
/// Names of files with provenance.
const FILENAME: &str = "provenance.json";

/// Everything that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where a result comes from.
    pub provenance: Option<Provenance>,
    /// Which packages are in it.
    pub sbom: Option<Sbom>,
}

/// How much provenance says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Neither arguments nor steps.
    Min,
    /// Everything.
    Max,
}

/// The version of the predicate (SLSA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `https://slsa.dev/provenance/v0.2`
    V02,
    /// `https://slsa.dev/provenance/v1`
    V1,
}

/// Provenance that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// How much it says.
    pub mode: Mode,
    /// In which form.
    pub version: Version,
    /// Who builds.
    pub builder_id: String,
    /// The name of its file.
    pub filename: String,
    /// It belongs to images that are kept or pushed only.
    pub inline_only: bool,
    /// The client says that the same request gives the same result.
    pub reproducible: bool,
    /// The build fails if not all materials are known.
    pub complete_materials: bool,
}

/// A list of packages that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sbom {
    /// The image that makes it.
    pub generator: String,
    /// What that is told, by names without `BUILDKIT_SCAN_`.
    pub parameters: BTreeMap<String, String>,
}

impl Wanted {
    /// Reads the attributes of a request.
    ///
    /// Errors: `InvalidParameter` for what is unknown.
    pub fn read(attributes: &Attributes) -> Result<Wanted> {
        let mut wanted = Wanted::default();
        for (name, value) in attributes {
            let kind = name.strip_prefix("attest:").or_else(|| name.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
            let Some(kind) = kind.map(str::to_lowercase) else { continue };
            let fields = fields(value).with_context(|| format!("failed to parse {kind}"))?;
            match kind.as_str() {
                "provenance" => wanted.provenance = provenance(fields)?,
                "sbom" => wanted.sbom = sbom(fields)?,
                other => return Err(Error::invalid(format!("unknown attestation type {other:?}"))),
            }
        }
        Ok(wanted)
    }
}

/// `name=value` in a row of comma-separated values.
fn fields(text: &str) -> Result<BTreeMap<String, String>> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let fields = dockerfile::csv_fields(text)?;
    let pair = |field: String| {
        let (name, value) = field.split_once('=').unwrap_or((&field, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(fields.into_iter().map(pair).collect())
}

/// A flag of a row; what is no truth value is refused.
fn flag(fields: &BTreeMap<String, String>, name: &str) -> Result<bool> {
    match fields.get(name).map(String::as_str) {
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
        Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
        Some(other) => Err(Error::invalid(format!("failed to parse {name} flag {other:?}: invalid syntax"))),
    }
}

fn provenance(fields: BTreeMap<String, String>) -> Result<Option<Provenance>> {
    if flag(&fields, "disabled")? {
        return Ok(None);
    }
    let text = |name: &str| fields.get(name).map(String::as_str);
    let mode = match text("mode") {
        None | Some("max" | "full") => Mode::Max,
        Some("min") => Mode::Min,
        Some(other) => return Err(Error::invalid(format!("invalid mode {other:?}"))),
    };
    let version = match text("version") {
        None | Some("v1") => Version::V1,
        Some("v0.2") => Version::V02,
        Some("") => return Err(Error::invalid("provenance SLSA version cannot be empty")),
        Some(other) => return Err(Error::invalid(format!("invalid provenance SLSA version: {other}"))),
    };
    if flag(&fields, "capture-usage")? {
        tracing::warn!("capture-usage: what steps use is not in the provenance");
    }
    Ok(Some(Provenance {
        mode,
        version,
        builder_id: text("builder-id").unwrap_or_default().to_owned(),
        filename: text("filename").filter(|name| !name.is_empty()).unwrap_or(FILENAME).to_owned(),
        inline_only: flag(&fields, "inline-only")?,
        reproducible: flag(&fields, "reproducible")?,
        complete_materials: flag(&fields, "complete-materials")?,
    }))
}

fn sbom(mut fields: BTreeMap<String, String>) -> Result<Option<Sbom>> {
    if flag(&fields, "disabled")? {
        return Ok(None);
    }
    fields.remove("disabled");
    let generator = fields.remove("generator").unwrap_or_else(|| GENERATOR.to_owned());
    if generator.is_empty() {
        return Err(Error::invalid("sbom scanner cannot be empty"));
    }
    Ok(Some(Sbom { generator, parameters: fields }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Wanted> {
        Wanted::read(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn what_clients_send_is_read() {
        let provenance =
            read("attest:provenance", "mode=min,inline-only=true,builder-id=https://b").unwrap().provenance;
        let provenance = provenance.unwrap();
        assert_eq!((provenance.mode, provenance.inline_only, provenance.version), (Mode::Min, true, Version::V1));
        assert_eq!((&*provenance.builder_id, &*provenance.filename), ("https://b", "provenance.json"));
        assert_eq!(read("attest:provenance", "").unwrap().provenance.unwrap().mode, Mode::Max);
        let old = read("build-arg:BUILDKIT_ATTEST_PROVENANCE", "version=v0.2").unwrap().provenance.unwrap();
        assert_eq!(old.version, Version::V02);
        let sbom = read("attest:sbom", "generator=x/y:1,LEVEL=3").unwrap().sbom.unwrap();
        assert_eq!((sbom.generator.as_str(), &sbom.parameters), ("x/y:1", &[("LEVEL".into(), "3".into())].into()));
        assert_eq!(read("attest:sbom", "").unwrap().sbom.unwrap().generator, GENERATOR);
        assert_eq!(read("build-arg:X", "").unwrap(), Wanted::default());
        assert_eq!(read("attest:provenance", "disabled=true").unwrap(), Wanted::default());
    }

    #[test]
    fn what_is_unknown_is_refused() {
        let refused = |name: &str, value: &str| read(name, value).unwrap_err().message().to_owned();
        assert_eq!(refused("attest:x", ""), "unknown attestation type \"x\"");
        assert_eq!(refused("attest:provenance", "mode=most"), "invalid mode \"most\"");
        assert_eq!(refused("attest:provenance", "version=v2"), "invalid provenance SLSA version: v2");
        assert_eq!(refused("attest:sbom", "generator="), "sbom scanner cannot be empty");
        assert!(refused("attest:sbom", "a\"b").starts_with("failed to parse sbom: "));
    }
}
