//! `POST /containers/{id}/resize`.

use events::Events;
use model::{Error, Result};

use crate::container::registry::command::Command;
use crate::container::{Containers, publish};

/// Sets the size of the container's terminal, in characters.
pub async fn resize(containers: &Containers, events: &Events, name: &str, (height, width): (u16, u16)) -> Result<()> {
    let handle = containers.find(name)?;
    let view = handle.view();
    if !view.row.state.is_running() {
        return Err(Error::conflict(format!("container {} is not running", handle.id.as_str())));
    }
    handle.ask(|reply| Command::Resize { exec: None, height, width, reply }).await?;
    let size = [("height", height.to_string()), ("width", width.to_string())];
    publish(events, &view.row, "resize", size);
    Ok(())
}
