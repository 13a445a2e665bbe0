//! The exporters `local` and `tar`: the files of a result for the client.

use std::sync::Arc;

use model::Result;

use super::client::Status;
use super::context::{Context, Response};
use super::options::FileTree;
use super::source::Source;
use super::stream;
use super::tree::Files;

/// Sends the files of a result.
pub(super) async fn run(context: &Context, wanted: &FileTree, source: Arc<Source>) -> Result<Response> {
    let (roots, options) = (context.builder.roots.clone(), wanted.clone());
    let files = context.builder.threads.run(move |_| Files::open(&roots, &options, &source)).await?;
    let files = Arc::new(files);
    let shown = if wanted.tar { "sending tarball" } else { "copying files" };
    context.client.status(Status::Started(shown.into()));
    match wanted.tar {
        true => {
            let own = files.clone();
            let bytes =
                stream::begin(&context.builder, &context.cancel, move |out| own.archive(out).map_err(stream::failed));
            context.client.file(&Response::new(), bytes).await?;
        }
        false => context.client.files(files.clone()).await?,
    }
    context.client.status(Status::Completed(shown.into()));
    // Mounts are let go of where that may wait for the disk.
    let put_away = move |_: &_| {
        drop(files);
        Ok(())
    };
    context.builder.threads.run(put_away).await?;
    Ok(Response::new())
}
