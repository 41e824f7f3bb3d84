// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of a busy site, made of recorded ones: the same lines again and again would compress far better than real
//! ones do. Every run makes the same records.

use std::f64::consts::TAU;

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Phases;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::values::Alpn;
use ngx_bpf_record::values::Origin;
use ngx_bpf_record::values::Scheme;

use super::recorded::incidents;

/// 2026-11-27T00:00:00Z, in nanoseconds.
const START_NS: u64 = 1_795_737_600_000_000_000;

/// When the machine was started: times of CLOCK_MONOTONIC count from here.
const BOOT_NS: u64 = START_NS - 1_000_000_000_000;

/// The requests of a second.
const RATE: f64 = 10_000.0;

/// The connections that are open at the same time, and how many requests each has on average.
const CONNECTIONS: usize = 5_000;
const REQUESTS_OF_CONNECTION: f64 = 20.0;

/// How many different clients, ids and files there are. The n-th one is 1/n as frequent as the first.
const CLIENTS: f64 = 100_000.0;
const IDS: f64 = 1_000_000.0;
const FILES: f64 = 5_000.0;

/// The share of requests that are like the recorded ones that went well. All others are of a bad minute.
const HEALTHY: f64 = 0.97;

/// Numbers that look random.
struct Random(u64);

impl Random {
    /// Returns 64 random bits (SplitMix64).
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Returns a number from 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns whether something of this probability happens.
    fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Returns a number from 1 to below `most`, each n 1/n as frequent as 1.
    fn rank(&mut self, most: f64) -> u64 {
        most.powf(self.unit()) as u64
    }

    /// Returns a factor around 1, whose logarithm has a normal distribution.
    fn factor(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (0.6 * radius * (TAU * self.unit()).cos()).exp()
    }

    /// Returns one of these.
    fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.bits() as usize % all.len()]
    }
}

/// Mixes the bits of a number.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// A connection of a client.
struct Connection {
    number: u64,
    addr: String,
    port: u16,
    pid: u32,
    accepted_ns: u64,
    requests: u64,
    is_encrypted: bool,
}

/// The records, without an end.
pub struct Varied {
    random: Random,
    healthy: Vec<Request<'static>>,
    all: Vec<Request<'static>>,
    connections: Vec<Connection>,
    accepted: u64,
    now_ns: f64,
}

impl Varied {
    /// Begins with the first one.
    pub fn new() -> Self {
        let records = incidents().lines().map(serde_json::from_str::<Record>);
        let requests = records.filter_map(|record| match record.unwrap() {
            Record::Request(request) => Some(*request),
            _ => None,
        });
        let all: Vec<Request> = requests.collect();
        let went_well = |request: &&Request| {
            request.status.is_some_and(|status| status < 400)
                && request.waits.client_stall_ns.is_none()
                && request.waits.read_wait_ns.is_none()
                && request.upstreams.len() < 2
                && request.ending.last_phase.is_none()
        };
        Self {
            random: Random(1),
            healthy: all.iter().filter(went_well).cloned().collect(),
            all,
            connections: Vec::new(),
            accepted: 0,
            now_ns: 0.0,
        }
    }

    /// Returns one of the open connections, with one more request. Some of them are new.
    fn connection(&mut self) -> &mut Connection {
        let at = self.random.bits() as usize % CONNECTIONS;
        let is_new =
            at >= self.connections.len() || self.random.happens(1.0 / REQUESTS_OF_CONNECTION);
        if !is_new {
            return &mut self.connections[at];
        }
        self.accepted += 1;
        let client = mixed(self.random.rank(CLIENTS)).to_be_bytes();
        let connection = Connection {
            number: self.accepted,
            addr: format!(
                "{}.{}.{}.{}",
                client[0] % 223 + 1,
                client[1],
                client[2],
                client[3]
            ),
            port: (self.random.bits() % 64_512 + 1_024) as u16,
            pid: 12_804 + (self.random.bits() % 8) as u32,
            accepted_ns: START_NS + self.now_ns as u64 - BOOT_NS,
            requests: 0,
            is_encrypted: self.random.happens(0.8),
        };
        match self.connections.get_mut(at) {
            Some(old) => *old = connection,
            None => self.connections.push(connection),
        }
        let at = at.min(self.connections.len() - 1);
        &mut self.connections[at]
    }

    /// Gives a request its client.
    fn connect(&mut self, request: &mut Request<'static>) {
        let factor = self.random.factor();
        let now_ns = START_NS + self.now_ns as u64 - BOOT_NS;
        let connection = self.connection();
        connection.requests += 1;
        let is_first = connection.requests == 1;
        let since_accept = now_ns - connection.accepted_ns + (45_000.0 * factor) as u64;
        request.pid = connection.pid;
        request.connection = Some(connection.number);
        request.connection_requests = Some(connection.requests);
        request.remote_addr = Some(connection.addr.clone().into());
        request.remote_port = Some(connection.port);
        request.server_addr = Some("198.51.100.7".into());
        request.server_port = Some(80);
        request.downstream_accept_time = Some(connection.accepted_ns);
        request.phases_origin = Some(Origin::Accept);
        request.waits.accept_queue_ns = is_first.then_some((30_000.0 * factor) as u64);
        if connection.is_encrypted {
            request.scheme = Scheme::Https;
            request.server_port = Some(443);
            request.server_protocol = Some("HTTP/2.0".into());
            request.tls.ssl_server_name = request.http_host.clone();
            request.tls.alpn = Some(Alpn::H2);
            request.tls.tls_handshake_ns = is_first.then_some((1_900_000.0 * factor) as u64);
        }
        let began = request.phases.downstream_request_first_byte_time;
        let scale = self.random.factor();
        stretch(request, began.unwrap_or_default(), since_accept, scale);
    }

