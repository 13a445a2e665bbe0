//! A [`RunSpec`] becomes a supervised process: a straight line of steps with an undo stack, a limit of time a step, and a
//! line to the process's monitor afterwards.
//!
//! There is no container record here and no policy: whoever starts something (a container, a build step, a plugin) says
//! in a specification what, where and on which network, records the run in a call of its own, and is given a [`Link`].
#![forbid(unsafe_code)]

pub mod attached;
pub mod files;
pub mod link;
pub mod place;
pub mod ports;
pub mod progress;
pub mod start;
pub mod undo;

pub use attached::Attached;
pub use link::Link;
pub use place::Place;
pub use progress::{Progress, Step};
pub use start::{Failed, RunSpec, Running, Services, start};
pub use undo::Undo;
