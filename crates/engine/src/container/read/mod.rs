//! What is read of containers without changing them: from published views, log files, the kernel's tables and the
//! writable layer.

pub mod cmdline;
pub mod commit;
pub mod export;
pub mod inspect;
pub mod list;
pub mod logs;
pub mod stats;
pub mod top;
pub mod users;
pub mod wait;
