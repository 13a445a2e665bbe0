//! Notes of exec sessions that run, for a next daemon: the monitor tells it which there are and what became of them, the note, a
//! file of the run's directory, what was asked for. So a session goes on over an upgrade or a daemon's death, and who waits at
//! its stream still learns its exit code.

use std::fs;
use std::path::{Path, PathBuf};

/// What a note's name begins with, before the session's id.
const PREFIX: &str = "exec-";

fn path(run_dir: &Path, id: &str) -> PathBuf {
    run_dir.join(format!("{PREFIX}{id}"))
}

/// Writes the note of a session that is about to start. Without one a next daemon does not know the session, which is no
/// reason not to start it.
#[expect(clippy::disallowed_methods, reason = "the exec root is in memory")]
pub fn write(run_dir: &Path, id: &str, config: &api::ExecConfig) {
    let written =
        serde_json::to_vec(config).map_err(std::io::Error::from).and_then(|text| fs::write(path(run_dir, id), text));
    if let Err(error) = written {
        tracing::warn!(exec = id, %error, "a next daemon will not know this session");
    }
}

/// The note of a session that the monitor tells of; `None`: it is no session but a probe, or its end is known.
#[expect(clippy::disallowed_methods, reason = "the exec root is in memory")]
pub fn read(run_dir: &Path, id: &str) -> Option<api::ExecConfig> {
    let text = fs::read(path(run_dir, id)).ok()?;
    // One that the last daemon could not finish tells at least that there is a session.
    Some(serde_json::from_slice(&text).unwrap_or_default())
}

/// Removes the note of a session that has ended.
#[expect(clippy::disallowed_methods, reason = "the exec root is in memory")]
pub fn remove(run_dir: &Path, id: &str) {
    // There is none of a session of an earlier version.
    drop(fs::remove_file(path(run_dir, id)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let config = api::ExecConfig { cmd: Some(vec!["a".into(), "b c".into()]), tty: true, ..Default::default() };
        write(dir.path(), "e1", &config);
        assert_eq!(read(dir.path(), "e1"), Some(config));
        assert_eq!(read(dir.path(), "e2"), None);
        fs::write(dir.path().join("exec-e3"), "{\"Cmd\":[").unwrap();
        assert_eq!(read(dir.path(), "e3"), Some(api::ExecConfig::default()));
        for id in ["e1", "e2", "e3"] {
            remove(dir.path(), id);
            assert_eq!(read(dir.path(), id), None);
        }
        write(&dir.path().join("gone"), "e1", &api::ExecConfig::default());
    }
}
