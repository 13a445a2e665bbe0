//! Blobs that are kept in memory.

use bytes::Bytes;
use model::Result;
use registry::Repository;

use crate::row::Content;

/// A blob that is kept in memory.
pub(crate) async fn small_blob(repository: &Repository, blob: &Content) -> Result<Bytes> {
    let settings = repository.settings();
    let mut pauses = registry::Pauses::new(settings);
    loop {
        let fault = match whole(repository, blob).await {
            Ok(bytes) => return Ok(bytes),
            Err(fault) => fault,
        };
        match pauses.next(&fault) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(fault.of_pull(repository.reference())),
        }
    }
}

async fn whole(repository: &Repository, blob: &Content) -> registry::Outcome<Bytes> {
    let mut download = repository.blob(&blob.digest, blob.size, 0).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}
