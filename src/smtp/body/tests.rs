//! Properties of the body reader and the dot stuffer.

use proptest::prelude::*;

use super::*;

/// Reads `octets` in pieces of `size`: returns what went to the sink, how many octets were read, and the
/// end.
fn read_by(octets: &[u8], size: usize, octets_max: u64) -> (Vec<u8>, usize, Option<BodyEnd>) {
    read_with(BodyReader::new(octets_max, BareLineEndPolicy::Reject), octets, size)
}

fn read_with(mut reader: BodyReader, octets: &[u8], size: usize) -> (Vec<u8>, usize, Option<BodyEnd>) {
    let mut content = Vec::new();
    let mut read = 0;
    for piece in octets.chunks(size.max(1)) {
        if let Some((used, end)) = reader.feed(piece, &mut |o| content.extend_from_slice(o)) {
            return (content, read + used, Some(end));
        }
        read += piece.len();
    }
    (content, read, None)
}

fn read(octets: &[u8]) -> (Vec<u8>, usize, Option<BodyEnd>) {
    let whole = read_by(octets, octets.len(), 0);
    for size in 1..8 {
        let cut = read_by(octets, size, 0);
        assert_eq!((cut.1, cut.2), (whole.1, whole.2), "by {size}");
        // The octets of a message that was cut off do not matter.
        assert!(cut.0 == whole.0 || cut.2 == Some(BodyEnd::BareLineEnd), "by {size}");
    }
    whole
}

fn write_by(octets: &[u8], size: usize) -> Vec<u8> {
    let mut stuffer = DotStuffer::new();
    let mut wire = Vec::new();
    for piece in octets.chunks(size.max(1)) {
        stuffer.feed(piece, &mut |o| wire.extend_from_slice(o));
    }
    stuffer.finish(&mut |o| wire.extend_from_slice(o));
    wire
}

fn complete(octets: u64) -> Option<BodyEnd> {
    Some(BodyEnd::Complete(BodyFacts { octets, ..BodyFacts::default() }))
}

#[test]
fn stuffed_dots_are_removed_and_the_end_is_found() {
    for (wire, content) in [
        (&b".\r\n"[..], &b""[..]),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...a\r\na.\r\n..\r\n.\r\n", b"..a\r\na.\r\n.\r\n"),
        // RFC 5321 §4.5.2: a dot at the start of a longer line is removed.
        (b".a\r\n.\r\n", b"a\r\n"),
    ] {
        assert_eq!(read(wire), (content.to_vec(), wire.len(), complete(content.len() as u64)));
    }
}

#[test]
fn octets_after_the_end_are_not_used() {
    assert_eq!(read(b"a\r\n.\r\nQUIT\r\n"), (b"a\r\n".to_vec(), 6, complete(3)));
}

#[test]
fn every_way_to_smuggle_an_end_is_noticed() {
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\n",
        "\r\n.\r",
        "\n\n.\r\n",
        "\r\r\n.\r\n",
        "\r\n.\r\r\n",
        "\r\n.\n\r\n",
        "\r\n\r.\r\n",
        "\n.\r\r\n",
        "\r\n.\0\r\n.\r",
        "\r\n\n",
    ] {
        let wire = format!("Subject: x\r\n\r\ntext{end}MAIL FROM:<x@y.example>\r\n.\r\n");
        let (_, used, end_seen) = read(wire.as_bytes());
        assert_eq!(end_seen, Some(BodyEnd::BareLineEnd), "{end:?}");
        assert!(used <= "Subject: x\r\n\r\ntext".len() + end.len() + 1, "{end:?}");
    }
}

#[test]
fn a_message_that_is_too_large_is_read_to_its_end() {
    let wire = b"0123456789\r\n0123456789\r\n.\r\nNOOP\r\n";
    for size in [1, 3, 100] {
        let (content, used, end) = read_by(wire, size, 23);
        assert_eq!((used, end), (27, Some(BodyEnd::TooBig)));
        assert!(content.len() <= 23);
        assert_eq!(read_by(wire, size, 24).2, complete(24), "exactly as large as allowed");
    }
    // RFC 1870 §5: stuffed dots and the end do not count.
    assert_eq!(read_by(b"..\r\n.\r\n", 100, 3).2, complete(3));
    let (_, _, end) = read_by(b"0123456789\r\n\n.\r\n", 100, 3);
    assert_eq!(end, Some(BodyEnd::BareLineEnd), "also in a message that is too large");
}

#[test]
fn octets_beyond_ascii_are_noticed_and_long_lines_are_accepted() {
    let facts = |wire: &[u8]| match read(wire).2 {
        Some(BodyEnd::Complete(facts)) => facts.has_8bit,
        other => panic!("{other:?}"),
    };
    assert!(facts("grüße\r\n.\r\n".as_bytes()));
    assert!(!facts(format!("a\r\n..{}\r\n.\r\n", "x".repeat(2000)).as_bytes()));
}

