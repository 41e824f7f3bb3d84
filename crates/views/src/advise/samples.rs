// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records that the tests of rules make.

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;

use crate::advise::Advisor;
use crate::advise::Finding;

/// A request that changes step by step.
#[derive(Clone)]
pub struct Sample(pub Request<'static>);

impl Sample {
    /// Creates a request that began at this time after midnight, took 0.1 ms, and had no upstream.
    pub fn at_ms(ms: u64) -> Self {
        let mut sample = Self(Request {
            pid: 100,
            connection_requests: Some(2),
            remote_addr: Some("192.0.2.1".into()),
            server_addr: Some("10.0.0.1".into()),
            server_port: Some(443),
            request_method: Some("GET".into()),
            status: Some(200),
            ..Default::default()
        });
        sample.set_time_ms(ms);
        sample.0.place.location = Some("/api/".into());
        sample.0.place.server_name = Some("shop.example".into());
        sample.0.place.config.server = Some("nginx.conf:7".into());
        let phases = &mut sample.0.phases;
        phases.downstream_request_first_byte_time = Some(1_000);
        phases.downstream_request_last_byte_time = Some(1_000);
        sample.set_elapsed(100_000);
        sample
    }

    /// Sets when it began.
    pub fn set_time_ms(&mut self, ms: u64) {
        let (seconds, ms) = (ms / 1_000, ms % 1_000);
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        let time = format!("2026-11-26T{hours:02}:{minutes:02}:{seconds:02}.{ms:03}000000Z");
        self.0.time = Some(time);
    }

    /// Sets how long it took.
    pub fn set_elapsed(&mut self, ns: u64) {
        self.0.elapsed_ns = Some(ns);
        self.0.duration_ns = Some(ns);
        let phases = &mut self.0.phases;
        phases.downstream_response_first_byte_time = Some(1_000 + ns);
        phases.downstream_response_last_byte_time = Some(1_000 + ns);
    }

    /// Adds an attempt at an upstream on a kept connection, which took `ns`.
    pub fn upstream(mut self, group: &'static str, addr: &'static str, ns: u64) -> Self {
        let before = self.0.elapsed_ns.unwrap();
        let from = 1_000 + before;
        self.0.upstreams.push(Attempt {
            addr: Some(addr.into()),
            status: Some(200),
            reused: Some(true),
            upstream_connect_time: Some(from),
            upstream_request_first_byte_time: Some(from),
            upstream_request_last_byte_time: Some(from),
            upstream_response_first_byte_time: Some(from + ns),
            upstream_response_last_byte_time: Some(from + ns),
            response_header_ns: Some(ns),
            ..Default::default()
        });
        self.set_elapsed(before + ns);
        self.0.place.upstream_name = Some(group.into());
        self.0.place.config.upstream = Some("nginx.conf:41".into());
        self.0.upstream_addr = Some(addr.into());
        self
    }

    /// Returns an attempt.
    pub fn attempt(&mut self, n: usize) -> &mut Attempt<'static> {
        &mut self.0.upstreams[n]
    }

    /// Makes an attempt one that failed, and of which no byte came.
    pub fn fail(&mut self, n: usize, failure: ngx_bpf_record::values::Failure, status: u32) {
        let attempt = self.attempt(n);
        attempt.failure = Some(failure);
        attempt.status = Some(status);
        attempt.upstream_response_first_byte_time = None;
        attempt.upstream_response_last_byte_time = None;
        attempt.response_header_ns = None;
    }

    /// Returns the record.
    pub fn record(self) -> Record<'static> {
        Record::Request(Box::new(self.0))
    }
}

/// Returns the findings of one rule in these requests.
pub fn found(rule: &str, samples: Vec<Sample>) -> Vec<Finding> {
    let records = samples.into_iter().map(Sample::record);
    found_in(rule, &Vec::from_iter(records))
}

/// Returns the findings of one rule in these records.
pub fn found_in(rule: &str, records: &[Record<'_>]) -> Vec<Finding> {
    let mut advisor = Advisor::new();
    records.iter().for_each(|record| advisor.record(record));
    let mut findings = advisor.findings();
    findings.retain(|finding| finding.rule == rule);
    findings
}
