//! `gantryd check` on a daemon's data root, whether the daemon runs or not.

use serde_json::Value;

use crate::command::{self, Output};
use crate::daemon::Daemon;
use crate::places;

impl Daemon {
    /// Runs `gantryd check` with these switches. It is told the data root and nothing else.
    #[track_caller]
    #[must_use]
    pub fn check(&self, switches: &[&str]) -> Output {
        let mut command = self.namespaces().command(places::gantryd());
        command.arg("check").args(switches).arg("--config-file=").arg("--data-root").arg(self.data_root());
        command::run(&mut command, b"")
    }

    /// The faults of a check as `name: subject: detail`; fails when it could not be done.
    #[track_caller]
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let output = self.check(&["--json"]);
        let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        let faults = report["faults"].as_array().expect("a report has faults");
        assert_eq!(output.code, i32::from(!faults.is_empty()), "{output:?}");
        let text = |fault: &Value, key: &str| fault[key].as_str().unwrap_or_default().to_owned();
        let line = |f| format!("{}: {}: {}", text(f, "name"), text(f, "subject"), text(f, "detail"));
        faults.iter().map(line).collect()
    }
}
