//! Events of `GET /events`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::go::is_zero;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Message", default)]
pub struct EventMessage {
    /// `container`, `image`, `network`, `volume`, `daemon`, `plugin`, `builder`, `node`, `service`, `secret`, `config`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `start`, `die`, `exec_create: sh`, …
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// `local` or `swarm`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Unix seconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub time: i64,
    /// Unix nanoseconds.
    #[serde(rename = "timeNano", skip_serializing_if = "is_zero")]
    pub time_nano: i64,
}

/// The object that an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
