//! `gantryd order`: who is started behind whom, step by step.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use engine::container::life::order::Shown;
use model::{Error, Result};

use crate::control;

/// Longest wait for an answer that is read from memory.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the daemon with this exec root and prints what it says.
pub fn order(exec_root: &Path, json: bool) -> Result<ExitCode> {
    let answer = control::get(&control::socket(exec_root), "/order", PATIENCE)?;
    if json {
        print!("{}", String::from_utf8_lossy(&answer));
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Shown = serde_json::from_slice(&answer)
        .map_err(|error| Error::system(format!("the daemon is of another version: {error}")))?;
    print!("{}", text(&shown));
    Ok(ExitCode::SUCCESS)
}

fn text(shown: &Shown) -> String {
    let mut out = String::new();
    let mut step = 0;
    for one in &shown.containers {
        if one.step != step {
            step = one.step;
            out.push_str(&format!("step {step}\n"));
        }
        out.push_str(&format!("  {} (restart: {})\n", one.name, one.policy));
        for needed in &one.needs {
            let need = &needed.need;
            out.push_str(&format!("    behind {}: {} ({})\n", needed.name, need.condition.word(), need.origin));
        }
    }
    for cycle in &shown.cycles {
        out.push_str(&format!("ignored, since it is a circle: {cycle}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use engine::container::life::order::{Needed, Ordered};
    use model::order::{Condition, Cycle, Need};

    use super::*;

    #[test]
    fn steps_are_told_with_their_reasons() {
        let one = |name: &str, step, needs: Vec<Needed>| Ordered {
            id: name.repeat(2),
            name: name.into(),
            step,
            policy: "always".into(),
            needs,
        };
        let need = Need { on: "dbdb".into(), condition: Condition::Healthy, origin: "compose".into() };
        let shown = Shown {
            containers: vec![one("db", 1, vec![]), one("web", 2, vec![Needed { name: "db".into(), need }])],
            cycles: vec![Cycle(vec!["a".into(), "b".into()])],
        };
        let wanted = "step 1\n  db (restart: always)\nstep 2\n  web (restart: always)\n    \
                      behind db: healthy (compose)\nignored, since it is a circle: a -> b -> a\n";
        assert_eq!(text(&shown), wanted);
        let json = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<Shown>(&json).unwrap(), shown);
    }
}
