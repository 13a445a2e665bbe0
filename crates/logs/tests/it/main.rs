//! The log's writer and readers together, through files only.

#![allow(clippy::unwrap_used)] // a test may

mod follow;
mod read;
