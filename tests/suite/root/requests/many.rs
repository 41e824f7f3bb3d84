// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many requests of all kinds at once.

use super::start;
use super::traced;
use crate::suite::common::client::Client;
use crate::suite::common::record::Record;

/// Check 1,200 mixed requests over 50 connections and two workers: records and log are equal, with
/// no request missing and none twice.
#[test]
fn mixed() {
    let (nginx, _upstream) = start(2);
    let records = traced(nginx, |nginx| {
        let threads: Vec<_> = (0..50)
            .map(|n| {
                let port = nginx.port;
                std::thread::spawn(move || mixed_connection(port, n))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert_eq!(records.len(), 1_200);
    records.iter().for_each(Record::assert_complete);
}

/// Sends 24 requests, whose kinds follow from `seed`.
fn mixed_connection(port: u16, seed: u64) {
    const URIS: [&str; 8] = [
        "/return",
        "/small.txt",
        "/nowhere",
        "/proxy/",
        "/kept/body-5000",
        "/path/",
        "/kept_path/",
        "/down/",
    ];
    let mut client = Client::connect(port);
    let mut state = seed;
    for _ in 0..12 {
        /* The generator of Knuth's MMIX. */
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let pick = |shift: u32| URIS[(state >> shift) as usize % URIS.len()];
        let size = (state >> 40) as usize % 20_000;
        match (state >> 60) % 3 {
            0 => {
                for shift in [33, 43] {
                    client.get(pick(shift));
                }
            }
            1 => {
                client.send(format!(
                    "GET {} HTTP/1.1\r\nHost: a\r\n\r\nHEAD {} HTTP/1.1\r\nHost: b\r\n\r\n",
                    pick(33),
                    pick(43)
                ));
                client.receive();
                client.receive_to(true);
            }
            _ => {
                client.send(format!(
                    "POST /kept/ HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
                ));
                client.send(vec![b'x'; size]);
                client.receive();
                client.get(pick(33));
            }
        }
    }
}
