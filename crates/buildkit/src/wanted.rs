//! What a client wants of the result of a build, and which caches the build may use.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptionsEntry, SolveRequest};
use build::attest;
use build::cache::{Export, Import};
use build::export::Exporter;
use build::job::Attributes;
use model::{Error, Result};

/// Exporters, and caches in either direction, of one build.
const MOST: usize = 64;

/// What a client wants of a result.
pub(crate) struct Exports {
    pub(crate) exporters: Vec<Exporter>,
    pub(crate) caches: Vec<Export>,
    pub(crate) imports: Vec<Import>,
    pub(crate) attestations: attest::Wanted,
}

fn sorted(attributes: &HashMap<String, String>) -> Attributes {
    attributes.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Exports {
    /// Reads what a request wants.
    ///
    /// Errors: `InvalidParameter` and `NotFound` for what is unknown or does not fit together.
    pub(crate) fn read(request: &SolveRequest) -> Result<Exports> {
        let given: Vec<(&str, &HashMap<String, String>)> = match request.exporters.as_slice() {
            [] if request.exporter_deprecated.is_empty() => Vec::new(),
            [] => vec![(&request.exporter_deprecated, &request.exporter_attrs_deprecated)],
            exporters => exporters.iter().map(|exporter| (exporter.r#type.as_str(), &exporter.attrs)).collect(),
        };
        let options = request.cache.clone().unwrap_or_default();
        if given.len().max(options.exports.len()).max(options.imports.len()) > MOST {
            return Err(Error::invalid(format!("more than {MOST} exporters or caches of one build")));
        }
        let exporters = given.into_iter().map(|(kind, attributes)| Exporter::read(kind, &sorted(attributes)));
        let export = |entry: &CacheOptionsEntry| Export::read(&entry.r#type, &sorted(&entry.attrs));
        let import = |entry: &CacheOptionsEntry| Import::read(&entry.r#type, &sorted(&entry.attrs));
        Ok(Exports {
            exporters: exporters.collect::<Result<_>>()?,
            caches: options.exports.iter().map(export).collect::<Result<_>>()?,
            imports: options.imports.iter().map(import).collect::<Result<_>>()?,
            attestations: attest::Wanted::read(&sorted(&request.frontend_attrs))?,
        })
    }
}
