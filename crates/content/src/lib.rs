//! content
#![forbid(unsafe_code)]
