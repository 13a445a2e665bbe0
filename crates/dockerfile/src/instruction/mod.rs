//! Instructions with their meaning: what each takes, which flags it knows, what it refuses.

mod command_line;
mod copy;
mod flags;
mod mount;
mod read;
mod run;
mod types;

pub use command_line::CommandLine;
pub use copy::Transfer;
pub use mount::{Expander, Mount, MountKind, Sharing};
pub use read::{Program, program, trigger};
pub use run::{Device, Network, Run, Security};
pub use types::{Argument, Command, Health, Instruction, Setting, Stage};
