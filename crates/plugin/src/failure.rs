//! Why a plugin could not be asked, or what it says no to.

use model::{Error, Kind};

/// What a call comes to.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// See the module. The texts are for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing stands for this name.
    Absent(String),
    /// It was not reached, or its connection broke.
    Unreachable(String),
    /// It has not answered in time.
    TimedOut(String),
    /// It has answered with an error, or with nonsense.
    Refused(String),
    /// It does not know the method (status 404).
    Unknown(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Absent(name) => Error::new(Kind::NotFound, format!("plugin {name:?} not found")),
            Failure::Unreachable(text) | Failure::TimedOut(text) | Failure::Refused(text) | Failure::Unknown(text) => {
                Error::system(text)
            }
        }
    }
}
