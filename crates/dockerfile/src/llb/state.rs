//! What an instruction begins with: files, and how commands run over them.

use model::platform::Platform;

use super::input::Output;
use crate::shell::Env;

/// A state of a stage.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Its files; `None`: none.
    pub output: Option<Output>,
    /// The environment of commands.
    pub env: Env,
    /// Their working directory.
    pub directory: String,
    /// Their user.
    pub user: String,
    /// Their platform.
    pub platform: Option<Platform>,
}

impl State {
    /// Only files.
    pub fn of(output: Option<Output>) -> State {
        State { output, directory: "/".into(), ..State::default() }
    }

    /// The same with other files.
    #[must_use]
    pub fn with(&self, output: Output) -> State {
        State { output: Some(output), ..self.clone() }
    }
}
