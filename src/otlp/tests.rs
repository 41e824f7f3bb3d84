// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unit tests of the exporter, with receivers that the tests write.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use super::Batch;
use super::END;
use super::Exporter;
use super::Records;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;

/// Two answers.
const TAKEN: &str = "HTTP/1.1 200 x\r\nContent-Length: 2\r\n\r\n{}";
const NOT_FOUND: &str = "HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n";

/// What the tests note: requests that were taken, and requests that are lost, in order.
type Noted = Arc<Mutex<Vec<(u64, u64)>>>;

/// Starts an exporter to a port.
fn exporter(port: u16) -> (Exporter, Noted) {
    let noted = Noted::default();
    let to = Arc::clone(&noted);
    let outcome = move |taken: Records, lost: Records| {
        to.lock().unwrap().push((taken.requests, lost.requests));
    };
    let endpoint = format!("http://127.0.0.1:{port}").parse().unwrap();
    let messages = Messages::new(Verbosity::Quiet);
    let exporter = Exporter::start(endpoint, Box::new(outcome), messages).unwrap();
    (exporter, noted)
}

/// Returns a batch of so many requests.
fn batch(requests: u64, bytes: usize) -> Batch {
    Batch {
        records: Records {
            requests,
            ..Records::default()
        },
        traces: vec![b'x'; bytes],
        logs: Vec::new(),
    }
}

/// Reads a request, and answers it. Returns its path.
fn answer(stream: &mut TcpStream, text: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head
        .strip_prefix("POST ")
        .and_then(|head| head.split_once(" HTTP/1.1\r\n"));
    let path = path.unwrap_or_else(|| panic!("{head}")).0;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    assert!(body.starts_with(&[0x1f, 0x8b]));
    stream.write_all(text.as_bytes()).unwrap();
    path.to_owned()
}

/// Check that a batch is tried again where the receiver says that it may be, also on a new connection, that one that
/// it refuses is lost, and that of a partial success the number is.
#[test]
fn answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (exporter, noted) = exporter(listener.local_addr().unwrap().port());
    let served = thread::spawn(move || {
        let mut streams = listener.incoming().flatten();
        let mut stream = streams.next().unwrap();
        answer(
            &mut stream,
            "HTTP/1.1 429 x\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
        );
        answer(
            &mut stream,
            "HTTP/1.1 503 x\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        );
        stream = streams.next().unwrap();
        answer(&mut stream, TAKEN);
        answer(
            &mut stream,
            "HTTP/1.1 400 x\r\nContent-Length: 3\r\n\r\nbad",
        );
        let partial = r#"{"partialSuccess":{"rejectedSpans":"2"}}"#;
        let head = format!(
            "HTTP/1.1 200 x\r\nContent-Length: {}\r\n\r\n",
            partial.len()
        );
        answer(&mut stream, &(head + partial));
    });
    let begun = Instant::now();
    for requests in [3, 4, 5] {
        exporter.send(batch(requests, 10));
    }
    assert!(exporter.finish());
    /* There is a pause before each try, also where the receiver asks for none. */
    assert!(begun.elapsed() >= Duration::from_secs(1));
    served.join().unwrap();
    assert_eq!(*noted.lock().unwrap(), [(3, 0), (0, 4), (3, 2)]);
}

/// Check that the end says that the last batches were not taken, also where these have no records of their own.
#[test]
fn refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (exporter, noted) = exporter(listener.local_addr().unwrap().port());
    let served = thread::spawn(move || {
        let mut stream = listener.incoming().flatten().next().unwrap();
        for _ in 0..2 {
            answer(&mut stream, NOT_FOUND);
        }
    });
    for batch in [batch(1, 10), batch(0, 10), batch(0, 0)] {
        exporter.send(batch);
    }
    assert!(!exporter.finish());
    served.join().unwrap();
    assert_eq!(*noted.lock().unwrap(), [(0, 1), (0, 0), (0, 0)]);
}

/// Check that a path that is not served fails until a body for it is taken, whatever the receiver takes on the other.
#[test]
fn one_path() {
    for (unserved, other_path) in [("/v1/traces", "/v1/logs"), ("/v1/logs", "/v1/traces")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (exporter, noted) = exporter(listener.local_addr().unwrap().port());
        let came = thread::spawn(move || {
            let mut stream = listener.incoming().flatten().next().unwrap();
            /* The first body for traces is the first one of all, and that of logs follows one that was taken. */
            let answers: &[&str] = match unserved {
                "/v1/traces" => &[NOT_FOUND, TAKEN],
                _ => &[TAKEN, NOT_FOUND, TAKEN],
            };
            let paths = answers.iter().map(|text| answer(&mut stream, text));
            paths.collect::<Vec<_>>()
        });
        let mut both = batch(1, 10);
        both.logs.clone_from(&both.traces);
        exporter.send(both);
        let mut other = batch(0, 10);
        if unserved == "/v1/traces" {
            std::mem::swap(&mut other.traces, &mut other.logs);
        }
        exporter.send(other);
        assert!(!exporter.finish(), "{unserved}");
        assert_eq!(came.join().unwrap().last().unwrap(), other_path);
        assert_eq!(*noted.lock().unwrap(), [(0, 1), (0, 0)]);
    }
}

/// Check that what has no room is dropped in its place, and that the end does not wait for a receiver that never
/// answers, or is not there, for longer than it may.
#[test]
fn silent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for listener in [Some(listener), None] {
        let (exporter, noted) = exporter(port);
        for _ in 0..4 {
            exporter.send(batch(1, 5 << 20));
        }
        let begun = Instant::now();
        assert!(!exporter.finish());
        assert!(begun.elapsed() < END + Duration::from_secs(1));
        let lost: u64 = noted.lock().unwrap().iter().map(|(_, lost)| lost).sum();
        assert_eq!(lost, 4);
        drop(listener);
    }
}
