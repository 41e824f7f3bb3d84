// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consumer that writes records as lines.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Format;
use ngx_bpf_record::Lost;
use ngx_bpf_record::Request;
use ngx_bpf_record::append_blocked;
use ngx_bpf_record::append_line;
use ngx_bpf_record::format::otlp::LINE_BYTES;

use crate::counts::Counts;
use crate::decode::clock::Clock;
use crate::host::signals::Signals;
use crate::host::stderr::Messages;
use crate::output::Encoder;
use crate::output::Flushed;
use crate::output::LineKind;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::output::WriteFailure;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::messages;
use crate::pipeline::outcome::Fate;
use crate::pipeline::outcome::Taker;
use crate::pipeline::records::Consumer;

/// The form of the lines.
pub struct LineSettings {
    /// The format.
    pub format: OutputFormat,
    /// The name of the service in spans. `None`: that of a request is its `server_name`.
    pub service: Option<String>,
    /// The longest line in bytes, its end included. `None`: any length.
    pub line_bytes_max: Option<usize>,
}

/// Writes records as lines of one format.
pub struct Lines {
    /// The encoder of the format.
    encoder: Encoder,
    /// The longest line in bytes, its end included. `None`: any length.
    line_bytes_max: Option<usize>,
    /// The output that the lines are written to.
    output: Output,
    /// The state of the signals. They ask for the end, which a reader that does not read must not
    /// delay, and for a new file.
    signals: Signals,
    /// The counts of requests.
    ledger: Arc<Ledger>,
    /// The losses that were written, or that lines which wait report.
    reported: Counts,
    /// The printer of warnings.
    messages: Messages,
}

impl Lines {
    /// Creates the consumer that writes to this output.
    pub fn new(
        output: Output,
        settings: LineSettings,
        signals: &Signals,
        ledger: &Arc<Ledger>,
        messages: Messages,
    ) -> Self {
        Self {
            encoder: Encoder::new(settings.format, settings.service),
            line_bytes_max: settings.line_bytes_max,
            output,
            signals: signals.clone(),
            ledger: Arc::clone(ledger),
            reported: Counts::default(),
            messages,
        }
    }

    /// Appends the line of a record, and writes those that wait when they are enough. A format without lines for
    /// such records does not take it.
    fn append(
        &mut self,
        kind: LineKind,
        encode: impl FnOnce(&mut dyn Format, &mut Vec<u8>) -> io::Result<()>,
    ) -> Result<()> {
        match &mut self.encoder {
            Encoder::Records(format) => {
                self.output
                    .append(kind, |line| encode(&mut **format, line))?;
            }
            Encoder::Batches(_) => {
                if let Some(outcome) = self.ledger.outcome(kind) {
                    outcome.resolve(Taker::Lines, Fate::Unwritten, kind.records());
                }
            }
        }
        self.write_if_full();
        Ok(())
    }

    /// Writes the lines that wait when they are enough.
    fn write_if_full(&mut self) {
        if self.output.is_full() {
            self.write();
        }
    }

    /// Appends the line of the requests that were collected, in a format that collects them.
    fn close_batch(&mut self) {
        if let Encoder::Batches(traces) = &mut self.encoder
            && traces.requests() > 0
        {
            let kind = LineKind::Requests(traces.requests());
            let Ok(()) = self.output.append(kind, |line| {
                traces.write_line(line);
                Ok::<(), Infallible>(())
            });
        }
    }

    /// Writes the lines that wait. When SIGUSR1 has come, the rest is written to the new file.
    fn write(&mut self) {
        loop {
            let ledger = &self.ledger;
            let mut has_written = false;
            let flushed = self.output.flush(&self.signals, |kind| {
                if let Some(outcome) = ledger.outcome(kind) {
                    outcome.resolve(Taker::Lines, Fate::Written, kind.records());
                    has_written = true;
                }
            });
            self.count(flushed, has_written);
            if !self.reopen_if_asked() {
                return;
            }
        }
    }