#[test]
fn a_written_message_has_one_end_and_whole_line_ends() {
    for (content, wire) in [
        (&b""[..], &b".\r\n"[..]),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n..\r\na.", b"..\r\n...\r\na.\r\n.\r\n"),
        (b"a\n.\nb\r.\rc\r", b"a\r\n..\r\nb\r\n..\r\nc\r\n.\r\n"),
        (b"\r\r\n\n", b"\r\n\r\n\r\n.\r\n"),
    ] {
        for size in 1..12 {
            assert_eq!(write_by(content, size), wire, "{content:?} by {size}");
        }
    }
}

/// Octets in which dots and line ends are frequent.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"..\r\n\r\nab\xfc".to_vec()), 0..80)
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec("[.a-cü]{0,5}", 0..12)
        .prop_map(|lines| lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect())
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_the_segments(octets in octets(), size in 1..20_usize, max in 0..60_u64) {
        let (content, used, end) = read_by(&octets, size, max);
        let whole = read_by(&octets, octets.len(), max);
        prop_assert_eq!((used, end), (whole.1, whole.2));
        // The octets of a message that was cut off or too large are discarded.
        if matches!(end, Some(BodyEnd::Complete(_))) || (end.is_none() && max == 0) {
            prop_assert_eq!(content, whole.0);
        }
    }

    #[test]
    fn a_written_message_is_read_back(content in lines(), out in 1..20_usize, back in 1..20_usize) {
        let wire = write_by(&content, out);
        let (read, used, end) = read_by(&wire, back, 0);
        prop_assert_eq!(used, wire.len());
        prop_assert!(matches!(end, Some(BodyEnd::Complete(facts)) if facts.octets == content.len() as u64));
        prop_assert_eq!(read, content);
    }

    #[test]
    fn any_octets_are_written_as_one_message(content in octets(), size in 1..20_usize) {
        let wire = write_by(&content, size);
        let (_, used, end) = read_by(&wire, 7, 0);
        prop_assert_eq!(used, wire.len());
        prop_assert!(matches!(end, Some(BodyEnd::Complete(_))));
    }

    #[test]
    fn normalized_octets_do_not_depend_on_the_segments(octets in octets(), size in 1..20_usize) {
        for reader in [BodyReader::new(0, BareLineEndPolicy::Normalize), BodyReader::in_chunks(0, BareLineEndPolicy::Normalize)] {
            let cut = read_chunks(reader.clone(), &octets, size);
            prop_assert_eq!(cut, read_chunks(reader, &octets, octets.len()));
        }
    }

    #[test]
    fn a_normalized_message_has_whole_lines_and_ends_at_crlf_dot_crlf(octets in octets(), size in 1..20_usize) {
        let (content, used, end) = read_with(BodyReader::new(0, BareLineEndPolicy::Normalize), &octets, size);
        prop_assert!(end.is_none_or(|end| end == BodyEnd::Complete(facts_of(&content))));
        let wire = [b"\r\n", octets.get(..used).unwrap()].concat();
        let first_end = wire.windows(5).position(|five| five == b"\r\n.\r\n");
        prop_assert_eq!(first_end, end.map(|_| wire.len() - 5));
        if end.is_some() {
            prop_assert!(has_whole_lines(&content), "{:?}", content);
        }
    }

    #[test]
    fn a_message_is_the_same_in_chunks_of_any_size(octets in octets(), size in 1..20_usize, max in 0..60_u64) {
        let (content, used, end) = read_chunks(BodyReader::in_chunks(max, BareLineEndPolicy::Reject), &octets, size);
        if let BodyEnd::Complete(facts) = end {
            prop_assert_eq!(used, octets.len());
            prop_assert_eq!(facts, facts_of(&content));
            prop_assert!(has_whole_lines(&content) && content.starts_with(&octets));
            prop_assert!(max == 0 || facts.octets <= max);
        } else {
            let whole = octets.strip_suffix(b"\r\n").is_some() || octets.is_empty();
            let is_bare = !has_whole_lines(&[&octets[..], if whole { b"" } else { b"\r\n" }].concat());
            prop_assert_eq!(end, if is_bare { BodyEnd::BareLineEnd } else { BodyEnd::TooBig });
        }
    }
}

/// Like [`read_with`], for a message that ends where `octets` end.
fn read_chunks(mut reader: BodyReader, octets: &[u8], size: usize) -> (Vec<u8>, usize, BodyEnd) {
    let mut content = Vec::new();
    let mut read = 0;
    for piece in octets.chunks(size.max(1)) {
        if let Some((used, end)) = reader.feed(piece, &mut |o| content.extend_from_slice(o)) {
            return (if end == BodyEnd::BareLineEnd { Vec::new() } else { content }, read + used, end);
        }
        read += piece.len();
    }
    let end = reader.finish(&mut |o| content.extend_from_slice(o));
    (content, read, end)
}

fn facts_of(content: &[u8]) -> BodyFacts {
    BodyFacts { octets: content.len() as u64, has_8bit: !content.is_ascii() }
}

/// Each CR is before an LF, each LF after a CR, and the last octet is an LF.
fn has_whole_lines(content: &[u8]) -> bool {
    let ends = content.windows(2).filter(|two| two == b"\r\n").count();
    let count = |wanted| content.iter().filter(|octet| **octet == wanted).count();
    (content.is_empty() || content.ends_with(b"\r\n")) && count(b'\r') == ends && count(b'\n') == ends
}
