//! The output of `ps`, in which processes say what they are called.

use engine::container::read::top::{ANSWER, Table};

/// An output is refused, or it is a table of lines of the processes asked for, as wide as its titles and within bounds; and
/// it does not matter in which pieces it arrives. The first byte is the size of the pieces, the second one process.
pub fn ps_output(bytes: &[u8]) {
    let [size, pid, output @ ..] = bytes else { return };
    let pids = [i32::from(*pid), 42];
    let read = |size: usize| {
        let mut table = Table::new(pids);
        output.chunks(size.max(1)).for_each(|piece| table.feed(piece));
        table.finish()
    };
    let answer = match (read(usize::from(*size)), read(output.len())) {
        (Ok(some), Ok(other)) => {
            assert_eq!(some, other, "pieces of {size} bytes");
            some
        }
        (Err(some), Err(other)) => return assert_eq!(some.message(), other.message(), "pieces of {size} bytes"),
        (some, other) => panic!("pieces of {size} bytes: {some:?} {other:?}"),
    };
    let pid = answer.titles.iter().position(|title| title == "PID").expect("a column of process ids");
    let mut above = None;
    for row in &answer.processes {
        assert_eq!(row.len(), answer.titles.len());
        let named = row[pid].split(' ').next().expect("the first word");
        match named.parse().ok() {
            Some(number) => {
                assert!(pids.contains(&number), "{row:?}");
                above = Some(number);
            }
            None => assert!(named == "-" && above.is_some(), "{row:?}"),
        }
    }
    assert!(serde_json::to_vec(&answer).expect("a table can be written").len() <= ANSWER + output.len().min(ANSWER));
}
