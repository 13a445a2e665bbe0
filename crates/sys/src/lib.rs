//! The kernel, as Gantry uses it: the only crate that contains `unsafe`.
//!
//! Every module wraps one kernel interface; callers get `OwnedFd`, never a raw number, and `model::Error` or
//! `std::io::Error` with the errno kept. Nothing here knows what a container is.
#![allow(unsafe_code)]

pub mod argument;
mod bpf;
pub mod btrfs;
pub mod capability;
pub mod cgroup;
pub mod clock;
pub mod clone;
pub mod datagrams;
pub mod descriptors;
pub mod exe;
pub mod fdpass;
pub mod file;
pub mod gate;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod nft;
pub mod note;
pub mod ns;
pub mod packet;
pub mod process;
pub mod pty;
pub mod quota;
pub mod random;
pub mod rooted;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod steer;
pub mod tree;
