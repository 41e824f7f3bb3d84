// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept for HTTP/3 is bounded: one client takes no more than its share.

use super::start;
use crate::suite::common::http3;
use crate::suite::common::http3::Http3;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;

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
