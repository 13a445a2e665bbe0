//! The log's writer and readers together, through files only.

mod follow;
mod read;
