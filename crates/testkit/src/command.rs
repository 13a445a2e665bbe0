//! Running programs: to the end with a time limit, or beside the test with its output at hand.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use model::lock::Mutex;

/// Longest run of one program before a test gives up on it.
pub const TIME_LIMIT: Duration = Duration::from_secs(300);
/// Longest wait for what must come. Machines are slow and busy, and a wait that is not needed costs nothing.
pub const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(5);

/// What a program left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + n after signal n.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Output {
    /// The output itself if the program succeeded; panics with its words otherwise.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "failed: {self:?}");
        self
    }

    /// Standard output without the white space around it, of a program that must have succeeded.
    #[track_caller]
    #[must_use]
    pub fn text(self) -> String {
        self.ok().stdout.trim().to_string()
    }

    /// Asserts a failure with `code` whose standard error contains `text`.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) {
        assert_eq!(self.code, code, "wrong status: {self:?}");
        assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
    }
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs to the end with `input` as standard input.
#[track_caller]
#[must_use]
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let shown = format!("{command:?}");
    let mut running = Running::start(command);
    running.write(input);
    running.close_stdin();
    running.wait(TIME_LIMIT).unwrap_or_else(|| {
        let so_far = format!("stdout {:?}, stderr {:?}", running.stdout(), running.stderr());
        running.kill();
        panic!("{shown} did not end within {TIME_LIMIT:?}; {so_far}")
    })
}

type Shared = Arc<Mutex<Vec<u8>>>;

/// A program that runs beside the test. Killed when dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Shared,
    stderr: Shared,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts the program with all three streams piped.
    #[track_caller]
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let stdin = child.stdin.take();
        let (stdout, stderr) = (Shared::default(), Shared::default());
        let readers = vec![
            collect(child.stdout.take().expect("stdout is piped"), stdout.clone()),
            collect(child.stderr.take().expect("stderr is piped"), stderr.clone()),
        ];
        Self { child, stdin, stdout, stderr, readers }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input; a program that no longer reads is not an error.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
        }
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Waits until standard output contains `wanted`.
    #[track_caller]
    pub fn expect(&mut self, wanted: &str) {
        let seen = eventually(PATIENCE, || self.stdout().contains(wanted));
        assert!(seen, "{wanted:?} did not appear; stdout {:?}, stderr {:?}", self.stdout(), self.stderr());
    }

    /// Waits for the end; `None` after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<Output> {
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(TICK),
                _ => return None,
            }
        };
        while Instant::now() < deadline && !self.readers.iter().all(JoinHandle::is_finished) {
            thread::sleep(TICK);
        }
        Some(Output { code: code_of(status), stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Waits for the end; panics after the usual limit.
    #[track_caller]
    pub fn end(&mut self) -> Output {
        let output = self.wait(TIME_LIMIT);
        output.unwrap_or_else(|| panic!("no end; stdout {:?}, stderr {:?}", self.stdout(), self.stderr()))
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(shared: &Shared) -> String {
    String::from_utf8_lossy(&shared.lock()).into_owned()
}

fn collect(mut from: impl Read + Send + 'static, to: Shared) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 64 << 10];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            to.lock().extend_from_slice(&buffer[..n]);
        }
    })
}

/// Polls `condition` until it holds (true) or `limit` has passed (false).
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_status_come_back() {
        let output = run(Command::new("sh").args(["-c", "cat; echo err >&2; exit 7"]), b"in");
        assert_eq!(output, Output { code: 7, stdout: "in".into(), stderr: "err\n".into() });
    }

    #[test]
    fn signals_count_from_128() {
        assert_eq!(run(Command::new("sh").args(["-c", "kill -9 $$"]), b"").code, 137);
    }
}
