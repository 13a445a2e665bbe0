//! The pid file: refused while its process lives, removed at the end.

use std::fs;
use std::path::{Path, PathBuf};

use model::{Context, Error, Result};

/// A written pid file; dropping it removes the file.
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes this process's id; an empty path writes nothing.
    #[expect(clippy::disallowed_methods, reason = "on the main thread, before anybody is served")]
    pub fn write(path: &Path) -> Result<PidFile> {
        let own = std::process::id();
        if !path.as_os_str().is_empty() {
            refuse_if_alive(path, own)?;
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
            }
            fs::write(path, own.to_string()).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(PidFile { path: path.to_path_buf() })
    }
}

impl PidFile {
    /// Leaves the file: the process goes on.
    pub fn keep(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for PidFile {
    #[expect(clippy::disallowed_methods, reason = "on the main thread, before anybody is served")]
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // Gone already is as good.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// The reference's text when another daemon's pid is in the file. A pid that was reused by another program does not count.
#[expect(clippy::disallowed_methods, reason = "on the main thread, before anybody is served")]
fn refuse_if_alive(path: &Path, own: u32) -> Result<()> {
    let Some(pid) = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
        return Ok(());
    };
    let is_daemon = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        let program = line.split(|&b| b == 0).next().unwrap_or_default().to_vec();
        let program = String::from_utf8_lossy(&program).into_owned();
        program.ends_with("gantryd") || program.ends_with("dockerd")
    });
    if pid != own && is_daemon {
        return Err(Error::conflict(format!(
            "process with PID {pid} is still running: ensure the daemon is not running or delete {}",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_replaced_and_the_own_removed() {
        let path = std::env::temp_dir().join(format!("gantry-pidfile-{}", std::process::id()));
        fs::write(&path, "999999999").expect("stale file");
        let file = PidFile::write(&path).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), std::process::id().to_string());
        drop(file);
        assert!(!path.exists());
    }
}
