// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests that a worker of nginx has in flight, read from its memory while it runs. The kernel shows which
//! `ngx_connection_t` there are (`epoll`), and each leads to its request: that of a client, that of an upstream,
//! and those of the streams of HTTP/2.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_channel::bounded;
use jiff::Timestamp;
use nginx_binary::layout::Layout;
use nginx_binary::pauses::PausePlaces;
use ngx_bpf_record::Inflight;
use ngx_bpf_record::Redaction;
use ngx_bpf_record::limits;

use crate::follow::program::Program;
use crate::host::memory::ForeignMemory;
use reader::CONNECTION;
use reader::REQUEST;
use reader::StructReader;
use state::Found;

mod epoll;
mod pause;
mod reader;
mod report;
mod state;
mod streams;

/// `r->signature` of every `ngx_http_request_t` that is alive: "HTTP".
const HTTP_MODULE: u32 = 0x5054_5448;

/// `start_sec` and `start_msec` are this many bytes before `http_version`, in all releases. Forks have other members
/// there (freenginx, Tengine), which are no seconds since 1970 of this century.
const START_SEC: u64 = 24;
const START_MSEC: u64 = 16;
const START_SEC_MIN: u64 = 1_000_000_000;

const H2_CONNECTION: &str = "ngx_http_v2_connection_s";

/// The time limit for reading one worker. It takes some 10 µs for each connection.
const TIME: Duration = Duration::from_secs(5);

/// The facts about a binary by which the memory of its workers is read.
#[derive(Clone, Debug)]
pub struct BinaryFacts {
    layout: Layout,
    pauses: PausePlaces,
}

impl BinaryFacts {
    /// Returns those of a program.
    pub fn of(program: &Program) -> Arc<Self> {
        Arc::new(Self {
            layout: program.layout.layout.clone(),
            pauses: program.pauses,
        })
    }
}

/// Takes requests in flight, the oldest first, or why they can't be read.
pub type InflightTo = Arc<dyn Fn(Result<Vec<Inflight<'static>>>) + Send + Sync>;

/// The reading of the requests in flight that SIGUSR2 asks for.
#[derive(Default)]
pub struct InflightThreads {
    /// Takes them. `None`: they are printed.
    pub to: Option<InflightTo>,
    /// The last thread that has printed them, or still reads. It returns the workers that were given up.
    pub thread: Option<JoinHandle<BTreeSet<u32>>>,
    /// The workers whose memory could not be read in time. A thread hangs in each.
    pub hung: BTreeSet<u32>,
}

/// What was read of some workers.
#[derive(Default)]
pub struct InflightReading {
    /// The requests in flight, the oldest first.
    pub requests: Vec<Inflight<'static>>,
    /// Why workers could not be read.
    pub errors: Vec<anyhow::Error>,
    /// The workers that were given up. A thread hangs in each.
    pub hung: BTreeSet<u32>,
}

/// Reads the requests in flight of workers, each with the facts about its binary.
pub fn read_all(
    workers: impl IntoIterator<Item = (u32, Arc<BinaryFacts>)>,
    redaction: &Redaction,
) -> InflightReading {
    let mut reading = InflightReading::default();
    for (pid, binary) in workers {
        match read(pid, &binary) {
            Ok(Some(requests)) => reading.requests.extend(requests),
            Ok(None) => {
                let seconds = TIME.as_secs();
                let error = anyhow!("the memory of pid {pid} was not read within {seconds} s");
                reading.errors.push(error);
                reading.hung.insert(pid);
            }
            Err(error) => reading.errors.push(error),
        }
    }
    for request in &mut reading.requests {
        redaction.apply_to_inflight(request);
    }
    reading
        .requests
        .sort_by_key(|request| Reverse(request.age_ms));
    reading
}

/// Returns the requests in flight of a worker that runs this binary. A process can make a read block for ever, and is
/// then given up: `None`.
///
/// Fails when it could not be read.
fn read(pid: u32, binary: &Arc<BinaryFacts>) -> Result<Option<Vec<Inflight<'static>>>> {
    let (sender, result) = bounded(1);
    let binary = Arc::clone(binary);
    thread::Builder::new()
        .name("inflight".to_owned())
        .spawn(move || {
            /* No one waits for it any more when the receiver is dropped. */
            let _ = sender.send(read_now(pid, &binary));
        })
        .context("failed to start a thread")?;
    match result.recv_timeout(TIME) {
        Ok(requests) => requests.map(Some),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => bail!("failed to read the memory of pid {pid}"),
    }
}

/// Does the same without a time limit.
fn read_now(pid: u32, binary: &BinaryFacts) -> Result<Vec<Inflight<'static>>> {
    let memory = ForeignMemory::open(pid)?;
    let worker = WorkerMemory {
        pid,
        memory: &memory,
        layout: &binary.layout,
        pauses: binary.pauses.in_process(memory.program_headers),
    };
    worker.requests()
}

/// A worker whose memory can be read.
struct WorkerMemory<'a> {
    pid: u32,
    memory: &'a ForeignMemory,
    /// The layout of the binary that it runs.
    layout: &'a Layout,
    /// Where it has the functions that show why a request waits.
    pauses: PausePlaces,
}

