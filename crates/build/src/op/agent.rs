//! Sockets in a step that lead to SSH agents of its client: each connection is passed on over a stream of its own.

use std::sync::Arc;

use model::{Context, Result};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::mounts::Socket;
use crate::job::Job;

/// Connections of one step at one time.
const CONNECTIONS: usize = 16;

/// Serves the sockets until the value is dropped.
pub(super) fn serve(job: &Arc<Job>, sockets: Vec<Socket>) -> Result<JoinSet<()>> {
    let mut serving = JoinSet::new();
    for Socket { listener, agent } in sockets {
        listener.set_nonblocking(true).context("listening for a step")?;
        let listener = UnixListener::from_std(listener).context("listening for a step")?;
        let job = job.clone();
        serving.spawn(async move { accept(&job, &listener, &agent).await });
    }
    Ok(serving)
}

async fn accept(job: &Arc<Job>, listener: &UnixListener, agent: &str) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut going = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        while going.try_join_next().is_some() {}
        let mut theirs = match listener.accept().await {
            Ok((theirs, _)) => theirs,
            Err(error) => {
                tracing::debug!(%error, "a step's connection to an SSH agent was not accepted");
                continue;
            }
        };
        let (job, agent) = (job.clone(), agent.to_owned());
        going.spawn(async move {
            let passed = async {
                let mut own = job.inputs.agent(&agent).await?;
                tokio::io::copy_bidirectional(&mut theirs, &mut own).await.context("speaking to an SSH agent")
            };
            if let Err(error) = passed.await {
                tracing::debug!(%error, "a step's connection to an SSH agent has broken");
            }
            drop(place);
        });
    }
}
