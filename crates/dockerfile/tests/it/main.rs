//! Dockerfiles as clients send them, against what the reference makes of them (`tests/data`).
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

mod cases;
mod client;
mod contexts;
mod graphs;
mod lint;
mod words;
