//! Paths of the host that users name. What lies behind them may be anything: also a file system whose server is dead, where
//! every look waits for ever and cannot be called back.
//!
//! Invariants:
//! - nobody waits for a path longer than [`PATIENCE`];
//! - one path has one thread, however many ask for it; the threads of the class ([`Work::Paths`]) are all that paths can take;
//! - nothing else in the engine looks at a user's path outside of a container's own process.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use blocking::{Blocking, Class, Work, unanswered};
use model::lock::Mutex;
use model::{Context, Error, Result};
use tokio::sync::watch;
use tokio::time::Instant;

/// Longest wait for the paths of one request.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be done at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// Tell whether something is there.
    Look,
    /// Make directories if nothing is there.
    Directory,
}

/// Whether something is at the path, or why that could not be made so.
type Answer = std::result::Result<bool, Arc<Error>>;
type Asked = (String, Need);

/// The paths that are being looked at.
pub struct Paths {
    threads: Class,
    asked: Arc<Mutex<HashMap<Asked, watch::Receiver<Option<Answer>>>>>,
    patience: Duration,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { threads: Class::new(Work::Paths), asked: Arc::default(), patience: PATIENCE }
    }
}

impl Paths {
    /// Which of the paths are there. A path that cannot be looked at (`EACCES`, `ENOTDIR`) is not.
    ///
    /// Errors: `System`: "bind source path /p has not answered for 10s".
    pub async fn survey(&self, paths: Vec<String>) -> Result<HashMap<String, bool>> {
        self.answers(paths.into_iter().map(|path| (path, Need::Look)).collect()).await
    }

    /// Makes directories where nothing is yet.
    ///
    /// Errors: as [`Paths::survey`]; `System`: "error while creating mount source path '/p': …".
    pub async fn make(&self, path: &str) -> Result<()> {
        self.answers(vec![(path.to_owned(), Need::Directory)]).await.map(drop)
    }

    /// All at once; whether something is at each path.
    pub async fn answers(&self, asked: Vec<Asked>) -> Result<HashMap<String, bool>> {
        let deadline = Instant::now() + self.patience;
        let asked: Vec<_> = asked.into_iter().map(|asked| (asked.0.clone(), self.ask(asked))).collect();
        let mut found = HashMap::new();
        for (path, mut answer) in asked {
            let answered = tokio::time::timeout_at(deadline, answer.wait_for(Option::is_some)).await;
            let answer = match answered {
                Ok(Ok(answer)) => answer.clone().expect("waited for"),
                Ok(Err(_)) => return Err(Error::system(format!("looking at {path} failed"))),
                Err(_) => return Err(unanswered(format!("bind source path {path}"), self.patience)),
            };
            found.insert(path, answer.map_err(|error| error.copy())?);
        }
        Ok(found)
    }

    /// The answer that will come, perhaps to somebody who has asked before.
    fn ask(&self, asked: Asked) -> watch::Receiver<Option<Answer>> {
        let mut table = self.asked.lock();
        if let Some(answer) = table.get(&asked) {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        table.insert(asked.clone(), answer.clone());
        let (table, threads) = (self.asked.clone(), self.threads.clone());
        tokio::spawn(async move {
            let (path, need) = asked.clone();
            let outcome = threads.run(move |on| at(on, &path, need)).await;
            // Whoever comes now looks anew.
            table.lock().remove(&asked);
            tell.send_replace(Some(outcome.map_err(Arc::new)));
        });
        answer
    }
}

#[expect(clippy::disallowed_methods, reason = "on a thread of the paths")]
fn at(_on: &Blocking, path: &str, need: Need) -> Result<bool> {
    let is_there = fs::exists(path).unwrap_or(false);
    if is_there || need == Need::Look {
        return Ok(is_there);
    }
    // Made now, with the container, as the reference does (B-vol-2).
    fs::create_dir_all(path).with_context(|| format!("error while creating mount source path '{path}'"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn paths_are_looked_at_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let paths = Paths::default();
        let found = paths.survey(vec![path("a/b"), path(".")]).await.unwrap();
        assert_eq!((found[&path("a/b")], found[&path(".")]), (false, true));
        paths.make(&path("a/b")).await.unwrap();
        assert!(dir.path().join("a/b").is_dir());
        fs::write(dir.path().join("f"), "").unwrap();
        paths.make(&path("f")).await.unwrap();
        let error = paths.make(&path("f/d")).await.unwrap_err();
        assert!(error.message().starts_with(&format!("error while creating mount source path '{}'", path("f/d"))));
        assert!(paths.asked.lock().is_empty());
    }

    /// With every thread taken, no path answers.
    #[tokio::test]
    async fn those_who_ask_for_one_path_share_its_thread_and_are_told() {
        let paths = Arc::new(Paths { patience: Duration::from_millis(20), ..Paths::default() });
        let held: Vec<_> = {
            let mut held = Vec::new();
            while paths.threads.free() > 0 {
                held.push(paths.threads.turn().await);
            }
            held
        };
        let asking: Vec<_> = (0..8).map(|_| paths.survey(vec!["/".to_owned()])).collect();
        for asked in asking {
            assert_eq!(asked.await.unwrap_err().message(), "bind source path / has not answered for 20ms");
        }
        assert_eq!(paths.asked.lock().len(), 1);
        drop(held);
        while !paths.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
