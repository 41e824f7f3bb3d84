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

/// Sends batches, one after the other.
pub struct Sender {
    connection: Connection,
    endpoint: Endpoint,
    queue: Arc<Queue>,
    messages: Messages,
    /// Whether the last try has failed, which was reported.
    is_failing: bool,
    /// Whether a partial success was reported.
    has_reported_partial: bool,
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
            is_failing: false,
            has_reported_partial: false,
        }
    }

    /// Sends batches until there are no more.
    pub fn run(mut self) {
        while let Some(batch) = self.queue.next() {
            let lost = self.deliver(&batch);
            self.queue.sent(lost);
        }
    }

    /// Sends both bodies of a batch. Returns the number of records that the receiver has not taken: all of them when it
    /// has not taken one of the bodies.
    fn deliver(&mut self, batch: &Batch) -> u64 {
        let begun = Instant::now();
        let mut lost: u64 = 0;
        for (path, body) in [
            (self.endpoint.traces(), &batch.traces),
            (self.endpoint.logs(), &batch.logs),
        ] {
            if let Some(path) = path.filter(|_| !body.is_empty()) {
                match self.send(&path, body, begun) {
                    Some(rejected) => lost = lost.saturating_add(rejected),
                    None => return u64::MAX,
                }
            }
        }
        lost
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
            let retry_after = match &answer {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    return Some(self.taken(&answer.body));
                }
                Ok(answer) if matches!(answer.status, 429 | 502 | 503 | 504) => {
                    self.failing(&said(answer), "it is tried again");
                    answer.retry_after
                }
                Ok(answer) => {
                    self.failing(&said(answer), "what it refuses is lost");
                    return None;
                }
                Err(error) => {
                    self.failing(error, "it is tried again");
                    None
                }
            };
            let wait = retry_after.unwrap_or_else(|| jittered(pause));
            pause = (pause * 2).min(PAUSE_MAX);
            if begun.elapsed().saturating_add(wait) > GIVE_UP || !self.queue.pause(wait) {
                return None;
            }
        }
    }

    /// Notes that a body was taken. Returns what was rejected of it, the first time with a message.
    fn taken(&mut self, body: &[u8]) -> u64 {
        if std::mem::take(&mut self.is_failing) {
            let text = format_args!("{} takes records again", self.endpoint);
            self.messages.print(Verbosity::Normal, text);
        }
        let partial = PartialSuccess::read(body);
        if partial != PartialSuccess::default() && !self.has_reported_partial {
            self.has_reported_partial = true;
            let (count, why) = (partial.rejected, shortened(&partial.message));
            let endpoint = &self.endpoint;
            let text = format_args!(
                "{endpoint} has rejected {count} records of a batch (\"{why}\"); others like it are only counted"
            );
            self.messages.print(Verbosity::Normal, text);
        }
        partial.rejected
    }

    /// Reports a failure, if it is the first one since a body was taken.
    fn failing(&mut self, why: &dyn Display, then: &str) {
        if !self.is_failing {
            self.is_failing = true;
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
    begin.escape_debug().to_string()
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
    use super::jittered;

    /// Check the limits of a pause, and that two are rarely the same.
    #[test]
    fn pauses() {
        let pauses: Vec<_> = (0..100).map(|_| jittered(PAUSE_MIN)).collect();
        let limits = PAUSE_MIN / 2..=PAUSE_MIN * 3 / 2;
        assert!(pauses.iter().all(|pause| limits.contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