    /// Writes a line for each cause of new losses, unless the end has come. What can't be written now is
    /// tried again at the next call. In a format without such lines, the first loss of each cause is a message.
    fn report_losses(&mut self) {
        if self.ledger.has_ended() || self.output.is_unread() {
            return;
        }
        let (counts, reported) = (self.ledger.counts(), self.reported);
        for (cause, count) in counts.since(&reported) {
            let time = Clock::wall_now();
            let lost = Lost { time, count, cause };
            let kind = LineKind::Lost { cause, count };
            let appended = match &mut self.encoder {
                Encoder::Records(format) => {
                    self.output.append(kind, |line| format.lost(line, &lost))
                }
                Encoder::Batches(_) => {
                    if reported.lost[cause as usize] == 0 {
                        messages::lost(self.messages, cause);
                    }
                    Ok(())
                }
            };
            if appended.is_ok() {
                self.reported.lost[cause as usize] += count;
            }
        }
        self.write();
    }

    /// Opens the output again if SIGUSR1 has come. Returns whether it has.
    fn reopen_if_asked(&mut self) -> bool {
        if !self.signals.take_reopen() {
            return false;
        }
        match self.output.reopen() {
            Ok(()) if self.output.is_unread() => messages::unread(self.messages),
            Ok(()) => messages::reopened(self.messages),
            Err(error) => self.messages.warn(&error),
        }
        true
    }

    /// Counts the lines that were not written, and reports the first of several failures. The losses in
    /// them are to be reported again. `has_written` says that a record was written: a loss alone, which is
    /// shorter, does not show that the output works again.
    fn count(&mut self, flushed: Flushed, has_written: bool) {
        /* The reader needs no more records: the rest is not lost. */
        let is_closed = matches!(flushed.failure, Some(WriteFailure::Closed));
        for kind in flushed.unwritten {
            match kind {
                LineKind::Connection { lost } => self.reported.connections.lost -= lost,
                LineKind::Lost { cause, count } => self.reported.lost[cause as usize] -= count,
                LineKind::Requests(_) | LineKind::Blocked => {}
            }
            if let Some(outcome) = self.ledger.outcome(kind) {
                let fate = if is_closed {
                    Fate::Late
                } else {
                    Fate::Unwritten
                };
                outcome.resolve(Taker::Lines, fate, kind.records());
            }
        }
        let is_failing = &self.ledger.is_output_failing;
        match flushed.failure {
            Some(WriteFailure::Closed) => self.ledger.end_here(),
            Some(WriteFailure::Stalled) => {}
            Some(WriteFailure::Failed(error)) => {
                let is_known = is_failing.swap(true, Ordering::Relaxed);
                let error = anyhow::Error::from(error).context("failed to write records");
                if !is_known {
                    self.messages.warn(&error);
                }
            }
            None if has_written => is_failing.store(false, Ordering::Relaxed),
            None => {}
        }
    }
}

impl Consumer for Lines {
    fn request(&mut self, request: &mut Request<'_>) -> Result<()> {
        let max = self.line_bytes_max;
        if let Encoder::Batches(traces) = &mut self.encoder {
            traces.add(request)?;
            if traces.bytes() >= LINE_BYTES {
                self.close_batch();
                self.write_if_full();
            }
            return Ok(());
        }
        self.append(LineKind::Requests(1), |sink, line| {
            append_line(sink, line, request, max)
        })
    }

    fn blocked(&mut self, blocked: &mut Blocked<'_>) -> Result<()> {
        let max = self.line_bytes_max;
        self.append(LineKind::Blocked, |sink, line| {
            append_blocked(sink, line, blocked, max)
        })
    }

    fn connection(&mut self, connection: &mut Connection<'_>) -> Result<()> {
        let lost = self.ledger.counts().connections.lost;
        let lost = lost.saturating_sub(self.reported.connections.lost);
        self.reported.connections.lost += lost;
        connection.connections_lost = Some(lost).filter(|lost| *lost > 0);
        self.append(LineKind::Connection { lost }, |sink, line| {
            sink.connection(line, connection)
        })
    }

    fn flush(&mut self) {
        self.write();
    }

    fn tick(&mut self) {
        self.close_batch();
        self.write();
        if self.output.is_closed() {
            self.ledger.end_here();
        }
        self.report_losses();
    }

    fn finish(&mut self) {
        self.close_batch();
        self.write();
        if self.output.is_unread() {
            let given_up = self.output.give_up_unread();
            self.count(given_up, false);
        }
        self.report_losses();
    }
}

#[cfg(test)]
mod tests;
