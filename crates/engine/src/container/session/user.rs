//! Whether a running container has the user of an exec: told when the exec is made, as the reference does. The start looks
//! again; the files may be others by then.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use model::{Context, Error, Result};
use runtime::What;
use runtime::user::{resolve_inside, resolve_numbers};
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::container::life::donors;
use crate::container::registry::threads::Threads;
use crate::container::view::ContainerView;

/// How long a look into the container's files may take; a mount in it may not answer.
const WAIT: Duration = Duration::from_secs(30);
/// Bytes of the thread's stack.
const STACK: usize = 256 << 10;

/// The numbers of the user, or why there is none.
type Found = std::result::Result<runtime::user::Resolved, runtime::StartError>;

/// Refuses a user (`user[:group]`; empty: the container's own) that the container's files do not name.
///
/// Errors: `InvalidParameter`; `Unavailable` when the files do not answer.
pub(super) async fn check(threads: &Threads, view: &Arc<ContainerView>, user: &str) -> Result<()> {
    if user.is_empty() {
        return Ok(());
    }
    let groups = view.row.host_config.group_add.clone().unwrap_or_default();
    let found = match resolve_numbers(user, &groups) {
        Some(found) => found,
        None => {
            let look = look(threads, view, user.to_owned(), groups);
            let late = |_| Error::unavailable("the container's users could not be looked up in time");
            match tokio::time::timeout(WAIT, look).await.map_err(late)?? {
                Some(found) => found,
                None => return Ok(()),
            }
        }
    };
    found.map(drop).map_err(|error| error.to_error(What::Exec).0)
}

/// On a thread of its own, which enters the container's mounts. `None`: the container has ended, which the start will tell.
async fn look(
    threads: &Threads,
    view: &Arc<ContainerView>,
    user: String,
    groups: Vec<String>,
) -> Result<Option<Found>> {
    let place = threads.users_at_once.clone().acquire_owned().await;
    let Ok(process) = donors::first_process(view) else { return Ok(None) };
    let (tell, told) = oneshot::channel();
    let work = move || {
        let _place = place;
        // Whoever asked may have left.
        let _ = tell.send(resolve_inside(process.as_fd(), &user, &groups));
    };
    thread::Builder::new().name("users".into()).stack_size(STACK).spawn(work).context("looking up a user")?;
    match told.await {
        Ok(Ok(found)) => Ok(Some(found)),
        Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(None),
        Ok(Err(error)) => Err(Error::from(error).prefix("looking up a user")),
        Err(_) => Err(Error::system("looking up a user broke off")),
    }
}
