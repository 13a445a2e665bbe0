//! The output of `ps` as a table: what its lines mean, and how much of them is kept.
//!
//! The lines hold what processes call themselves, so they are a stranger's bytes. The rules are the reference's: fields
//! are separated by ASCII space, what is more than there are titles belongs to the last one, and a line whose process id
//! is `-` (a thread, option `m`) belongs to the process above it.

use std::collections::HashSet;

use model::{Error, Result};

// What is kept of one line; a longer command line is cut.
use crate::container::read::cmdline::PER_PROCESS as LINE;

/// The same once half of the answer is used up.
const SHORT_LINE: usize = 256;
/// Bytes of the whole answer, with [`CELL`] for each field; a longer one is an error.
pub const ANSWER: usize = 4 << 20;
/// What a field costs beside its text.
const CELL: usize = 16;

/// How much of an answer there is room for.
#[derive(Debug)]
pub(super) struct Room {
    left: usize,
}

impl Room {
    pub fn new() -> Room {
        Room { left: ANSWER }
    }

    /// The bytes that a line may have now.
    pub fn line(&self) -> usize {
        if self.left > ANSWER / 2 { LINE } else { SHORT_LINE }
    }

    /// Takes the room of one row.
    pub fn spend(&mut self, row: &[String]) -> Result<()> {
        // A control character, a quote and a backslash are longer in JSON.
        let length = |byte: u8| if byte < b' ' { 6 } else { 1 + usize::from(matches!(byte, b'"' | b'\\')) };
        let cost: usize = row.iter().map(|cell| CELL + cell.bytes().map(length).sum::<usize>()).sum();
        let left = self.left.checked_sub(cost);
        self.left = left.ok_or_else(|| Error::system(format!("ps: the list is longer than {ANSWER} bytes")))?;
        Ok(())
    }
}

/// Reads the output of `ps` piece by piece and keeps the lines of some processes.
#[derive(Debug)]
pub struct Table {
    pids: HashSet<i32>,
    /// The line being read, as far as it is kept.
    line: Vec<u8>,
    is_cut: bool,
    titles: Option<Titles>,
    rows: Vec<Vec<String>>,
    room: Room,
    /// The last line with a process id was kept.
    keeps_threads: bool,
    /// The first line that made no sense; the rest is skipped.
    fault: Option<Error>,
}

#[derive(Debug)]
struct Titles {
    names: Vec<String>,
    /// Which of them is `PID`.
    pid: usize,
}

impl Table {
    /// Will keep the lines of these processes.
    pub fn new(pids: impl IntoIterator<Item = i32>) -> Table {
        Table {
            pids: pids.into_iter().collect(),
            line: Vec::new(),
            is_cut: false,
            titles: None,
            rows: Vec::new(),
            room: Room::new(),
            keeps_threads: false,
            fault: None,
        }
    }

    /// The next bytes; a line may begin in one piece and end in another.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let kept = text.len().min(self.room.line().saturating_sub(self.line.len()));
            self.line.extend_from_slice(&text[..kept]);
            self.is_cut |= kept < text.len();
            if text.len() < piece.len() {
                self.end_line();
            }
        }
    }

    /// The table; an error if there was no column of process ids, or what stood in it was no number.
    pub fn finish(mut self) -> Result<api::TopResponse> {
        if !self.line.is_empty() || self.titles.is_none() {
            self.end_line();
        }
        match (self.fault, self.titles) {
            (None, Some(titles)) => Ok(api::TopResponse { titles: titles.names, processes: self.rows }),
            (fault, _) => Err(fault.unwrap_or_else(no_pid)),
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        // Half a character is none.
        let text = if self.is_cut { text.trim_end_matches('\u{fffd}') } else { &text };
        self.is_cut = false;
        if self.fault.is_none() {
            self.fault = self.read(text).err();
        }
        self.line = line;
        self.line.clear();
    }

    fn read(&mut self, line: &str) -> Result<()> {
        let is_space = |c: char| matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ');
        let mut fields = line.split(is_space).filter(|field| !field.is_empty());
        let Some(titles) = &self.titles else {
            let names: Vec<String> = fields.map(str::to_owned).collect();
            let pid = names.iter().position(|name| name == "PID").ok_or_else(no_pid)?;
            self.titles = Some(Titles { names, pid });
            return Ok(());
        };
        let mut row: Vec<String> = fields.by_ref().take(titles.names.len() - 1).map(str::to_owned).collect();
        let rest: Vec<&str> = fields.collect();
        if row.is_empty() && rest.is_empty() {
            return Ok(());
        }
        row.resize(titles.names.len() - 1, String::new());
        row.push(rest.join(" "));
        // The last column has everything that is left of the line.
        let pid = if titles.pid + 1 < row.len() { &row[titles.pid] } else { rest.first().copied().unwrap_or_default() };
        let keeps = match pid {
            "-" => self.keeps_threads,
            pid => {
                self.keeps_threads = self.pids.contains(&number(pid)?);
                self.keeps_threads
            }
        };
        if keeps {
            self.room.spend(&row)?;
            self.rows.push(row);
        }
        Ok(())
    }
}

