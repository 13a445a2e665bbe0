//! netlink/mod
