//! What commands carry.

use std::sync::Arc;

use model::{Result, signal};
use run::Attached;

use super::command::Reply;
use super::exec_session::Session;
use crate::container::definition::Definition;
use crate::settings::ContainerDefaults;

/// Seconds between a stop signal that the kernel does not have and SIGKILL at most.
const UNSENT: u64 = 2;

/// The query of a remove call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveArgs {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
    /// Remove a link instead of the container.
    pub link: bool,
}

/// A place that a container is to get, or to lose.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name or id, as the client wrote it.
    pub network: String,
    /// What it asks for.
    pub settings: api::EndpointSettings,
}

/// Whether a place is given up though its network is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

/// The query of a stop or restart call.
#[derive(Clone, Debug, Default)]
pub struct StopArgs {
    /// Seconds to wait; negative for ever; `None` for the container's own.
    pub timeout: Option<i64>,
    /// The signal instead of the container's own.
    pub signal: Option<String>,
}

/// How a stop goes: which signal, how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopPlan {
    /// The signal's number.
    pub signal: i32,
    /// Seconds until SIGKILL; `None` waits for ever.
    pub seconds: Option<u64>,
}

impl StopPlan {
    /// The caller's wishes, else the container's, else the defaults.
    pub fn new(row: &Definition, args: &StopArgs, defaults: &ContainerDefaults) -> Result<StopPlan> {
        let word = args.signal.as_deref().filter(|s| !s.is_empty()).unwrap_or(stop_signal(row));
        let seconds = u64::try_from(args.timeout.unwrap_or(timeout(row, defaults))).ok();
        let signal = signal::parse_any(word)?;
        // Nothing will come of it, so that nobody waits long.
        let seconds = if signal::is_valid(signal) { seconds } else { Some(seconds.map_or(UNSENT, |s| s.min(UNSENT))) };
        Ok(StopPlan { signal, seconds })
    }

    /// When the daemon ends: the container's own, whatever its signal.
    pub fn at_shutdown(row: &Definition, defaults: &ContainerDefaults) -> StopPlan {
        let seconds = u64::try_from(timeout(row, defaults)).ok();
        StopPlan::new(row, &StopArgs::default(), defaults).unwrap_or(StopPlan { signal: signal::TERM, seconds })
    }
}

/// The signal that the container asks for.
pub fn stop_signal(row: &Definition) -> &str {
    Some(row.config.stop_signal.as_str()).filter(|s| !s.is_empty()).unwrap_or("SIGTERM")
}

/// Seconds between the stop signal and SIGKILL unless the caller says otherwise; negative: for ever.
pub fn timeout(row: &Definition, defaults: &ContainerDefaults) -> i64 {
    row.config.stop_timeout.unwrap_or(defaults.stop_timeout)
}

/// What the actor needs to start a session.
pub struct ExecStart {
    /// The claimed session.
    pub session: Arc<Session>,
    /// Height and width of the terminal.
    pub console_size: Option<[u16; 2]>,
    /// The attached client.
    pub client: Option<Attached>,
    /// Answered when the process runs or could not.
    pub reply: Reply,
}
