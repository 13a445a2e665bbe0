//! `POST /containers/{id}/resize`.

use std::sync::Arc;

use model::{Error, Result};

use super::actor::Command;
use crate::Engine;

/// Sets the size of the container's terminal, in characters.
pub async fn resize(engine: &Arc<Engine>, name: &str, height: u16, width: u16) -> Result<()> {
    let handle = engine.containers.find(name)?;
    let view = handle.view();
    if !view.row.state.is_running() {
        return Err(Error::conflict(format!("container {} is not running", handle.id.as_str())));
    }
    handle.ask(|reply| Command::Resize { exec: None, height, width, reply }).await?;
    let size = [("height", height.to_string()), ("width", width.to_string())];
    engine.publish_container(&view.row, "resize", size);
    Ok(())
}
