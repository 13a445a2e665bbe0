//! Lines of the progress streams (pull, push, build, load, import).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::go::is_zero;

/// One line. `progressDetail: {}` is written when `progress` is `Some(default)`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressMessage {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// A bar drawn by the daemon, which older clients print (`[==>  ]  1kB/2kB`).
    #[serde(rename = "progress", skip_serializing_if = "String::is_empty")]
    pub bar: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
    /// The text of `errorDetail` once more, for older clients.
    #[serde(rename = "error", skip_serializing_if = "String::is_empty")]
    pub error_message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<Value>,
}

impl ProgressMessage {
    /// `{"status": text, "id": id}`; an empty id is left out.
    pub fn status(id: &str, text: impl Into<String>) -> ProgressMessage {
        ProgressMessage { status: text.into(), id: id.to_owned(), ..ProgressMessage::default() }
    }

    /// A status line with counters.
    pub fn progress(id: &str, text: impl Into<String>, progress: Progress) -> ProgressMessage {
        ProgressMessage { progress: Some(progress), ..ProgressMessage::status(id, text) }
    }

    /// `{"stream": text}`.
    pub fn stream(text: impl Into<String>) -> ProgressMessage {
        ProgressMessage { stream: text.into(), ..ProgressMessage::default() }
    }

    /// The line that ends a failed operation.
    pub fn error(code: i64, message: impl Into<String>) -> ProgressMessage {
        let message = message.into();
        ProgressMessage {
            error_message: message.clone(),
            error: Some(ErrorDetail { code, message }),
            ..ProgressMessage::default()
        }
    }

    /// `{"aux": value}`.
    pub fn aux(value: Value) -> ProgressMessage {
        ProgressMessage { aux: Some(value), ..ProgressMessage::default() }
    }
}

/// Counters of one item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
    /// Unix seconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub start: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub hidecounts: bool,
    /// Empty: bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub units: String,
}

/// Why the operation failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    #[serde(skip_serializing_if = "is_zero")]
    pub code: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}
