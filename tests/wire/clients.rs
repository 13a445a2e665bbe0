//! Real client libraries.