    /// Gives a request its uri, its size and its servers.
    fn address(&mut self, request: &mut Request<'static>) {
        let factor = self.random.factor();
        let scaled = |size: i64| (size as f64 * factor) as i64;
        request.response_size = request.response_size.map(|size| scaled(size).max(150));
        if let Some(uri) = request.uri.clone() {
            let path = self.path(&uri);
            let query = match self.random.happens(0.4) {
                true => format!(
                    "?page={}&q={:x}",
                    self.random.rank(50.0),
                    mixed(self.random.rank(FILES))
                ),
                false => String::new(),
            };
            request.request_uri = Some(format!("{path}{query}").into());
            request.uri = Some(path.into());
        }
        for attempt in &mut request.upstreams {
            attempt.bytes_received = attempt.bytes_received.map(scaled);
            let group = attempt
                .addr
                .as_deref()
                .and_then(|addr| addr.rsplit(':').next());
            let group = group
                .and_then(|port| port.parse::<u32>().ok())
                .unwrap_or_default()
                % 100;
            let addr = format!("10.0.{group}.{}:8080", self.random.bits() % 8 + 1);
            attempt.addr = Some(addr.into());
        }
        request.upstream_addr = request
            .upstreams
            .last()
            .and_then(|attempt| attempt.addr.clone());
        if self.random.happens(0.5) {
            let id = u128::from(self.random.bits()) << 64 | u128::from(self.random.bits());
            request.trace.trace_id = Some(format!("{id:032x}").into());
            request.trace.parent_span_id = Some(format!("{:016x}", self.random.bits()).into());
        }
    }

    /// Returns a path like this one: with another number, or of another file.
    fn path(&mut self, uri: &str) -> String {
        let is_number =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if uri.split('/').any(is_number) {
            let id = self.random.rank(IDS).to_string();
            let parts = uri
                .split('/')
                .map(|part| if is_number(part) { &id } else { part });
            return Vec::from_iter(parts).join("/");
        }
        let folder = &uri[..uri.rfind('/').map_or(0, |at| at + 1)];
        let kind = self.random.of(&["js", "css", "png", "html"]);
        format!("{folder}{:x}.{kind}", mixed(self.random.rank(FILES)) >> 32)
    }
}

impl Iterator for Varied {
    type Item = Request<'static>;

    fn next(&mut self) -> Option<Self::Item> {
        self.now_ns -= (1.0 - self.random.unit()).ln() * 1e9 / RATE;
        let like = if self.random.happens(HEALTHY) {
            &self.healthy
        } else {
            &self.all
        };
        let mut request = self.random.of(like).clone();
        let time =
            jiff::Timestamp::from_nanosecond(i128::from(START_NS) + self.now_ns as i128).unwrap();
        request.time = Some(format!("{time:.9}"));
        self.connect(&mut request);
        self.address(&mut request);
        Some(request)
    }
}

/// Moves the begin of a request from one time to another one, and makes all of it longer by this factor.
fn stretch(request: &mut Request<'_>, from: u64, to: u64, factor: f64) {
    let longer = |ns: u64| (ns as f64 * factor) as u64;
    let moved = |ns: u64| to + longer(ns.saturating_sub(from));
    for time in times_of(&mut request.phases) {
        *time = time.map(moved);
    }
    for attempt in &mut request.upstreams {
        for time in times_of_attempt(attempt) {
            *time = time.map(moved);
        }
        attempt.response_header_ns = attempt.response_header_ns.map(longer);
        attempt.reused_idle_ns = attempt.reused_idle_ns.map(longer);
    }
    let after = request.elapsed_ns.zip(request.duration_ns);
    let after = after.map_or(0, |(elapsed, duration)| {
        longer(elapsed.saturating_sub(duration))
    });
    let elapsed = request.elapsed_ns.map(longer);
    request.duration_ns = request.duration_ns.map(longer);
    request.elapsed_ns = request
        .duration_ns
        .map_or(elapsed, |duration| Some(duration + after));
    if let Some(shares) = &mut request.waits.time_ns {
        shares.client = longer(shares.client);
        shares.upstream = longer(shares.upstream);
        shares.wait = longer(shares.wait);
        let others = shares.client + shares.upstream + shares.wait;
        shares.nginx = request
            .duration_ns
            .unwrap_or_default()
            .saturating_sub(others);
    }
    let waits = &mut request.waits;
    for wait in [
        &mut waits.read_wait_ns,
        &mut waits.client_stall_ns,
        &mut waits.body_read_ns,
        &mut waits.queue_ns,
    ] {
        *wait = wait.map(longer);
    }
}

/// Returns the times of a request.
fn times_of(phases: &mut Phases) -> [&mut Option<u64>; 10] {
    [
        &mut phases.downstream_request_first_byte_time,
        &mut phases.downstream_request_last_byte_time,
        &mut phases.downstream_request_body_last_byte_time,
        &mut phases.upstream_connect_time,
        &mut phases.upstream_request_first_byte_time,
        &mut phases.upstream_request_last_byte_time,
        &mut phases.upstream_response_first_byte_time,
        &mut phases.upstream_response_last_byte_time,
        &mut phases.downstream_response_first_byte_time,
        &mut phases.downstream_response_last_byte_time,
    ]
}

/// Returns the times of an attempt.
fn times_of_attempt<'t>(attempt: &'t mut Attempt<'_>) -> [&'t mut Option<u64>; 5] {
    [
        &mut attempt.upstream_connect_time,
        &mut attempt.upstream_request_first_byte_time,
        &mut attempt.upstream_request_last_byte_time,
        &mut attempt.upstream_response_first_byte_time,
        &mut attempt.upstream_response_last_byte_time,
    ]
}
