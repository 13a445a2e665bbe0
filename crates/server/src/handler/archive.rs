//! `/containers/{name}/archive`: what `docker cp` asks.

use std::io::Write;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use engine::container::archive::{self, Opened, PutArgs};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use hyper::StatusCode;
use hyper::header::ACCEPT_ENCODING;
use model::{Error, Result};
use tokio::sync::oneshot;

use super::{State, done};
use crate::limits;
use crate::request::Request;
use crate::response::{self, Response};
use crate::routes::Outcome;

const STAT_HEADER: &str = "x-docker-container-path-stat";

/// How an answer's body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
}

/// `HEAD /containers/{name}/archive`
pub async fn stat(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (name, path) = named(&request)?;
    let place = state.transfers.place().await;
    let subject = archive::to_read(&state.engine, &name).await?;
    let what = format!("{path} in container {name}");
    let running = place.run(move |_| subject.stat(&path));
    let stat = running.within(limits::ARCHIVE_LOOK, &what).await??;
    Ok(with_stat(response::empty(StatusCode::OK), &stat).into())
}

/// `GET /containers/{name}/archive`
pub async fn get(state: Arc<State>, request: Request) -> Result<Outcome> {
    let (name, path) = named(&request)?;
    let coding = Coding::of(&request);
    let place = state.transfers.place().await;
    let subject = archive::to_read(&state.engine, &name).await?;
    let what = format!("{path} in container {name}");
    let running = place.run(move |_| subject.open(&path));
    let opened = running.within(limits::ARCHIVE_LOOK, &what).await??;
    let stat = opened.stat.clone();
    let download = response::download(&state.transfers, response::TAR, move |sink| write(opened, coding, sink));
    let answer = with_stat(download.await?, &stat);
    Ok(match coding {
        Coding::Identity => answer,
        Coding::Gzip => response::with_header(answer, "content-encoding", "gzip"),
        Coding::Deflate => response::with_header(answer, "content-encoding", "deflate"),
    }
    .into())
}

/// `PUT /containers/{name}/archive`
pub async fn put(state: Arc<State>, mut request: Request) -> Result<Outcome> {
    let (name, path) = named(&request)?;
    let query = &request.query;
    let args = PutArgs {
        copy_uid_gid: query.flag("copyUIDGID"),
        no_overwrite_dir_non_dir: query.flag("noOverwriteDirNonDir"),
    };
    let body = request.upload();
    let place = state.transfers.place().await;
    let subject = archive::to_write(&state.engine, &name).await?;
    let what = format!("{path} in container {name}");
    let (tell_found, found) = oneshot::channel();
    let running = place.run(move |client| {
        let target = subject.target(&path, args)?;
        // Who has given up hears nothing any more.
        let _ = tell_found.send(());
        target.unpack(body.from(&client))
    });
    running.begun_within(found, limits::ARCHIVE_LOOK, &what).await??;
    done(StatusCode::OK)
}

/// The container and the path.
fn named(request: &Request) -> Result<(String, String)> {
    match request.query.text("path") {
        "" => Err(Error::invalid("bad parameter: path cannot be empty")),
        path => Ok((request.name().to_owned(), path.to_owned())),
    }
}

fn with_stat(answer: Response, stat: &api::PathStat) -> Response {
    let json = api::encode::to_vec(stat);
    response::with_header(answer, STAT_HEADER, &BASE64_STANDARD.encode(json.trim_ascii_end()))
}

fn write(opened: Opened, coding: Coding, sink: &mut dyn Write) -> Result<()> {
    // The client decodes at once: time counts more than size.
    match coding {
        Coding::Identity => opened.write(sink),
        Coding::Gzip => {
            let mut coded = GzEncoder::new(sink, Compression::fast());
            opened.write(&mut coded)?;
            Ok(coded.finish().map(drop)?)
        }
        Coding::Deflate => {
            let mut coded = DeflateEncoder::new(sink, Compression::fast());
            opened.write(&mut coded)?;
            Ok(coded.finish().map(drop)?)
        }
    }
}

impl Coding {
    fn of(request: &Request) -> Coding {
        let fields = request.headers.get_all(ACCEPT_ENCODING).iter().filter_map(|field| field.to_str().ok());
        Coding::best(&fields.collect::<Vec<_>>().join(","))
    }

    /// The coding of the highest weight (RFC 9110, section 12.5.3), gzip first; what cannot be read weighs nothing.
    fn best(accepted: &str) -> Coding {
        let (mut best, mut highest) = (Coding::Identity, 0.0);
        for (coding, name) in [(Coding::Gzip, "gzip"), (Coding::Deflate, "deflate")] {
            for item in accepted.split(',') {
                let mut parts = item.split(';').map(str::trim);
                let matches = parts.next().is_some_and(|part| part == "*" || part.eq_ignore_ascii_case(name));
                let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f64>);
                let weight = weight.unwrap_or(0.0);
                if matches && weight > highest {
                    (best, highest) = (coding, weight);
                }
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_coding_wins() {
        let cases = [
            ("", Coding::Identity),
            ("identity", Coding::Identity),
            ("gzip", Coding::Gzip),
            ("deflate, gzip", Coding::Gzip),
            ("gzip;q=0.5, deflate", Coding::Deflate),
            ("gzip;q=0, deflate;q=0", Coding::Identity),
            ("*", Coding::Gzip),
            ("br, zstd;q=1", Coding::Identity),
            ("gzip;q=x", Coding::Identity),
        ];
        for (accepted, coding) in cases {
            assert_eq!(Coding::best(accepted), coding, "{accepted}");
        }
    }
}
