//! `GET /containers/{id}/top`: the processes of a container in the columns of `ps`.
//!
//! As the reference does, the host's `ps` is run with the client's arguments and its lines are filtered by the
//! container's process ids. Where there is no `ps`, Gantry reads /proc itself and knows the usual arguments ([`own`]).
//! Process ids, run time, number of runs and the size of the answer have bounds; a container decides none of them.

mod own;
mod ps;
mod table;

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use blocking::Blocking;
use events::Events;
use model::{Error, Result};
use ps::Runs;
pub use table::{ANSWER, Table};

use crate::container::{Containers, publish};
use crate::host::Host;
use crate::settings::Settings;

/// What `ps` is given when the client says nothing.
const DEFAULT_ARGUMENTS: &str = "-ef";
/// Where programs are when the daemon's environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lists the processes of a running container; 409 when it does not run, 500 with the words of a `ps` that fails.
pub async fn top(
    containers: &Containers,
    events: &Events,
    (host, settings): (&Host, &Settings),
    name: &str,
    ps_args: &str,
) -> Result<api::TopResponse> {
    let arguments = if ps_args.is_empty() { DEFAULT_ARGUMENTS } else { ps_args };
    refuse_renamed_columns(arguments)?;
    let handle = containers.find(name)?;
    let view = handle.view();
    let id = view.row.id.clone();
    let not_running = move || Error::conflict(format!("container {} is not running", id.as_str()));
    if view.row.state.is_restarting() {
        return Err(crate::container::life::donors::restarting(view.row.id.as_str()));
    }
    if !view.row.state.is_running() || view.pid == 0 {
        return Err(not_running());
    }
    let cgroup = crate::container::life::place::cgroup_of(host, settings, &view.row)?;
    let processes = &containers.threads.processes;
    let found = processes.run(move |on| {
        let pids = cgroup.processes().map_err(|error| match error.kind() {
            // It has ended just now.
            std::io::ErrorKind::NotFound => not_running(),
            _ => error.into(),
        })?;
        Ok((pids, find(on, "ps", &search_path())))
    });
    let (pids, program) = found.await?;
    let answer = match program {
        Some(program) => Runs::of(&containers.threads).list(&program, arguments, &pids).await?,
        None => own::list(processes, arguments, pids).await?,
    };
    publish(events, &view.row, "top", []);
    Ok(answer)
}

/// Where the daemon's environment says that programs are.
fn search_path() -> OsString {
    std::env::var_os("PATH").filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.into())
}

/// The first executable file of this name in a list of directories as `PATH` has it; relative ones do not count.
#[expect(clippy::disallowed_methods, reason = "on a thread of the processes")]
fn find(_on: &Blocking, name: &str, search: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.is_absolute() && path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(search).map(|dir| dir.join(name)).find(is_program)
}

/// Refuses a column other than `pid` under a title that begins with `PID` (`-o ppid=PID`): the filter by process would
/// be fooled. The reference looks for `\s+(\S*)=\s*(PID\S*)`.
fn refuse_renamed_columns(arguments: &str) -> Result<()> {
    let is_space = |c: char| matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ');
    let word_end = |at: usize| arguments[at..].find(is_space).map_or(arguments.len(), |length| at + length);
    let mut at = 0;
    while let Some(gap) = arguments[at..].find(is_space) {
        let start = at + gap + arguments[at + gap..].len() - arguments[at + gap..].trim_start_matches(is_space).len();
        let word = &arguments[start..word_end(start)];
        // The last equals sign that a title follows; only one at the word's end may have space behind it.
        let title = word.rmatch_indices('=').find_map(|(equals, _)| {
            let rest = arguments[start + equals + 1..].trim_start_matches(is_space);
            rest.starts_with("PID").then(|| (&word[..equals], arguments.len() - rest.len()))
        });
        at = match title {
            Some((key, title)) if key != "pid" => {
                let value = &arguments[title..word_end(title)];
                return Err(Error::system(format!("specifying \"{key}={value}\" is not allowed")));
            }
            Some((_, title)) => word_end(title),
            None => start + word.len(),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pid_may_be_shown_as_pid() {
        let refused = |arguments: &str| refuse_renamed_columns(arguments).err().map(|e| e.message().to_owned());
        for arguments in
            ["-ef", "-o pid", "-o pid=PID", "-o pid=PID,ppid=PARENT", "-o pid= PIDS", "a=PID", "", " ", "-o ="]
        {
            assert_eq!(refused(arguments), None, "{arguments}");
        }
        let text = |what: &str| Some(format!("specifying \"{what}\" is not allowed"));
        assert_eq!(refused("-o ppid=PID"), text("ppid=PID"));
        assert_eq!(refused("ae -o uid=PID"), text("uid=PID"));
        assert_eq!(refused("ae -o ppid=  PIDX -x"), text("ppid=PIDX"));
        assert_eq!(refused("-o pid=PID -o comm=PID"), text("comm=PID"));
        assert_eq!(refused("-o pid=PID,comm=PID"), text("pid=PID,comm=PID"));
        assert_eq!(refused("-o\t\tuid=\nPIDé"), text("uid=PIDé"));
        assert_eq!(refused("-o =PID"), text("=PID"));
    }

    #[test]
    fn programs_are_looked_up_as_a_shell_does() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        for (place, mode) in [(&first, 0o644), (&second, 0o755)] {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("ps"), "").unwrap();
            std::fs::set_permissions(place.join("ps"), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let search = std::env::join_paths(["relative".into(), first, second.clone()]).unwrap();
        assert_eq!(find(&Blocking::alone(), "ps", &search), Some(second.join("ps")));
        assert_eq!(find(&Blocking::alone(), "ps", OsStr::new("/nonexistent:")), None);
    }
}
