//! Errors as clients of gRPC get them: a status, and details that say which vertex and which lines are meant.
//!
//! A detail is JSON with a type URL, as BuildKit's package `errdefs` writes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_buildkit_proto::google::{protobuf, rpc};
use bollard_buildkit_proto::pb;
use model::digest::Digest;
use model::{Error, Kind};
use prost::Message;
use serde_json::{Value, json};
use tonic::{Code, Status};

/// In front of the types of details.
const TYPES: &str = "github.com/moby/buildkit/";

/// The status of an error that is about nothing in particular.
pub(crate) fn status(error: &Error) -> Status {
    Status::new(code(error.kind()), error.message())
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::InvalidParameter => Code::InvalidArgument,
        Kind::Conflict => Code::AlreadyExists,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::Unauthorized => Code::Unauthenticated,
        Kind::NotImplemented => Code::Unimplemented,
        Kind::Unavailable => Code::Unavailable,
        Kind::Cancelled => Code::Cancelled,
        _ => Code::Unknown,
    }
}

/// Why a build failed, with what it is about.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    code: Code,
    message: String,
    details: Vec<protobuf::Any>,
}

impl Failed {
    /// One that is about nothing in particular. What fails in a build is told without a kind, as BuildKit does.
    pub(crate) fn new(message: impl Into<String>) -> Failed {
        Failed { code: Code::Unknown, message: message.into(), details: Vec::new() }
    }

    /// What a build that was cancelled ends with.
    pub(crate) fn cancelled() -> Failed {
        Failed { code: Code::Cancelled, ..Failed::new("context canceled") }
    }

    /// What a client said itself.
    pub(crate) fn from_status(status: rpc::Status) -> Failed {
        Failed { code: Code::from_i32(status.code), message: status.message, details: status.details }
    }

    /// The vertex that failed.
    pub(crate) fn at(mut self, vertex: &Digest) -> Failed {
        self.detail("errdefs.Vertex", &json!({"digest": vertex.as_str()}));
        self
    }

    /// The code with which a program has ended.
    pub(crate) fn exited(mut self, exit_code: i32) -> Failed {
        self.detail("gatewayapi.ExitMessage", &json!({"Code": exit_code}));
        self
    }

    /// Lines of a file.
    pub(crate) fn about(mut self, file: &pb::SourceInfo, ranges: &[pb::Range]) -> Failed {
        let ranges: Vec<Value> = ranges.iter().map(range).collect();
        let info = json!({
            "filename": file.filename,
            "data": STANDARD.encode(&file.data),
            "language": file.language,
        });
        self.detail("errdefs.Source", &json!({"info": info, "ranges": ranges}));
        self
    }

    /// The lines of the vertex, as its definition knows them.
    pub(crate) fn located(mut self, vertex: &Digest, definition: &pb::Definition) -> Failed {
        let Some(source) = &definition.source else { return self };
        let Some(locations) = source.locations.get(vertex.as_str()) else { return self };
        for location in &locations.locations {
            let file = usize::try_from(location.source_index).ok().and_then(|at| source.infos.get(at));
            if let Some(file) = file {
                self = self.about(file, &location.ranges);
            }
        }
        self
    }

    /// Whether it says of which lines it is.
    pub(crate) fn has_source(&self) -> bool {
        self.details.iter().any(|detail| detail.type_url.contains("errdefs.Source"))
    }

    /// What front ends in containers ask for that this builder or its front end has not.
    pub(crate) fn unsupported(message: impl Into<String>) -> Failed {
        Failed { code: Code::Unimplemented, ..Failed::new(message) }
    }

    /// The text.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// As records of builds keep it.
    pub(crate) fn to_proto(&self) -> rpc::Status {
        rpc::Status { code: self.code as i32, message: self.message.clone(), details: self.details.clone() }
    }

    fn detail(&mut self, name: &str, value: &Value) {
        let type_url = format!("{TYPES}{name}+json");
        self.details.push(protobuf::Any { type_url, value: value.to_string().into_bytes() });
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        if error.message() == "context canceled" {
            return Failed::cancelled();
        }
        Failed::new(error.message())
    }
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Status {
        let details = failed.to_proto().encode_to_vec();
        Status::with_details(failed.code, failed.message, details.into())
    }
}

/// Numbers that are 0 are left out, as Go does.
fn range(range: &pb::Range) -> Value {
    let position = |position: &Option<pb::Position>| {
        let position = position.unwrap_or_default();
        let mut value = serde_json::Map::new();
        if position.line != 0 {
            value.insert("line".into(), position.line.into());
        }
        if position.character != 0 {
            value.insert("character".into(), position.character.into());
        }
        Value::from(value)
    };
    json!({"start": position(&range.start), "end": position(&range.end)})
}

/// What a client has answered that did not do what it was asked.
pub(crate) fn answered(status: &Status) -> Error {
    let kind = match status.code() {
        Code::NotFound => Kind::NotFound,
        Code::InvalidArgument => Kind::InvalidParameter,
        Code::AlreadyExists => Kind::Conflict,
        Code::PermissionDenied => Kind::Forbidden,
        Code::Unauthenticated => Kind::Unauthorized,
        Code::Unimplemented => Kind::NotImplemented,
        Code::Unavailable => Kind::Unavailable,
        Code::Cancelled => Kind::Cancelled,
        _ => Kind::System,
    };
    Error::new(kind, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::digest::Algorithm;

    #[test]
    fn details_are_as_the_reference_writes_them() {
        let vertex = Digest::of(Algorithm::Sha256, b"");
        let file = pb::SourceInfo {
            filename: "Dockerfile".into(),
            data: b"RUN false".to_vec(),
            language: "Dockerfile".into(),
            definition: None,
        };
        let line = |line| Some(pb::Position { line, character: 0 });
        let failed = Failed::new("no").at(&vertex).about(&file, &[pb::Range { start: line(3), end: line(4) }]);
        let status = Status::from(failed.exited(7));
        assert_eq!((status.code(), status.message()), (Code::Unknown, "no"));
        let told = rpc::Status::decode(status.details()).unwrap();
        assert_eq!((told.code, told.message.as_str()), (2, "no"));
        let text = |at: usize| {
            let detail: &protobuf::Any = &told.details[at];
            (detail.type_url.strip_prefix(TYPES).unwrap().to_owned(), String::from_utf8(detail.value.clone()).unwrap())
        };
        assert_eq!(text(0), ("errdefs.Vertex+json".into(), format!("{{\"digest\":\"{vertex}\"}}")));
        let source = "{\"info\":{\"filename\":\"Dockerfile\",\"data\":\"UlVOIGZhbHNl\",\"language\":\"Dockerfile\"},\
             \"ranges\":[{\"start\":{\"line\":3},\"end\":{\"line\":4}}]}";
        assert_eq!(text(1), ("errdefs.Source+json".into(), source.into()));
        assert_eq!(text(2), ("gatewayapi.ExitMessage+json".into(), "{\"Code\":7}".into()));
    }
}
