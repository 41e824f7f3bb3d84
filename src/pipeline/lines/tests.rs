// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unit tests of lines, on files and FIFOs.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Request;
use rustix::fs::Mode;

use super::LineSettings;
use super::Lines;
use crate::host::signals::Signals;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::ledger::add;
use crate::pipeline::records::Consumer as _;

/// Returns the consumer that writes to this file.
fn lines_to(path: &Path, signals: &Signals) -> Lines {
    let settings = LineSettings {
        format: OutputFormat::Json,
        service: None,
        line_bytes_max: None,
    };
    lines_with(path, settings, signals)
}

/// Returns the one with these settings.
fn lines_with(path: &Path, settings: LineSettings, signals: &Signals) -> Lines {
    Lines::new(
        Output::open(Some(path)).unwrap(),
        settings,
        signals,
        &Arc::new(Ledger::default()),
        Messages::new(Verbosity::Quiet),
    )
}

/// Check that the lines of a blocked worker and of a connection are not counted as requests, and that they are
/// counted as lost when they can't be written, and not as lost requests.
#[test]
fn no_requests() {
    for (path, lost) in [("/dev/null", 0), ("/dev/full", 1)] {
        let mut lines = lines_to(Path::new(path), &Signals::default());
        lines.blocked(&mut Blocked::default()).unwrap();
        lines.connection(&mut Connection::default()).unwrap();
        lines.finish();
        let ledger = &lines.ledger;
        assert_eq!(ledger.counts().blocked_lost, lost, "{path}");
        let counts = ledger.counts();
        let connections = (counts.connections.written, counts.connections.lost);
        assert_eq!(connections, (1 - lost, lost), "{path}");
        assert_eq!((counts.lost(), counts.seen), (0, 0));
        assert_eq!(ledger.requests.written.load(Ordering::Relaxed), 0);
        assert_eq!(ledger.is_output_failing.load(Ordering::Relaxed), lost > 0);
    }
}

/// Check that losses are written once and not counted as written, and that SIGUSR1 opens the file again after it was
/// moved away.
#[test]
fn written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
    let signals = Signals::default();
    let mut lines = lines_to(&path, &signals);
    let mut request = Request::default();
    lines.request(&mut request).unwrap();
    add(&lines.ledger.bad_records, 2);
    lines.tick();
    fs::rename(&path, &moved).unwrap();
    signals.ask_for_reopen();
    lines.tick();
    lines.request(&mut request).unwrap();
    lines.finish();
    let old = fs::read_to_string(&moved).unwrap();
    assert_eq!(old.lines().count(), 2);
    assert!(
        old.contains("\"count\":2") && old.contains("bad_read"),
        "{old}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    assert_eq!(lines.ledger.requests.written.load(Ordering::Relaxed), 2);
}

/// Check that a loss in a line that was not written is reported by the next one that is written.
#[test]
fn reported_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut lines = lines_to(Path::new("/dev/full"), &Signals::default());
    add(&lines.ledger.connections.unwritten, 2);
    lines.connection(&mut Connection::default()).unwrap();
    lines.tick();
    assert_eq!(lines.ledger.counts().connections.lost, 3);
    lines.output = Output::open(Some(&path)).unwrap();
    lines.connection(&mut Connection::default()).unwrap();
    lines.connection(&mut Connection::default()).unwrap();
    lines.finish();
    let text = fs::read_to_string(&path).unwrap();
    let reports: Vec<_> = text.matches("\"connections_lost\":3").collect();
    assert_eq!((reports.len(), text.lines().count()), (1, 2), "{text}");
    assert!(!lines.ledger.is_output_failing.load(Ordering::Relaxed));
}

/// Check that records of every kind wait until a FIFO is read, and that none is lost.
#[test]
fn unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let mut lines = lines_to(&path, &Signals::default());
    lines.request(&mut Request::default()).unwrap();
    lines.connection(&mut Connection::default()).unwrap();
    lines.blocked(&mut Blocked::default()).unwrap();
    lines.tick();
    let reader = path.clone();
    let text = thread::spawn(move || fs::read_to_string(reader).unwrap());
    while lines.output.is_unread() {
        lines.tick();
    }
    lines.finish();
    assert_eq!(lines.ledger.unwritten(), 0);
    drop(lines);
    assert_eq!(text.join().unwrap().lines().count(), 3);
}

/// Check that spans are collected, that each tick writes one line of all requests since the last one, which counts them,
/// and that a full disk loses all of them.
#[test]
fn batches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut request = Request {
        time: Some("2026-11-26T18:00:00.000000000Z".to_owned()),
        ..Default::default()
    };
    request.phases.downstream_request_first_byte_time = Some(0);
    for (path, written, lines) in [(&*path, 5, 2), (Path::new("/dev/full"), 0, 0)] {
        let settings = LineSettings {
            format: OutputFormat::Otlp,
            service: None,
            line_bytes_max: None,
        };
        let mut to = lines_with(path, settings, &Signals::default());
        for count in [3, 0, 2] {
            for _ in 0..count {
                to.request(&mut request).unwrap();
            }
            to.flush();
            to.tick();
        }
        to.finish();
        let requests = &to.ledger.requests;
        assert_eq!(requests.written.load(Ordering::Relaxed), written);
        assert_eq!(requests.unwritten.load(Ordering::Relaxed), 5 - written);
        if lines > 0 {
            assert_eq!(fs::read_to_string(path).unwrap().lines().count(), lines);
        }
    }
}
