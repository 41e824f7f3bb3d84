// SPDX-License-Identifier: MIT OR Apache-2.0
//! A receiver of OTLP that answers as a test says, and keeps what it has taken.

use std::io;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use crossbeam_channel::Receiver;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::listener::read_head;
use super::spans::Tree;
use super::wait_right;

/// An answer.
pub enum Reply {
    /// The batch is taken.
    Taken,
    /// It is taken when the test drops the other end of this channel.
    After(Receiver<()>),
    /// It is taken, except this number of its records.
    Partly(u64),
    /// It is taken, with this warning.
    Warned(&'static str),
    /// It is not taken: the status, and other headers.
    Status(u16, &'static str),
    /// None, for ever.
    Silence,
}

/// What was taken, and how many batches came.
#[derive(Default)]
struct Kept {
    traces: Vec<ExportTraceServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    /// The paths of all batches, taken or not.
    came: Vec<String>,
}

/// A receiver.
pub struct Collector {
    pub port: u16,
    kept: Arc<Mutex<Kept>>,
}

impl Collector {
    /// Starts one on a free port. `reply` gets the number of the batch, from 0, and its path.
    pub fn start(reply: impl FnMut(usize, &str) -> Reply + Send + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), reply)
    }

    /// Starts one on a port.
    pub fn at(port: u16, reply: impl FnMut(usize, &str) -> Reply + Send + 'static) -> Self {
        Self::on(TcpListener::bind(("127.0.0.1", port)).unwrap(), reply)
    }

    /// Starts one. It ends with the test process.
    fn on(
        listener: TcpListener,
        mut reply: impl FnMut(usize, &str) -> Reply + Send + 'static,
    ) -> Self {
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::<Mutex<Kept>>::default();
        let to = Arc::clone(&kept);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                while serve(&mut stream, &to, &mut reply).is_ok() {}
            }
        });
        Self { port, kept }
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the requests of which it has taken spans.
    pub fn trees(&self) -> Vec<Tree> {
        Tree::of(&self.kept.lock().unwrap().traces)
    }

    /// Returns the log records that it has taken, of this event.
    pub fn logs(&self, event: &str) -> Vec<LogRecord> {
        let kept = self.kept.lock().unwrap();
        let resources = kept.logs.iter().flat_map(|batch| &batch.resource_logs);
        let scopes = resources.flat_map(|resource| &resource.scope_logs);
        let records = scopes.flat_map(|scope| scope.log_records.clone());
        records
            .filter(|record| record.event_name == event)
            .collect()
    }

    /// Waits until this number of batches for a path have come.
    pub fn wait_came(&self, path: &str, count: usize) {
        let came = || {
            let kept = self.kept.lock().unwrap();
            kept.came.iter().filter(|came| *came == path).count()
        };
        wait_right(came, |came| *came >= count);
    }

    /// Waits until it has taken the log records of this number of requests.
    pub fn wait_requests(&self, count: usize) {
        wait_right(|| self.logs("nginx.request").len(), |found| *found >= count);
    }
}

/// Serves one request.
fn serve(
    stream: &mut TcpStream,
    kept: &Mutex<Kept>,
    reply: &mut impl FnMut(usize, &str) -> Reply,
) -> io::Result<()> {
    let head = String::from_utf8(read_head(stream)?).unwrap();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let path = head.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(header("Content-Type: "), Some("application/json"), "{head}");
    assert_eq!(header("Content-Encoding: "), Some("gzip"), "{head}");
    let mut body = vec![0; header("Content-Length: ").unwrap().parse().unwrap()];
    stream.read_exact(&mut body)?;
    let number = {
        let mut kept = kept.lock().unwrap();
        kept.came.push(path.clone());
        kept.came.len() - 1
    };
    let (status, headers, text) = match reply(number, &path) {
        Reply::Taken => (200, "", "{}".to_owned()),
        Reply::After(event) => {
            let _ = event.recv();
            (200, "", "{}".to_owned())
        }
        Reply::Partly(count) => {
            let text = format!("{{\"partialSuccess\":{{\"rejectedLogRecords\":\"{count}\"}}}}");
            (200, "", text)
        }
        Reply::Warned(text) => {
            let text = format!("{{\"partialSuccess\":{{\"errorMessage\":\"{text}\"}}}}");
            (200, "", text)
        }
        Reply::Status(status, headers) => (status, headers, "no".to_owned()),
        Reply::Silence => loop {
            thread::park();
        },
    };
    if status == 200 {
        keep(&mut kept.lock().unwrap(), &path, &body);
    }
    let length = text.len();
    let answer = format!("HTTP/1.1 {status} x\r\n{headers}Content-Length: {length}\r\n\r\n{text}");
    stream.write_all(answer.as_bytes())
}

/// Keeps a body.
fn keep(kept: &mut Kept, path: &str, body: &[u8]) {
    let mut text = String::new();
    GzDecoder::new(body).read_to_string(&mut text).unwrap();
    match path {
        "/v1/traces" => kept.traces.push(serde_json::from_str(&text).unwrap()),
        "/v1/logs" => kept.logs.push(serde_json::from_str(&text).unwrap()),
        _ => panic!("{path}"),
    }
}
