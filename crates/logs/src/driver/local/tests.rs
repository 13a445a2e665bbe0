//! The form of entries, what a killed writer left, damage, and options.

use super::*;

fn encoded(entries: &[(Stream, &[u8], bool, Option<i64>)]) -> Vec<u8> {
    let mut codec = Framed::new("{\"a\":\"b\"}");
    let mut out = Vec::new();
    for &(stream, text, ends_line, time) in entries {
        codec.encode(stream, Piece { text, ends_line, time }, time.unwrap_or(7), &mut out);
    }
    out
}

fn decoded(mut text: &[u8]) -> Vec<(Stream, Vec<u8>, bool, String)> {
    let mut entries = Vec::new();
    while let Found::Entry { body, next } = Framed::find(text) {
        entries.extend(Framed::decode(&text[body], |entry| {
            let Text::Bytes(line, newline) = entry.text else { panic!("{entry:?}") };
            assert_eq!(entry.attrs, b"{\"a\":\"b\"}");
            (entry.stream.unwrap(), line.to_vec(), newline, String::from_utf8(entry.time.to_vec()).unwrap())
        }));
        text = &text[next..];
    }
    entries
}

#[test]
fn an_entry_is_the_message_of_the_reference_between_two_lengths() {
    let mut out = Vec::new();
    Framed::new("").encode(Stream::Stdout, Piece { text: b"hi", ends_line: true, time: None }, 300, &mut out);
    assert_eq!(out, b"\0\0\0\x0f\x0a\x06stdout\x10\xac\x02\x1a\x02hi\0\0\0\x0f");
}

#[test]
fn pieces_of_a_line_are_parts_of_one() {
    let long = [b'x'; 100];
    let text = encoded(&[
        (Stream::Stdout, &long, false, None),
        (Stream::Stderr, b"", true, None),
        (Stream::Stdout, &long, false, Some(7)),
        (Stream::Stdout, b"\xff", true, Some(7)),
    ]);
    let time = "1970-01-01T00:00:00.000000007Z".to_owned();
    let expected = [
        (Stream::Stdout, long.to_vec(), false, time.clone()),
        (Stream::Stderr, Vec::new(), true, time.clone()),
        (Stream::Stdout, long.to_vec(), false, time.clone()),
        (Stream::Stdout, vec![0xff], true, time),
    ];
    assert_eq!(decoded(&text), expected);
    assert_eq!((Framed::lines(&text), Framed::ends(&text)), (2, (Some(text.len()), 4)));
    // Parts of one line have one id and are numbered.
    let ids = memchr::memmem::find_iter(&text, format!("{:064x}", 7).as_bytes()).count();
    assert_eq!(ids, 3);
}

#[test]
fn what_a_killed_writer_left_is_cut_off() {
    let whole = encoded(&[(Stream::Stdout, b"one", true, None), (Stream::Stdout, b"two", true, None)]);
    let first = encoded(&[(Stream::Stdout, b"one", true, None)]).len();
    for cut in 0..=whole.len() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&whole[..cut], 0).unwrap();
        let (expected, count) = match cut {
            cut if cut < first => (0, 0),
            cut if cut < whole.len() => (first as u64, 1),
            cut => (cut as u64, 2),
        };
        assert_eq!(Framed::start_of_last(&file, cut as u64, 9).unwrap(), (0, count));
        assert_eq!(Framed::mend(&file, cut as u64, &mut Vec::new()).unwrap(), expected, "{cut}");
        assert_eq!(file.metadata().unwrap().len(), expected);
    }
}

#[test]
fn options_are_refused_with_the_texts_of_the_reference() {
    let error = |key: &str, value: &str| {
        rotation(&Options::from([(key.to_owned(), value.to_owned())])).unwrap_err().message().to_owned()
    };
    assert_eq!(error("max-size", "abc"), "invalid value for max-size: abc: invalid size: 'abc'");
    assert_eq!(error("max-file", "x"), "invalid value for max-file: x: strconv.Atoi: parsing \"x\": invalid syntax");
    assert_eq!(error("max-file", "-1"), "max-file must not be negative");
    assert_eq!(error("max-file", "1"), "compression cannot be enabled when max file count is 1");
    assert_eq!(
        error("compress", "x"),
        "invalid boolean value for compress: strconv.ParseBool: parsing \"x\": invalid syntax"
    );
}

proptest::proptest! {
    #[test]
    fn damaged_entries_never_panic(at in 0..400_usize, byte in proptest::prelude::any::<u8>(), end in 0..400_usize) {
        let mut text = encoded(&[
            (Stream::Stdout, b"one", true, None),
            (Stream::Stderr, b"two", false, None),
            (Stream::Stderr, b"three", true, Some(5)),
        ]);
        let at = at % text.len();
        text[at] = byte;
        text.truncate(end.max(1));
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&text, 0).unwrap();
        let _ = (decoded_loosely(&text), Framed::ends(&text), Framed::lines(&text));
        let size = text.len() as u64;
        let counted = Framed::count(&mut &text[..]).unwrap();
        proptest::prop_assert_eq!(counted, Framed::ends(&text).1);
        let (begin, count) = Framed::start_of_last(&file, size, 2).unwrap();
        proptest::prop_assert!(begin <= size && count <= 2);
        let _ = Framed::last_time(&file).unwrap();
        proptest::prop_assert!(Framed::mend(&file, size, &mut Vec::new()).unwrap() <= size);
    }
}

fn decoded_loosely(text: &[u8]) -> usize {
    match Framed::find(text) {
        Found::Entry { body, next } => {
            Framed::decode(&text[body], |entry| entry.time.len()).unwrap_or(0) + decoded_loosely(&text[next..])
        }
        _ => 0,
    }
}
