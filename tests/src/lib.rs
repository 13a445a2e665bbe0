//! Client tests: real clients against the built daemon. The tests are in `client/`, one file per area.

#![forbid(unsafe_code)]
