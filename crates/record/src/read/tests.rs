// SPDX-License-Identifier: MIT OR Apache-2.0

use std::io;
use std::io::Cursor;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::CompressionLevel;
use ruzstd::encoding::compress_to_vec;

use super::LINE_BYTES_MAX;
use super::Records;
use super::Unread;
use super::decompressed;
use super::fold;
use crate::Record;

/// Returns the pids of all requests in these bytes, and what could not be read.
fn pids(bytes: Vec<u8>) -> (Vec<u32>, Unread) {
    let source = decompressed(Cursor::new(bytes)).unwrap();
    let mut records = Records::new(source);
    let mut pids = Vec::new();
    while let Some(record) = records.next_record().unwrap() {
        if let Record::Request(request) = record {
            pids.push(request.pid);
        }
    }
    (pids, records.unread())
}

/// Returns the line of a request with further keys.
fn line(pid: u32, more: &str) -> String {
    format!("{{\"type\":\"request\",\"pid\":{pid},\"scheme\":\"http\"{more}}}\n")
}

/// Check that compressed files are read, also ones that consist of several.
#[test]
fn compressed() {
    let text = line(1, "") + &line(2, "");
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |text: &str| compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
    for bytes in [
        text.clone().into_bytes(),
        gzip(&text),
        [gzip(&line(1, "")), gzip(&line(2, ""))].concat(),
        zstd(&text),
        [zstd(&line(1, "")), zstd(&line(2, ""))].concat(),
        text.trim_end().as_bytes().to_vec(),
    ] {
        assert_eq!(pids(bytes), (vec![1, 2], Unread::default()));
    }
    let mut torn = gzip(&text);
    torn.truncate(torn.len() - 3);
    let source = decompressed(Cursor::new(torn)).unwrap();
    let mut records = Records::new(source);
    let read = (0..3).try_for_each(|_| records.next_record().map(|_| ()));
    assert!(read.is_err());
}

/// Check that a record of another version is read as far as it goes, and that other lines are counted.
#[test]
fn other_versions() {
    let text = [
        line(1, ",\"new_key\":{\"a\":1}"),
        line(2, ",\"end\":\"a_new_end\",\"status\":502"),
        line(3, ",\"status\":\"many\""),
        "\n  \n".to_owned(),
        "{\"type\":\"new\"}\n".to_owned(),
        "no json\n".to_owned(),
        "{\"type\":\"request\",\"scheme\":\"http\"}\n".to_owned(),
        "[1]\n".to_owned(),
        line(4, ""),
    ]
    .concat();
    let expected = Unread {
        lines: 4,
        partly: 2,
        lost: 0,
    };
    assert_eq!(
        pids(text.clone().into_bytes()),
        (vec![1, 2, 3, 4], expected)
    );
    let mut records = Records::new(text.as_bytes());
    records.next_record().unwrap();
    let Some(Record::Request(second)) = records.next_record().unwrap() else {
        panic!("it is no request");
    };
    assert_eq!((second.status, second.ending.end), (Some(502), None));
    let bytes = [&[0xff, 0xfe, b'\n'][..], line(5, "").as_bytes()].concat();
    let expected = Unread {
        lines: 1,
        partly: 0,
        lost: 0,
    };
    assert_eq!(pids(bytes), (vec![5], expected));
}

/// Check that losses for a cause of another version are counted.
#[test]
fn unknown_causes() {
    let loss = |count: &str| format!("{{\"type\":\"lost\",\"count\":{count},\"cause\":\"new\"}}\n");
    let text = [
        loss("3"),
        loss("18446744073709551615"),
        loss("-1"),
        line(1, ""),
    ]
    .concat();
    let expected = Unread {
        lines: 1,
        partly: 2,
        lost: u64::MAX,
    };
    assert_eq!(pids(text.into_bytes()), (vec![1], expected));
}

/// Check that a line with very many unknown keys is read whole.
#[test]
fn many_keys() {
    let keys: String = (0..60_000).map(|n| format!(",\"k{n}\":{n}")).collect();
    let text = line(1, &(keys + ",\"status\":\"many\",\"uri\":\"/last\""));
    let expected = Unread {
        lines: 0,
        partly: 1,
        lost: 0,
    };
    assert_eq!(pids(text.clone().into_bytes()), (vec![1], expected));
    let record = Records::new(text.as_bytes()).next_record().unwrap();
    let Some(Record::Request(request)) = record else {
        panic!("it is no request");
    };
    assert_eq!(request.uri.as_deref(), Some("/last"));
}

/// Check that a line without an end does not fill the memory, and does not hide the next one.
#[test]
fn long_lines() {
    let long = "x".repeat(3 * LINE_BYTES_MAX);
    let text = line(1, "") + &long + "\n" + &line(2, "") + &long;
    let expected = Unread {
        lines: 2,
        partly: 0,
        lost: 0,
    };
    assert_eq!(pids(text.into_bytes()), (vec![1, 2], expected));
}

/// Check that all threads together read what one reads, and that an error of a source is one.
#[test]
fn parallel() {
    let text: String = (0..20_000).map(|pid| line(pid, "")).collect();
    let open = |text: &str| decompressed(Cursor::new(text.to_owned().into_bytes()));
    let sources = [open(&text), open("no json\n")];
    let add = |sum: &mut u64, record: Record<'_>| {
        if let Record::Request(request) = record {
            *sum += u64::from(request.pid);
        }
    };
    let (sums, unread) = fold(sources, || 0, add).unwrap();
    assert_eq!(sums.iter().sum::<u64>(), 20_000 * 19_999 / 2);
    assert_eq!(unread.lines, 1);
    let sources = [open(&text), Err(io::Error::other("gone"))];
    assert!(fold(sources, || 0, add).is_err());
}