fn no_pid() -> Error {
    Error::system("Couldn't find PID field in ps output")
}

/// A process id; what is no number is named in Go's words. One that no process can have is nobody's.
fn number(text: &str) -> Result<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::system(format!("Unexpected pid '{text}': strconv.Atoi: parsing {text:?}: invalid syntax")));
    }
    Ok(text.parse().unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pids: &[i32], output: &str) -> Result<api::TopResponse> {
        let mut table = Table::new(pids.iter().copied());
        table.feed(output.as_bytes());
        table.finish()
    }

    fn rows(pids: &[i32], output: &str) -> Vec<Vec<String>> {
        table(pids, output).expect("a table").processes
    }

    #[test]
    fn lines_of_the_processes_are_kept() {
        let output = "  PID TTY      CMD\n   41 ?        no\n   42 pts/0    sh -c  'a   b'\n   43 ?        cat\n";
        let answer = table(&[42, 43], output).unwrap();
        assert_eq!(answer.titles, ["PID", "TTY", "CMD"]);
        assert_eq!(answer.processes, [["42", "pts/0", "sh -c 'a b'"], ["43", "?", "cat"]]);
        assert_eq!(rows(&[42], "PID\n42"), [["42"]]);
        assert_eq!(rows(&[42], "COMM PID\nx 42 and more"), [["x", "42 and more"]]);
        assert_eq!(rows(&[42], "PID A B\n42\n\n   \n42 x\n"), [["42", "", ""], ["42", "x", ""]]);
        assert_eq!(rows(&[], "PID CMD\n42 x\n"), Vec::<Vec<String>>::new());
    }

    /// A thread has no process id of its own: with `m`, it is where its process is.
    #[test]
    fn threads_go_with_their_process() {
        let output = "PID TTY CMD\n- ? -\n41 ? no\n- ? -\n42 ? yes\n- t1 -\n- t2 -\n43 ? no\n- ? -\n";
        assert_eq!(rows(&[42], output), [["42", "?", "yes"], ["-", "t1", "-"], ["-", "t2", "-"]]);
    }

    #[test]
    fn what_is_no_table_is_an_error_in_the_words_of_the_reference() {
        let text = |output: &str| table(&[1], output).unwrap_err().message().to_owned();
        for output in ["", "\n", "COMMAND\nsh\n", "pid\n1\n", "PIDS\n1\n", "\nPID\n1"] {
            assert_eq!(text(output), "Couldn't find PID field in ps output", "{output:?}");
        }
        let unexpected = "Unexpected pid 'x': strconv.Atoi: parsing \"x\": invalid syntax";
        assert_eq!(text("PID CMD\n1 a\nx b\n2 c\n"), unexpected);
        assert!(text("A PID CMD\n1\n").starts_with("Unexpected pid '':"));
        assert_eq!(rows(&[1], "PID\n99999999999999999999\n1\n"), [["1"]]);
    }

    #[test]
    fn long_lines_are_cut_and_long_answers_refused() {
        let long = format!("PID CMD\n1 {}\n2 b\n", "é".repeat(LINE));
        let cut = rows(&[1, 2], &long);
        assert_eq!((cut.len(), cut[0][1].len(), &*cut[1][1]), (2, LINE - 2, "b"));
        // A line cut in the middle of a character ends before it.
        let odd = rows(&[1], &format!("PID CMD\n1 x{}\n", "é".repeat(LINE)));
        assert_eq!(odd[0][1].len(), LINE - 3);
        let many = |count: usize| {
            let mut table = Table::new([1]);
            table.feed(b"PID CMD\n");
            let line = format!("1 {}\n", "x".repeat(2 * LINE));
            (0..count).for_each(|_| table.feed(line.as_bytes()));
            table.finish()
        };
        let answer = many(4000).unwrap();
        assert_eq!(answer.processes.len(), 4000);
        assert_eq!(answer.processes.last().unwrap()[1].len(), SHORT_LINE - 2);
        assert!(many(40_000).unwrap_err().message().starts_with("ps: the list is longer than"));
    }
}
