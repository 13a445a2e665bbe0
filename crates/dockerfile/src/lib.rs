//! Dockerfiles: read, checked and turned into a graph of build steps (BuildKit's LLB).
//!
//! Pure: no I/O, no clock. What a conversion has to know of images and contexts it asks its caller for
//! ([`Question`]), and is made anew with the answers.
#![forbid(unsafe_code)]

mod context;
mod convert;
mod error;
mod frontend;
mod git;
pub mod ignore;
mod image;
pub mod instruction;
mod lines;
pub mod lint;
pub mod llb;
mod options;
pub mod parse;
mod platform;
mod question;
mod report;
pub mod shell;
mod suggest;
mod text;

pub use convert::{Conversion, Entry, Outline};
pub use error::{Error, Result};
pub use frontend::{Build, Failure, Outcome, OwnSyntax, Request, Target, answer, is_usual};
pub use git::GitSource;
pub use image::{Config, HealthCheck, Image, RootFiles, Row};
pub use lines::Lines;
pub use options::{Attributes, Options, Resources, RunOptions};
pub use question::{Answer, Answers, ImageAnswer, ImageQuestion, Question};
pub use report::frame;
pub use text::{boolean, csv_fields};
