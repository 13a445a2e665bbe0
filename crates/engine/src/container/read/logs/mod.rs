//! `GET /containers/{id}/logs`: the log, read beside its writer.
//!
//! Reading goes through the files only: it neither asks the actor nor the monitor, costs the container nothing and works
//! for ended, frozen and starting ones alike. It happens in short steps on the threads of a class of their own
//! ([`Work::Logs`]), in turn: between two steps a reader holds no thread, however slow its client is and however
//! long it follows.

use std::sync::Arc;
use std::time::Duration;

use ::logs::{Batch, Driver, Format, Place, ReadOptions, Shape, Source};
use blocking::Class;
use bytes::Bytes;
use model::lifecycle::State;
use model::time::Timestamp;
use model::{Error, Result};
use tokio::sync::watch;

use crate::container::definition::log::{driver, place};
use crate::container::registry::readers::{Follower, Readers, Wake};
use crate::container::view::ContainerView;
use crate::container::{Containers, Handle};
use crate::settings::Roots;

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
    reading: Option<Reading>,
    following: Option<Following>,
    steps: Class,
}

enum Reading {
    Closed(&'static dyn Driver, Place, ReadOptions),
    Open(Box<dyn Source>),
}

/// What a reader waits for at the end of the log.
struct Following {
    wake: Wake,
    views: watch::Receiver<Arc<ContainerView>>,
    /// The container has ended.
    ended: bool,
    until: Option<i64>,
    follower: Follower,
}

/// Opens the log of a container for a client.
pub fn logs(containers: &Containers, roots: &Roots, name: &str, args: LogsArgs) -> Result<LogStream> {
    if !args.stdout && !args.stderr {
        return Err(Error::invalid("must specify at least one of 'stdout' or 'stderr'"));
    }
    let handle = containers.find(name)?;
    let view = handle.view();
    if matches!(view.row.state, State::Dead | State::Removing) {
        return Err(Error::conflict("can not get logs from container which is dead or marked for removal"));
    }
    open(&containers.logs, roots, &handle, args)
}

/// Opens the log, following the container's published views for its end.
pub(in crate::container) fn open(
    readers: &Readers,
    roots: &Roots,
    handle: &Handle,
    args: LogsArgs,
) -> Result<LogStream> {
    let view = handle.view();
    let row = &view.row;
    let (driver, place) = (driver(row)?, place(roots, row));
    let file = driver.path(&place);
    let file = file.ok_or_else(|| Error::not_implemented("configured logging driver does not support reading"))?;
    // Only a container that runs (or is being started) has more to say.
    let follow = args.follow && has_more_to_say(&view);
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
    let following = follow.then(|| Following {
        // Before the first look, so that no change goes unnoticed.
        wake: readers.changes.follow(file.parent().unwrap_or(&file)),
        views: handle.watch(),
        ended: false,
        until: options.until,
        follower: readers.followers.enter(&row.id),
    });
    let reading = Some(Reading::Closed(driver, place, options));
    Ok(LogStream { tty: row.config.tty, shape, reading, following, steps: readers.steps.clone() })
}

fn has_more_to_say(view: &ContainerView) -> bool {
    !view.removed && (view.row.state.is_running() || matches!(view.row.state, State::Starting { .. }))
}

impl LogStream {
    /// The next entries, about 64 KiB at most, always whole ones; `None` at the end. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        self.is_given(false);
        loop {
            let reading = self.reading.take()?;
            let ended = self.following.as_mut().is_some_and(Following::look);
            let (reader, chunk, batch) = match self.steps.run(move |_| reading.step(ended)).await {
                Ok(taken) => taken,
                Err(error) => return Some(Err(error)),
            };
            if batch != Batch::End {
                self.reading = Some(Reading::Open(reader));
            }
            if !chunk.is_empty() {
                self.is_given(true);
                return Some(Ok(chunk.into()));
            }
            if let (Batch::Waiting, Some(following)) = (batch, &mut self.following) {
                following.wait().await;
            }
        }
    }

    fn is_given(&self, chunk: bool) {
        if let Some(following) = &self.following {
            following.follower.is_given(chunk);
        }
    }

    /// What counts as a follower until it is dropped: to be kept until the client has been sent the end.
    pub fn into_follower(self) -> Option<Follower> {
        self.following.map(|following| following.follower)
    }
}

impl Reading {
    /// One short piece of work.
    fn step(self, ended: bool) -> Result<(Box<dyn Source>, Vec<u8>, Batch)> {
        let mut reader = match self {
            Reading::Open(reader) => reader,
            Reading::Closed(driver, place, options) => match driver.read(&place, options) {
                Some(opened) => opened.map_err(|error| Error::from(error).prefix("opening the log"))?,
                None => return Err(Error::not_implemented("configured logging driver does not support reading")),
            },
        };
        if ended {
            reader.finish();
        }
        let mut chunk = Vec::new();
        let batch = reader.next_batch(&mut chunk).map_err(|error| Error::from(error).prefix("reading the log"))?;
        Ok((reader, chunk, batch))
    }
}

impl Following {
    /// The reader looks now; whether the container has ended.
    fn look(&mut self) -> bool {
        self.wake.look();
        self.ended |= !has_more_to_say(&self.views.borrow_and_update());
        self.ended
    }

    /// Until there may be more, or the end has come.
    async fn wait(&mut self) {
        let until = async {
            match self.until {
                Some(until) => tokio::time::sleep(left(until)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wake.changed() => {}
            // Whose actor is gone has nothing more to say, either.
            _ = self.views.wait_for(|view| !has_more_to_say(view)) => self.ended = true,
            () = until => {}
        }
    }
}

/// The time until just after a moment in unix nanoseconds.
fn left(until: i64) -> Duration {
    let nanos = until.saturating_sub(events::now().unix_nanos()).max(0);
    Duration::from_nanos(nanos.unsigned_abs()) + Duration::from_millis(1)
}
