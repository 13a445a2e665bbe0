//! Containers that stand still for the moment in which their volume is copied.

use std::time::{Duration, Instant};

use model::{Error, Result};
use tokio::runtime;
use tokio::time::timeout;

use crate::container::registry::command::Command;
use crate::container::registry::standing::Standing;
use crate::container::{Containers, Handle};

/// How long one container may take to stand still.
const STAND: Duration = Duration::from_secs(10);

/// Containers that were frozen. They go on at [`Frozen::thaw`], or else when this is dropped; should the daemon die or
/// hang, their monitors let them go on.
pub struct Frozen {
    handles: Vec<Handle>,
    /// Of those that stand.
    standing: Vec<Standing>,
    runtime: runtime::Handle,
}

impl Frozen {
    /// Freezes all running containers that name the volume. One that is paused stays as it is.
    ///
    /// Errors: of the first that runs and cannot be frozen; those before it go on.
    pub async fn begin(containers: &Containers, volume: &str) -> Result<Frozen> {
        let mut frozen = Frozen { handles: Vec::new(), standing: Vec::new(), runtime: runtime::Handle::current() };
        for id in super::users(containers, volume) {
            let Ok(handle) = containers.find(id.as_str()) else { continue };
            if handle.view().pid == 0 || handle.view().row.state.is_paused() {
                continue;
            }
            let asked = Instant::now();
            let Ok(stands) = timeout(STAND, handle.ask(|reply| Command::Pause { passing: true, reply })).await else {
                // Should it do so later, it is let go on at once.
                let text = format!("container {} did not stand still within {} s", id.short(), STAND.as_secs());
                frozen.handles.push(handle);
                return Err(Error::system(text));
            };
            match stands {
                Ok(()) => {
                    frozen.standing.push(handle.stand(asked));
                    frozen.handles.push(handle);
                }
                // It ended, or somebody else has paused it.
                Err(_) if handle.view().pid == 0 || handle.view().row.state.is_paused() => {}
                Err(error) => {
                    frozen.thaw().await;
                    return Err(error.prefix(format!("freezing container {}", id.short())));
                }
            }
        }
        Ok(frozen)
    }

    /// Errors: `System` when one of them may have gone on before now.
    pub fn check(&self) -> Result<()> {
        self.standing.iter().try_for_each(Standing::check)
    }

    /// Lets them go on.
    pub async fn thaw(mut self) {
        self.standing.clear();
        go_on(std::mem::take(&mut self.handles)).await;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let handles = std::mem::take(&mut self.handles);
        if !handles.is_empty() {
            self.runtime.spawn(go_on(handles));
        }
    }
}

async fn go_on(handles: Vec<Handle>) {
    for handle in handles {
        if let Err(error) = handle.ask(|reply| Command::Unpause { reply }).await {
            // Somebody else has let it go on, or ended it.
            tracing::debug!(container = handle.id.short(), %error, "not thawed after a copy of its volume");
        }
    }
}