impl WorkerMemory<'_> {
    /// Returns the requests in flight. A request that ends meanwhile may be left out.
    ///
    /// Fails when the sockets of the worker can't be listed.
    fn requests(&self) -> Result<Vec<Inflight<'static>>> {
        let connections = epoll::registered(self.pid)?;
        let now = Timestamp::now();
        let now_ms = u64::try_from(now.as_millisecond())?;
        let mut found = BTreeMap::new();
        for connection in connections {
            self.find(connection, &mut found);
        }
        let all = found.into_iter();
        let mut requests: Vec<_> = all
            .filter_map(|(main, found)| self.request(main, &found, now_ms))
            .collect();
        for request in &mut requests {
            request.time = format!("{now:.9}");
        }
        Ok(requests)
    }

    fn reader(&self) -> StructReader<'_> {
        StructReader {
            memory: self.memory,
            layout: self.layout,
        }
    }

    /// Adds the requests that a connection leads to, by the address of the main request.
    fn find(&self, connection: u64, found: &mut BTreeMap<u64, Found>) -> Option<()> {
        let reader = self.reader();
        let data = reader.pointer(connection, (CONNECTION, "data"))?;
        let is_client = reader.word(connection, (CONNECTION, "listening"))? != 0;
        if self.is_request(data) {
            let main = reader.pointer(data, (REQUEST, "main"))?;
            let of_main = found.entry(main).or_default();
            if !is_client {
                of_main.upstreams.push((data, connection));
            }
            return Some(());
        }
        /* The first member of an ngx_http_v2_connection_t points back. */
        if !is_client || reader.word(data, (H2_CONNECTION, "connection"))? != connection {
            return None;
        }
        for main in streams::requests(reader, data) {
            found.entry(main).or_default();
        }
        Some(())
    }

    /// Returns whether a request is at an address.
    fn is_request(&self, address: u64) -> bool {
        self.reader().half(address, (REQUEST, "signature")) == Some(HTTP_MODULE)
    }

    /// Reads a request. `None` when it has ended, or another one has its memory by then.
    fn request(&self, r: u64, found: &Found, now_ms: u64) -> Option<Inflight<'static>> {
        let reader = self.reader();
        let identity = self.identity(r)?;
        let c = identity.connection;
        let text = |name, max| reader.text(reader.place(r, (REQUEST, name))?, max);
        let (state, upstream_addr) = found.state(reader, &self.pauses, r, c).unzip();
        let request = Inflight {
            pid: self.pid,
            connection: identity.number,
            connection_requests: reader.word(c, (CONNECTION, "requests"))?,
            age_ms: now_ms
                .checked_sub(identity.start_ms)
                .filter(|_| identity.start_ms != 0),
            state,
            upstream_addr: upstream_addr.flatten(),
            remote_addr: reader.text(
                reader.place(c, (CONNECTION, "addr_text"))?,
                limits::ADDR_MAX,
            ),
            server_protocol: text("http_protocol", limits::PROTOCOL_MAX),
            request_method: text("method_name", limits::METHOD_MAX),
            request_uri: text("unparsed_uri", limits::URI_MAX),
            http_host: self.host(r),
            status: self.status(r),
            request_size: reader
                .word(r, (REQUEST, "request_length"))
                .map(u64::cast_signed)
                .filter(|size| *size >= 0),
            response_size: Some(reader.word(c, (CONNECTION, "sent"))?.cast_signed())
                .filter(|sent| *sent >= 0)?,
            ..Default::default()
        };
        let is_counted = request.connection_requests != 0;
        (is_counted && self.identity(r)? == identity).then_some(request)
    }

    /// Reads what distinguishes a request from any other one that has its memory before or after it.
    fn identity(&self, r: u64) -> Option<Identity> {
        let reader = self.reader();
        if !self.is_request(r) || reader.word(r, (REQUEST, "main"))? != r {
            return None;
        }
        let connection = reader.pointer(r, (REQUEST, "connection"))?;
        let version = reader.place(r, (REQUEST, "http_version"))?;
        let seconds = self.memory.word(version.checked_sub(START_SEC)?)?;
        let millis = self.memory.word(version.checked_sub(START_MSEC)?)?;
        let is_time = seconds >= START_SEC_MIN && millis < 1000;
        let start_ms = seconds.checked_mul(1000).filter(|_| is_time);
        let number = reader.pointer(connection, (CONNECTION, "number"))?;
        Some(Identity {
            connection,
            number,
            start_ms: start_ms.map_or(0, |start| start.saturating_add(millis)),
        })
    }

    /// Reads the value of the header `Host`.
    fn host(&self, r: u64) -> Option<Cow<'static, str>> {
        let reader = self.reader();
        let headers = reader.place(r, (REQUEST, "headers_in"))?;
        let host = reader.pointer(headers, ("ngx_http_headers_in_t", "host"))?;
        reader.text(
            reader.place(host, ("ngx_table_elt_s", "value"))?,
            limits::HOST_MAX,
        )
    }

    /// Reads the status of the response. `None` when there is none yet.
    fn status(&self, r: u64) -> Option<u32> {
        let reader = self.reader();
        let headers = reader.place(r, (REQUEST, "headers_out"))?;
        let status = reader.word(headers, ("ngx_http_headers_out_t", "status"))?;
        u32::try_from(status)
            .ok()
            .filter(|status| (1..=999).contains(status))
    }
}

/// What distinguishes a request from any other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    /// Its `ngx_connection_t`.
    connection: u64,
    /// `c->number`
    number: u64,
    /// When it began, in milliseconds since 1970. 0: that is not known.
    start_ms: u64,
}
