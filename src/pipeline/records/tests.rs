// SPDX-License-Identifier: MIT OR Apache-2.0

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use anyhow::Result;
use crossbeam_channel::bounded;
use ngx_bpf_record::Request;

use super::Consumer;
use super::RecordThread;
use crate::bpf::types::record_kind;
use crate::decode::clock::Clock;
use crate::decode::examples::ended;
use crate::decode::examples::request;
use crate::decode::examples::request_in;
use crate::decode::examples::unknown_record;
use crate::follow::containers::ContainersByNumber;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;
use crate::pipeline::asked::AskedNames;
use crate::pipeline::containers::ContainerKeys;
use crate::pipeline::filter::TextFilter;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::places::Places;

/// A consumer that notes its calls.
struct Noted(Arc<Mutex<Vec<String>>>);

impl Consumer for Noted {
    fn request(&mut self, request: &mut Request<'_>) -> Result<()> {
        let mut noted = self.0.lock().unwrap();
        noted.push(format!("pid {}", request.pid));
        Ok(())
    }
}

/// Handles these batches. Returns the calls that the consumer noted.
fn handled(batches: &[Vec<u8>], left: Option<u64>, ledger: &Arc<Ledger>) -> Result<Vec<String>> {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let thread = RecordThread {
        filter: TextFilter::default(),
        containers: ContainerKeys::new(ContainersByNumber::default()),
        asked: AskedNames::default(),
        places: Places::default(),
        stacks: None,
        consumers: vec![Box::new(Noted(Arc::clone(&noted)))],
        left,
        ledger: Arc::clone(ledger),
        messages: Messages::new(Verbosity::Quiet),
        wants_more: None,
        clock: Clock::now(),
    };
    let (sender, receiver) = bounded(batches.len());
    batches
        .iter()
        .for_each(|batch| sender.send(batch.clone()).unwrap());
    drop(sender);
    thread.handle_all(&receiver)?;
    let noted = noted.lock().unwrap();
    Ok(noted.clone())
}

/// Check that requests arrive in order, and that a record that can't be decoded is counted as lost,
/// and stops no other.
#[test]
fn bad_records() {
    let batches = [
        [request(1), unknown_record(), request(2)].concat(),
        unknown_record(),
    ];
    let ledger = Arc::new(Ledger::default());
    let noted = handled(&batches, None, &ledger).unwrap();
    assert_eq!(noted, ["pid 1", "pid 2"]);
    assert_eq!(ledger.bad_records.load(Ordering::Relaxed), 2);
    assert_eq!(ledger.counts().lost(), 2);
}

/// Check that records of other kinds that can't be decoded are counted, and are no lost requests.
#[test]
fn bad_notices() {
    let bad = |kind: record_kind| {
        let mut record = ended(7);
        record[..4].copy_from_slice(&kind.0.to_ne_bytes());
        record
    };
    let ledger = Arc::new(Ledger::default());
    let batches = [[
        bad(record_kind::RECORD_LOCATION),
        request(1),
        bad(record_kind::RECORD_CONNECTION),
        bad(record_kind::RECORD_BLOCKED),
    ]
    .concat()];
    assert_eq!(handled(&batches, None, &ledger).unwrap(), ["pid 1"]);
    assert_eq!(ledger.bad_notices.load(Ordering::Relaxed), 3);
    let counts = ledger.counts();
    assert_eq!((counts.lost(), counts.connections.lost), (0, 1));
    assert_eq!(counts.blocked_lost, 1);
}

/// Check that a request whose container is no longer known is passed on and counted.
#[test]
fn nameless() {
    let ledger = Arc::new(Ledger::default());
    let batches = [[request(1), request_in(2, 7)].concat()];
    assert_eq!(
        handled(&batches, None, &ledger).unwrap(),
        ["pid 1", "pid 2"]
    );
    assert_eq!(ledger.nameless.load(Ordering::Relaxed), 1);
    assert_eq!(ledger.counts().lost(), 0);
}

/// Check that requests after the last one of `--count` are late, and not lost.
#[test]
fn count() {
    let batches = [[request(1), request(2)].concat(), request(3)];
    let ledger = Arc::new(Ledger::default());
    assert_eq!(handled(&batches, Some(1), &ledger).unwrap(), ["pid 1"]);
    assert!(ledger.has_ended());
    assert_eq!(ledger.requests.late.load(Ordering::Relaxed), 2);
    assert_eq!(ledger.counts().lost(), 0);
}

/// Check that a batch that ends within a record is an error.
#[test]
fn torn_batch() {
    let good = request(1);
    let ledger = Arc::new(Ledger::default());
    assert!(handled(&[good[..good.len() - 1].to_vec()], None, &ledger).is_err());
}
