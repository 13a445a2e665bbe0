//! What a test makes fail. Only builds for tests (with debug assertions) have this; a release reads nothing of it.
//!
//! The environment variable [`DIRECTORY`] names a directory. Each point that an operation passes ([`model::fault`]) is
//! appended to its file `passed`, one name a line; a point fails once for each file of its name there, which that
//! consumes. Where the file says `die`, the daemon kills itself there.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use model::fault::Faults;

/// Names the directory of the test.
const DIRECTORY: &str = "GANTRY_FAULTS";

/// What a file says whose point is the daemon's end.
const DIE: &str = "die";

/// The rule of the environment, or none.
pub fn of_environment() -> Faults {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return Faults::default() };
    tracing::warn!(path = %directory.display(), "operations fail as the files there say: a test");
    Faults::new(move |point| {
        let passed = OpenOptions::new().append(true).create(true).open(directory.join("passed"));
        if let Err(error) = passed.and_then(|mut file| file.write_all(format!("{point}\n").as_bytes())) {
            tracing::warn!(%error, point, "not noted");
        }
        let file = directory.join(point);
        let dies = fs::read_to_string(&file).is_ok_and(|text| text == DIE);
        let fails = fs::remove_file(file).is_ok();
        if dies {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        fails
    })
}
