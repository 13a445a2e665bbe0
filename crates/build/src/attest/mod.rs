//! What is said of a result besides its files: where it comes from, and which packages are in it.
//!
//! A client asks for it by attributes ([`Wanted::read`]). [`add`] puts it into a result before that is exported.

mod capture;
mod operation;
mod provenance;
pub mod purl;
mod request;
mod sbom;
pub(crate) mod statement;
mod steps;
mod wanted;

use std::sync::Arc;

use crate::export::Source;
use crate::job::Job;
use crate::result::Failure;

pub use request::{Definitions, Request};
pub use wanted::{Mode, Provenance, Sbom, Version, Wanted};

/// Adds what is wanted to each target of a result: first the lists of packages, which a program makes, then where it comes from.
///
/// Errors: the generator's; `InvalidParameter` when all materials have to be known and are not.
pub async fn add(
    job: &Arc<Job>,
    source: &mut Source,
    wanted: &Wanted,
    (request, definitions): (&Request, &Definitions),
) -> Result<(), Failure> {
    if let Some(sbom) = &wanted.sbom {
        sbom::add(job, source, sbom, definitions).await?;
    }
    if let Some(provenance) = &wanted.provenance {
        for target in &mut source.targets {
            let Some(definition) = definitions.get(&target.id) else { continue };
            let pins = job.pins();
            let capture = capture::Capture::of(definition, &pins)?;
            target.attestations.push(provenance::attestation(provenance, request, &capture, definition)?);
        }
    }
    Ok(())
}
