// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that sends batches, and tries again what the receiver may take later, as the specification of OTLP says
//! (OTLP/HTTP Response).

use std::fmt::Display;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::io;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use ngx_bpf_record::format::escape::Escaped;
use ngx_bpf_record::format::otlp::PartialSuccess;

use super::batch::Batch;
use super::endpoint::Endpoint;
use super::http::Answer;
use super::http::Connection;
use super::queue::Queue;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;

/// The longest time for one request and its answer.
const EXCHANGE: Duration = Duration::from_secs(10);

/// The time after which a batch is no longer tried again.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The pauses between tries, about: the first one, and the longest one. Each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(16);

/// The most characters of what a receiver says that a message has.
const SAID_CHARS: usize = 200;

/// What fails.
#[derive(Debug, PartialEq, Eq)]
enum Failing {
    /// There is no answer.
    Receiver,
    /// One of the paths answers, and does not take a body. The other one may take all.
    Path(String),
}

/// Sends batches, one after the other.
pub struct Sender {
    connection: Connection,
    endpoint: Endpoint,
    queue: Arc<Queue>,
    messages: Messages,
    /// What of the receiver has failed last, which was reported. `None`: it takes records.
    failing: Option<Failing>,
    /// Whether a rejection was reported, and whether a warning about what was taken was.
    has_reported_rejection: bool,
    has_reported_warning: bool,
}

impl Sender {
    /// Creates the state of the thread.
    pub fn new(
        connection: Connection,
        endpoint: Endpoint,
        queue: Arc<Queue>,
        messages: Messages,
    ) -> Self {
        Self {
            connection,
            endpoint,
            queue,
            messages,
            failing: None,
            has_reported_rejection: false,
            has_reported_warning: false,
        }
    }

    /// Sends batches until there are no more.
    pub fn run(mut self) {
        while let Some(batch) = self.queue.next() {
            let rejected = self.deliver(&batch);
            self.queue.sent(rejected, self.failing.is_some());
        }
    }

    /// Sends both bodies of a batch. Returns what the receiver has rejected of it; `None` when the batch is lost,
    /// because one of the bodies was not taken.
    fn deliver(&mut self, batch: &Batch) -> Option<u64> {
        let begun = Instant::now();
        let (mut rejected, mut taken) = (0_u64, Vec::new());
        for (path, body) in [
            (self.endpoint.traces(), &batch.traces),
            (self.endpoint.logs(), &batch.logs),
        ] {
            if let Some(path) = path.filter(|_| !body.is_empty()) {
                rejected = rejected.saturating_add(self.send(&path, body, begun)?);
                taken.push(path);
            }
        }
        self.note_taken(&taken);
        Some(rejected)
    }

    /// Sends a body until it is taken. Returns what the receiver has rejected of it; `None` when the body is lost.
    fn send(&mut self, path: &str, body: &[u8], begun: Instant) -> Option<u64> {
        let body = compressed(body).ok()?;
        let mut pause = PAUSE_MIN;
        loop {
            let over = Instant::now() + EXCHANGE;
            let queue = &self.queue;
            let is_over = || Instant::now() >= over || queue.is_given_up();
            let answer = self.connection.post(path, &body, &is_over);
            let of_path = Failing::Path(path.to_owned());
            let retry_after = match &answer {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    return Some(self.rejected(&answer.body));
                }
                Ok(answer) if matches!(answer.status, 429 | 502 | 503 | 504) => {
                    self.fails(of_path, &said(answer), "it is tried again");
                    answer.retry_after
                }
                Ok(answer) => {
                    self.fails(of_path, &said(answer), "what it refuses is lost");
                    return None;
                }
                Err(error) => {
                    self.fails(Failing::Receiver, error, "it is tried again");
                    None
                }
            };
            let wait = retry_after.map_or_else(|| jittered(pause), |time| time.max(PAUSE_MIN));
            pause = (pause * 2).min(PAUSE_MAX);
            if begun.elapsed().saturating_add(wait) > GIVE_UP || !self.queue.pause(wait) {
                return None;
            }
        }
    }

    /// Notes that the receiver has taken all bodies of a batch, which were for these paths. A failure of a path ends
    /// with a body for it.
    fn note_taken(&mut self, paths: &[String]) {
        let has_ended = match &self.failing {
            Some(Failing::Receiver) => !paths.is_empty(),
            Some(Failing::Path(path)) => paths.contains(path),
            None => false,
        };
        if has_ended {
            self.failing = None;
            let text = format_args!("{} takes records again", self.endpoint);
            self.messages.print(Verbosity::Normal, text);
        }
    }

    /// Returns what was rejected of a body that was taken otherwise. The first rejection is reported, and the first
    /// warning about a body that was taken whole.
    fn rejected(&mut self, body: &[u8]) -> u64 {
        let PartialSuccess { rejected, message } = PartialSuccess::read(body);
        let (endpoint, why) = (&self.endpoint, shortened(&message));
        let is_known = match (rejected, why.as_str()) {
            (0, "") => true,
            (0, _) => std::mem::replace(&mut self.has_reported_warning, true),
            _ => std::mem::replace(&mut self.has_reported_rejection, true),
        };
        if !is_known {
            let text = match rejected {
                0 => format!(
                    "{endpoint} has taken a batch, and says: \"{why}\"; others like it are not reported"
                ),
                _ => format!(
                    "{endpoint} has rejected {rejected} spans or log records of a batch (\"{why}\"); others like it \
                     are only counted"
                ),
            };
            self.messages.print(Verbosity::Normal, text);
        }
        rejected
    }

    /// Notes a failure, and reports it if it is the first one since a batch was taken.
    fn fails(&mut self, what: Failing, why: &dyn Display, then: &str) {
        if self.failing.replace(what).is_none() {
            let text = format_args!("failed to send to {}: {why}: {then}", self.endpoint);
            self.messages.print(Verbosity::Normal, text);
        }
    }
}

/// Returns what the receiver says with a status.
fn said(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    match body.trim() {
        "" => format!("status {}", answer.status),
        body => format!("status {}: \"{}\"", answer.status, shortened(body)),
    }
}

/// Returns the begin of a text of others, on one line.
fn shortened(text: &str) -> String {
    let begin: String = text.chars().take(SAID_CHARS).collect();
    Escaped(&begin).to_string()
}

/// Returns a pause of half this time to one and a half of it, so that many senders do not come at the same time.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 1_001;
    /* It is at most 1,000. */
    pause * (500 + random as u32) / 1_000
}

/// Returns a body, compressed.
fn compressed(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::PAUSE_MIN;
    use super::SAID_CHARS;
    use super::jittered;
    use super::shortened;

    /// Check the limits of a pause, and that two are rarely the same.
    #[test]
    fn pauses() {
        let pauses: Vec<_> = (0..100).map(|_| jittered(PAUSE_MIN)).collect();
        let limits = PAUSE_MIN / 2..=PAUSE_MIN * 3 / 2;
        assert!(pauses.iter().all(|pause| limits.contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }

    /// Check that what a receiver says is on one line, does nothing to a terminal, and is not long.
    #[test]
    fn said() {
        assert_eq!(shortened("a\n\u{202e}\x1b[2J"), r"a\x0a\u{202e}\x1b[2J");
        assert_eq!(shortened(&"é".repeat(1_000)), "é".repeat(SAID_CHARS));
    }
}
