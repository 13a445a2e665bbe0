//! `POST /images/create?fromSrc=`: a root file system, in the body or behind an address, becomes an image.

use std::io;
use std::sync::Arc;

use api::{Progress, ProgressMessage};
use bytes::Bytes;
use image::ImportArgs;
use model::Result;
use model::platform::Platform;
use registry::Download;
use tokio::sync::mpsc;

use super::{State, progress};
use crate::limits;
use crate::request::{Request, Upload};
use crate::response;
use crate::routes::Outcome;

/// Bytes between two lines that tell of a download.
const STEP: u64 = 512 << 10;

fn args(state: &State, request: &Request) -> Result<ImportArgs> {
    let query = &request.query;
    let wanted = query.text("platform");
    let host = Platform::new("linux", &state.engine.host.architecture, "");
    let named = !wanted.is_empty() && !request.version.before(32);
    let message = match query.text("message") {
        "" => format!("Imported from {}", query.text("fromSrc")),
        message => message.to_owned(),
    };
    Ok(ImportArgs {
        reference: image::repository_tag(query.text("repo"), query.text("tag"))?,
        platform: if named { Some(Platform::parse_in_full(wanted, &host)?) } else { None },
        message,
        changes: query.all("changes").map(str::to_owned).collect(),
    })
}

/// Makes an image of the tar in the body; one line tells its id.
pub async fn from_body(state: Arc<State>, request: &mut Request) -> Result<Outcome> {
    let args = args(&state, request)?;
    let body = request.upload();
    let engine = state.engine.clone();
    let running = state
        .transfers
        .place()
        .await
        .run(move |client| image::import(&engine.images, &engine.events, args, body.from(&client)));
    let id = running.outcome().await??;
    let line = api::encode::progress_line(&ProgressMessage::status("", id.to_string()));
    let (sender, chunks) = mpsc::channel(1);
    // There is room for the one line.
    drop(sender.try_send(line.into()));
    Ok(response::stream(response::JSON, chunks).into())
}

/// Makes an image of a tar that the daemon fetches; a refusal of its server is the answer's status.
pub async fn from_address(state: Arc<State>, request: &Request, source: &str) -> Result<Outcome> {
    let args = args(&state, request)?;
    let address = if source.contains("://") { source.to_owned() } else { format!("http://{source}") };
    let download = registry::download(&state.engine.images.registries, &address).await?;
    let (lines, messages) = mpsc::channel(limits::STREAM_QUEUE);
    // There is room for the first line.
    drop(lines.try_send(Ok(ProgressMessage::status("", format!("Downloading from {address}")))));
    let (chunks, body) = Upload::channel();
    tokio::spawn(fetch(download, chunks, lines.clone()));
    let engine = state.engine.clone();
    let running = state.transfers.place().await.run(move |client| {
        let imported = image::import(&engine.images, &engine.events, args, body.from(&client));
        drop(client.send(&lines, imported.map(|id| ProgressMessage::status("", id.to_string()))));
    });
    running.begun()?;
    Ok(progress::answer(messages).await?.into())
}

/// Hands what arrives to the import, as fast as it is taken, and tells of it.
async fn fetch(
    mut download: Download,
    chunks: mpsc::Sender<io::Result<Bytes>>,
    lines: mpsc::Sender<Result<ProgressMessage>>,
) {
    let total = download.size().unwrap_or(0) as i64;
    let (mut current, mut told) = (0, 0);
    loop {
        let chunk = match download.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return,
            Err(error) => return drop(chunks.send(Err(io::Error::other(error))).await),
        };
        current += chunk.len() as u64;
        if chunks.send(Ok(chunk)).await.is_err() {
            return;
        }
        if current - told >= STEP || current == total as u64 {
            told = current;
            let progress = Progress { current: current as i64, total, ..Progress::default() };
            // A client that left hears nothing more.
            drop(lines.send(Ok(ProgressMessage::progress("", "Importing", progress))).await);
        }
    }
}
