//! Receiving a terminal from the runtime program: it sends the master end over a socket that we listen on.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use sys::fdpass;

use super::command::Call;
use crate::error::{At, Stage, StartError};
use crate::process::path_of;

const NAME: &str = "console.sock";
/// The message that comes with the descriptor: the terminal's name.
const MAX_NAME: usize = 4096;

/// Where the terminal will arrive, if the process has one.
pub(super) enum Console {
    None,
    Socket {
        /// The socket's directory; addressed through it, since socket addresses are short.
        dir: OwnedFd,
        listener: UnixListener,
        path: PathBuf,
    },
}

impl Console {
    /// Ready to receive, if there is a terminal to come.
    pub fn listen(terminal: bool, dir: &Path) -> Result<Console, StartError> {
        if !terminal {
            return Ok(Console::None);
        }
        let path = dir.join(NAME);
        let _ = fs::remove_file(&path);
        let dir: OwnedFd = fs::File::open(dir).at(|| Stage::Console, "open")?.into();
        let address = format!("{}/{NAME}", path_of(dir.as_fd()));
        let listener = UnixListener::bind(address).at(|| Stage::Console, "bind")?;
        // By the time we accept, the program has ended: what has not come will not come.
        listener.set_nonblocking(true).at(|| Stage::Console, "socket")?;
        Ok(Console::Socket { dir, listener, path })
    }

    /// Adds `--console-socket` to the call, if the process has a terminal.
    pub fn add_to(&self, call: &mut Call) {
        if let Console::Socket { dir, .. } = self {
            call.arg("--console-socket").arg(format!("{}/{NAME}", path_of(dir.as_fd())));
        }
    }

    /// The master end.
    pub fn receive(&self) -> Result<Option<OwnedFd>, StartError> {
        let Console::Socket { listener, .. } = self else { return Ok(None) };
        let (stream, _) = listener.accept().at(|| Stage::Console, "accept")?;
        let (_, fds) = fdpass::receive(&stream, &mut [0; MAX_NAME]).at(|| Stage::Console, "receive")?;
        let master = fds.into_iter().next();
        master.map(Some).ok_or_else(|| StartError::new(Stage::Console, 0, "the runtime sent no terminal"))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Console::Socket { path, .. } = self {
            let _ = fs::remove_file(path);
        }
    }
}
