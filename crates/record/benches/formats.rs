// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures the CPU time that each format takes to encode a request, of recorded ones, alternating in one run. It
//! prints medians and ratios, and asserts nothing.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use ngx_bpf_record::Format;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::append_line;
use ngx_bpf_record::format::json::Json;
use ngx_bpf_record::format::otel::Otel;
use ngx_bpf_record::format::otlp::Identity;
use ngx_bpf_record::format::otlp::LINE_BYTES;
use ngx_bpf_record::format::otlp::Logs;
use ngx_bpf_record::format::otlp::Traces;
use ngx_bpf_record::format::text::Text;

/// Requests of a small shop that was traced once, most of which had an upstream.
const RECORDED: &str = include_str!("../../../tests/data/records.jsonl");

/// The number of measurements of each row, and how often each encodes all requests.
const ROUNDS: usize = 15;
const TIMES: usize = 100;

/// Encodes a request, and returns the number of bytes of what was collected and is written now.
type Encode = Box<dyn FnMut(&mut Request<'_>, &mut Vec<u8>)>;

/// Returns the encoder of lines.
fn lines(mut format: impl Format + 'static) -> Encode {
    Box::new(move |request, line| append_line(&mut format, line, request, Some(4095)).unwrap())
}

/// Returns that of spans.
fn spans() -> Encode {
    let mut traces = Traces::new(Identity::default(), None);
    Box::new(move |request, line| {
        traces.add(request).unwrap();
        if traces.bytes() >= LINE_BYTES {
            traces.write_line(line);
        }
    })
}

/// Returns that of log records.
fn logs() -> Encode {
    let mut logs = Logs::new(Identity::default(), None);
    Box::new(move |request, line| {
        logs.request(request, None).unwrap();
        if logs.bytes() >= LINE_BYTES {
            logs.write_line(line);
        }
    })
}

/// Returns the recorded requests.
fn recorded() -> Vec<Request<'static>> {
    let records = RECORDED
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let requests = records.filter_map(|record: Record<'static>| match record {
        Record::Request(request) => Some(*request),
        _ => None,
    });
    requests.collect()
}

/// Encodes all requests several times. Returns the nanoseconds and the bytes of one.
fn measure(encode: &mut Encode, requests: &mut [Request<'static>]) -> (f64, usize) {
    let (mut line, mut bytes) = (Vec::with_capacity(1 << 20), 0);
    let begun = Instant::now();
    for _ in 0..TIMES {
        for request in &mut *requests {
            encode(request, &mut line);
            bytes += black_box(&line).len();
            line.clear();
        }
    }
    let count = TIMES * requests.len();
    (
        begun.elapsed().as_nanos() as f64 / count as f64,
        bytes / count,
    )
}

fn main() {
    let mut requests = recorded();
    let mut rows = [
        ("json", lines(Json)),
        ("text", lines(Text)),
        ("otel", lines(Otel::new(None))),
        ("otlp", spans()),
        ("logs of otlp", logs()),
    ]
    .map(|(name, encode)| (name, encode, Vec::new(), 0));
    for _ in 0..ROUNDS {
        for (_, encode, times, bytes) in &mut rows {
            let (time, written) = measure(encode, &mut requests);
            times.push(time);
            *bytes = written;
        }
    }
    println!(
        "{} requests, {ROUNDS} rounds, alternating; of one request, medians",
        requests.len()
    );
    let median = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[ROUNDS / 2]
    };
    let json = median(&rows[0].2);
    for (name, _, times, bytes) in &rows {
        let ns = median(times);
        println!(
            "{name:<14} {ns:>7.0} ns, {:>5.2} of json, {bytes} bytes",
            ns / json
        );
    }
}
