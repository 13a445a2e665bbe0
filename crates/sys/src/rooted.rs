//! rooted
