//! Client tests: real clients against the built daemon.
