//! `GET /containers/{id}/logs`: the log file, read beside its writer.
//!
//! Reading happens on a blocking thread of its own and goes through the files only: it neither asks the actor nor the
//! monitor, costs the container nothing and works for ended, frozen and starting ones alike.

use std::path::PathBuf;
use std::sync::Arc;

use ::logs::{Batch, Format, ReadOptions, Reader, Shape, Stop};
use bytes::Bytes;
use model::lifecycle::State;
use model::time::Timestamp;
use model::{Context, Error, Result};
use tokio::sync::{mpsc, oneshot, watch};

use super::row::ContainerRow;
use super::view::ContainerView;
use super::{Containers, Handle};
use crate::settings::Settings;

/// Chunks between the reading thread and the client.
const QUEUE: usize = 4;

/// The query of a logs call.
#[derive(Clone, Debug, Default)]
pub struct LogsArgs {
    /// Stay until the container ends.
    pub follow: bool,
    /// Lines of stdout.
    pub stdout: bool,
    /// Lines of stderr.
    pub stderr: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Each line begins with its attributes.
    pub details: bool,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Up to this time.
    pub until: Option<Timestamp>,
    /// Only the last so many.
    pub tail: Option<u64>,
    /// `None`: raw with a terminal, else frames.
    pub shape: Option<Shape>,
}

/// An open log.
pub struct LogStream {
    /// The container has a terminal: chunks are raw.
    pub tty: bool,
    /// As asked for, or what suits the container.
    pub shape: Shape,
    /// Whole entries.
    pub chunks: mpsc::Receiver<Result<Bytes>>,
}

/// Opens the log of a container for a client.
pub fn logs(containers: &Containers, settings: &Settings, name: &str, args: LogsArgs) -> Result<LogStream> {
    if !args.stdout && !args.stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let handle = containers.find(name)?;
    let view = handle.view();
    if matches!(view.row.state, State::Dead | State::Removing) {
        return Err(Error::conflict("can not get logs from container which is dead or marked for removal"));
    }
    open(settings, &handle, args)
}

/// Opens the log, following the container's published views for its end.
pub(super) fn open(settings: &Settings, handle: &Handle, args: LogsArgs) -> Result<LogStream> {
    let view = handle.view();
    let row = &view.row;
    if row.host_config.log_config.kind == "none" {
        return Err(Error::not_implemented("configured logging driver does not support reading"));
    }
    // Only a container that runs (or is being started) has more to say.
    let follow = args.follow && (row.state.is_running() || matches!(row.state, State::Starting { .. }));
    let shape = args.shape.unwrap_or(if row.config.tty { Shape::Raw } else { Shape::Frames });
    let options = ReadOptions {
        tail: args.tail,
        since: args.since.map(|t| t.unix_nanos()),
        until: args.until.map(|t| t.unix_nanos()),
        follow,
        stdout: args.stdout,
        stderr: args.stderr,
        format: Format { shape, timestamps: args.timestamps, details: args.details },
    };
    let stop = Stop::new().context("opening the log")?;
    let (sender, chunks) = mpsc::channel(QUEUE);
    let (reads, finished) = oneshot::channel::<()>();
    if follow {
        watch_end(handle.watch(), stop.clone(), sender.clone(), finished);
    }
    let path = path(settings, row);
    tokio::task::spawn_blocking(move || {
        read(path, options, stop, &sender);
        drop(reads);
    });
    Ok(LogStream { tty: row.config.tty, shape, chunks })
}

/// Tells a following reader of the container's end and of a client that left, and lets the stream end with the reader.
fn watch_end(
    mut views: watch::Receiver<Arc<ContainerView>>,
    stop: Stop,
    sender: mpsc::Sender<Result<Bytes>>,
    finished: oneshot::Receiver<()>,
) {
    tokio::spawn(async move {
        let ended = views.wait_for(|view| {
            view.removed || !(view.row.state.is_running() || matches!(view.row.state, State::Starting { .. }))
        });
        tokio::select! {
            _ = ended => stop.ended(),
            () = sender.closed() => stop.cancel(),
            _ = finished => {}
        }
    });
}

/// The reading thread.
fn read(path: PathBuf, options: ReadOptions, stop: Stop, sender: &mpsc::Sender<Result<Bytes>>) {
    let mut reader = match Reader::open(&path, options, stop) {
        Ok(reader) => reader,
        Err(error) => return drop(sender.blocking_send(Err(Error::from(error).prefix("opening the log")))),
    };
    loop {
        let mut chunk = Vec::new();
        let batch = reader.next_batch(&mut chunk);
        if !chunk.is_empty() && sender.blocking_send(Ok(Bytes::from(chunk))).is_err() {
            return;
        }
        match batch {
            Ok(Batch::More) => {}
            Ok(Batch::End) => return,
            Err(error) => return drop(sender.blocking_send(Err(Error::from(error).prefix("reading the log")))),
        }
    }
}

/// Where the container's log lies.
pub fn path(settings: &Settings, row: &ContainerRow) -> PathBuf {
    settings.container_dir(row.id.as_str()).join(format!("{}-json.log", row.id.as_str()))
}

/// The attributes that every line carries, by the container's log options.
pub fn attributes(row: &ContainerRow) -> Result<String> {
    let command = super::facts::command_line(&row.config);
    let labels: Vec<_> = row.config.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let subject = ::logs::Subject {
        id: row.id.as_str(),
        name: &row.name,
        command: &command,
        image_id: row.image.id.as_str(),
        image_name: &row.config.image,
        env: row.config.env.as_deref().unwrap_or_default(),
        labels: &labels,
    };
    ::logs::attrs::build(&row.host_config.log_config.config.clone().unwrap_or_default(), &subject)
}
