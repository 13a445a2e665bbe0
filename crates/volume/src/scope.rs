//! Who can reach a volume.

use serde::{Deserialize, Serialize};

/// Who can reach the volumes of a driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// This host.
    #[default]
    Local,
    /// Every host that has the driver.
    Global,
}

impl Scope {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Local => "local",
            Scope::Global => "global",
        }
    }
}
