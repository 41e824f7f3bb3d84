// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept for HTTP/3 is bounded: one client takes no more than its share.

use super::start;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;
use crate::suite::root::abuse::assert_same_keys;
use crate::suite::root::abuse::of_other;

/// `HELD_OF_CONNECTION_MAX` in bpf/config.bpf.h.
const HELD_MAX: u64 = 64;

/// Check a client that takes no response to its end: no more than its share of records is held, and
/// the records of all its requests are written when it leaves. Another client's are complete.
#[test]
fn held() {
    if http3::is_missing() {
        return;
    }
    let (nginx, _upstream) = start();
    let tool = Tool::trace(nginx.pid());
    let mut narrow = Http3::connect_narrow(nginx.port);
    for n in 0..HELD_MAX + 8 {
        narrow.get(4 * n, "/file-40k");
        narrow.receive_some(4 * n);
    }
    nginx.wait_logged(HELD_MAX as usize + 8);
    tool.wait_map("held_requests", HELD_MAX as usize);
    let mut other = Http3::connect(nginx.port);
    other.get(0, "/file-40k");
    other.receive([0]);
    other.close();
    tool.wait_map("held_requests", HELD_MAX as usize);
    narrow.close();
    let mut logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let mut records = ended.records();
    assert_eq!(records.len() as u64, HELD_MAX + 8 + 1);
    records.sort_by_key(|record| (record.connection, record.connection_requests));
    logged.sort_by_key(|logged| (logged.connection, logged.connection_requests));
    assert_equal(&records, &logged);
    let last = records.last().unwrap();
    assert!(
        last.phases.downstream_response_last_byte_time.is_some(),
        "{last:#?}"
    );
    let ends = records.iter().filter(|record| record.duration_ns.is_some());
    assert_eq!(
        ends.count() as u64,
        HELD_MAX + 1,
        "the end of the others was not seen"
    );
}

/// Streams of one client at the same time, of which nginx allows 128.
const STREAMS: u64 = 100;

/// Requests of the other client in each turn.
const TURN: usize = 2;

/// Sends the same requests each time: one whose header comes in two datagrams, and one with a body.
fn turn(other: &mut Http3, n: u64) {
    let [first, second] = [8 * n, 8 * n + 4];
    let header = http3::header("GET", "/return/other");
    let (begin, rest) = header.split_at(header.len() / 2);
    other.send(first, begin, false);
    other.send(first, rest, true);
    other.receive([first]);
    other.send(second, &http3::header("POST", "/other"), false);
    other.send(second, &http3::body(b"hello"), true);
    other.receive([second]);
}

/// Lets another client work before the abuse and after it. Its records must have the same keys. Returns
/// how many records the hostile clients have.
fn beside(abuse: impl FnOnce(&mut [Http3])) -> usize {
    let (nginx, _upstream) = start();
    let tool = Tool::trace(nginx.pid());
    let mut other = Http3::connect(nginx.port);
    turn(&mut other, 0);
    turn(&mut other, 1);
    let mut hostile = [(); 2].map(|()| Http3::connect(nginx.port));
    abuse(&mut hostile);
    turn(&mut other, 2);
    hostile.into_iter().for_each(Http3::close);
    turn(&mut other, 3);
    other.close();
    let mut logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let mut records = ended.records();
    records.sort_by_key(|record| (record.connection, record.connection_requests));
    logged.sort_by_key(|logged| (logged.connection, logged.connection_requests));
    assert_equal(&records, &logged);
    let mut others = of_other(&ended.stdout);
    others.sort_by_key(|value| value["connection_requests"].as_u64());
    assert_same_keys(&others, 4, TURN);
    records.len() - others.len()
}

/// Check more streams without a whole header than are followed at the same time.
#[test]
fn half_open() {
    if http3::is_missing() {
        return;
    }
    beside(|hostile| {
        for client in hostile {
            for n in 0..STREAMS {
                client.send(4 * n, &http3::header("GET", "/")[..5], false);
            }
        }
    });
}

/// Check streams that are reset when a part of their response has come.
#[test]
fn resets() {
    if http3::is_missing() {
        return;
    }
    let records = beside(|hostile| {
        for client in hostile {
            for n in 0..STREAMS {
                client.get(4 * n, "/file");
                client.receive_some(4 * n);
                client.reset(4 * n);
            }
        }
    });
    assert_eq!(records as u64, 2 * STREAMS);
}
