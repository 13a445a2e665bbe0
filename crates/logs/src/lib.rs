//! logs
#![forbid(unsafe_code)]
