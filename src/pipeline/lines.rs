// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consumer that writes records as lines.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use anyhow::Result;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Format;
use ngx_bpf_record::Lost;
use ngx_bpf_record::Redaction;
use ngx_bpf_record::Request;
use ngx_bpf_record::append_blocked;
use ngx_bpf_record::append_line;

use crate::counts::Counts;
use crate::decode::clock::Clock;
use crate::host::signals::Signals;
use crate::host::stderr::Messages;
use crate::output::Flushed;
use crate::output::Output;
use crate::output::WriteFailure;
use crate::output::count_lines;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::ledger::add;
use crate::pipeline::messages;
use crate::pipeline::records::Consumer;

/// The encoder of a format.
type Encoder = dyn Format + Send;

/// Writes records as lines of one format.
pub struct Lines {
    /// The format of the lines.
    pub sink: Box<Encoder>,
    /// The output that the lines are written to.
    pub output: Output,
    /// The redaction of query strings.
    pub redaction: Redaction,
    /// The longest line in bytes, its end included. `None`: any length.
    pub line_bytes_max: Option<usize>,
    /// The state of the signals. They ask for the end, which a reader that does not read must not
    /// delay, and for a new file.
    pub signals: Signals,
    /// The counts of requests.
    pub ledger: Arc<Ledger>,
    /// The losses that were written.
    pub reported: Counts,
    /// The printer of warnings.
    pub messages: Messages,
}

impl Lines {
    /// Writes all lines that wait.
    fn write_all(&mut self) {
        self.write();
        self.write_connections();
    }

    /// Writes the lines of connections that wait, after those of requests. Where no one reads a FIFO, they are
    /// lost.
    fn write_connections(&mut self) {
        let mut waiting = std::mem::take(self.output.aside());
        let count = count_lines(&waiting);
        if count == 0 {
            return;
        }
        self.write();
        let ledger = Arc::clone(&self.ledger);
        let written = &ledger.written_connections;
        let before = written.load(Ordering::Relaxed);
        if !self.output.is_unread() {
            self.output.lines().append(&mut waiting);
            self.write_aside(written);
        }
        let written = written.load(Ordering::Relaxed) - before;
        let unwritten = count.saturating_sub(written);
        if unwritten > 0 && self.output.is_closed() {
            /* As of requests: the reader needs no more. */
            add(&ledger.late_connections, unwritten);
            return ledger.end_here();
        }
        add(&ledger.unwritten_connections, unwritten);
    }

    /// Writes the lines that wait. When SIGUSR1 has come, the rest is written to the new file.
    fn write(&mut self) {
        loop {
            let flushed = self.output.flush(&self.signals, &self.ledger.written);
            self.count(flushed);
            if !self.reopen_if_asked() {
                return;
            }
        }
    }

    /// Writes a line for each cause of new losses, unless the end has come. What can't be written now is
    /// tried again at the next call.
    fn report_losses(&mut self) {
        if self.ledger.has_ended() {
            return;
        }
        let (counts, reported) = (self.ledger.counts(), self.reported);
        for (cause, count) in counts.since(&reported) {
            let time = Clock::wall_now();
            let lost = Lost { time, count, cause };
            if !self.write_other(|sink, line| sink.lost(line, &lost).is_ok()) {
                return;
            }
            self.reported.note_reported(cause, count);
        }
    }

    /// Writes the lines that wait, and then one that is not of a request. Returns whether it was written.
    fn write_other(&mut self, encode: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> bool) -> bool {
        self.write();
        if self.output.is_unread() {
            return false;
        }
        let is_whole = encode(&mut *self.sink, self.output.lines());
        self.write_aside(&AtomicU64::new(0)) && is_whole
    }

    /// Writes lines that are not counted as requests, and adds them to `written`. Returns whether all were written.
    fn write_aside(&mut self, written: &AtomicU64) -> bool {
        loop {
            let flushed = self.output.flush(&self.signals, written);
            if flushed.failure.is_some() {
                return false;
            }
            if !self.reopen_if_asked() {
                return true;
            }
            if self.output.is_unread() {
                /* The lines would be counted as requests that wait for a reader. */
                self.output.lines().clear();
                return false;
            }
        }
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

    /// Counts the lines that were not written, and reports the first of several failures.
    fn count(&self, flushed: Flushed) {
        let is_failing = &self.ledger.is_output_failing;
        match flushed.failure {
            /* The reader needs no more requests: the rest is not lost. */
            Some(WriteFailure::Closed) => {
                add(&self.ledger.late, flushed.unwritten);
                self.ledger.end_here();
            }
            Some(WriteFailure::Stalled) => add(&self.ledger.unwritten, flushed.unwritten),
            Some(WriteFailure::Failed(error)) => {
                add(&self.ledger.unwritten, flushed.unwritten);
                if !is_failing.swap(true, Ordering::Relaxed) {
                    let error = anyhow::Error::from(error).context("failed to write records");
                    self.messages.warn(&error);
                }
            }
            /* When no line was written, it is not known whether the output works again. */
            None if flushed.written > 0 => is_failing.store(false, Ordering::Relaxed),
            None => {}
        }
    }
}

impl Consumer for Lines {
    fn request(&mut self, request: &mut Request<'_>) -> Result<()> {
        self.redaction.apply(request);
        let lines = self.output.lines();
        append_line(&mut *self.sink, lines, request, self.line_bytes_max)?;
        if self.output.is_full() {
            self.write();
        }
        Ok(())
    }

    fn blocked(&mut self, blocked: &mut Blocked<'_>) {
        let max = self.line_bytes_max;
        if !self.write_other(|sink, line| append_blocked(sink, line, blocked, max).is_ok()) {
            add(&self.ledger.blocked_unwritten, 1);
        }
    }

    fn connection(&mut self, connection: &mut Connection<'_>) -> Result<()> {
        let lost = self.ledger.counts().connections.lost;
        let reported = std::mem::replace(&mut self.reported.connections.lost, lost);
        connection.connections_lost = Some(lost.saturating_sub(reported)).filter(|lost| *lost > 0);
        self.sink.connection(self.output.aside(), connection)?;
        if self.output.is_full() {
            self.write_all();
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.write_all();
    }

    fn tick(&mut self) {
        self.write_all();
        if self.output.is_closed() {
            self.ledger.end_here();
        }
        self.report_losses();
    }

    fn finish(&mut self) {
        self.write_all();
        if self.output.is_unread() {
            let given_up = self.output.give_up_unread();
            self.count(given_up);
        }
        self.report_losses();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use ngx_bpf_record::Blocked;
    use ngx_bpf_record::Connection;
    use ngx_bpf_record::Redaction;
    use ngx_bpf_record::Request;

    use super::Lines;
    use super::add;
    use crate::counts::Counts;
    use crate::host::signals::Signals;
    use crate::host::stderr::Messages;
    use crate::host::stderr::Verbosity;
    use crate::output;
    use crate::output::Output;
    use crate::output::OutputFormat;
    use crate::pipeline::ledger::Ledger;
    use crate::pipeline::records::Consumer as _;

    /// Check that the lines of a blocked worker and of a connection are not counted as requests, and that they are
    /// counted as lost when they can't be written, and not as lost requests.
    #[test]
    fn no_requests() {
        for (path, lost) in [("/dev/null", 0), ("/dev/full", 1)] {
            let mut lines = Lines {
                sink: output::encoder(OutputFormat::Json),
                output: Output::open(Some(Path::new(path))).unwrap(),
                redaction: Redaction::Query,
                line_bytes_max: None,
                signals: Signals::default(),
                ledger: Arc::new(Ledger::default()),
                reported: Counts::default(),
                messages: Messages::new(Verbosity::Quiet),
            };
            lines.blocked(&mut Blocked::default());
            lines.connection(&mut Connection::default()).unwrap();
            lines.finish();
            let ledger = &lines.ledger;
            assert_eq!(ledger.counts().blocked_lost, lost, "{path}");
            let counts = ledger.counts();
            let connections = (counts.connections.written, counts.connections.lost);
            assert_eq!(connections, (1 - lost, lost), "{path}");
            assert_eq!((counts.lost(), counts.seen), (0, 0));
            assert_eq!(ledger.written.load(Ordering::Relaxed), 0);
        }
    }

    /// Check that requests are redacted, that losses are written once and not counted as written, and
    /// that SIGUSR1 opens the file again after it was moved away.
    #[test]
    fn written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let signals = Signals::default();
        let mut lines = Lines {
            sink: output::encoder(OutputFormat::Json),
            output: Output::open(Some(&path)).unwrap(),
            redaction: Redaction::Query,
            line_bytes_max: None,
            signals: signals.clone(),
            ledger: Arc::new(Ledger::default()),
            reported: Counts::default(),
            messages: Messages::new(Verbosity::Quiet),
        };
        let mut request = Request {
            request_uri: Some("/a?b=secret".into()),
            ..Default::default()
        };
        lines.request(&mut request).unwrap();
        add(&lines.ledger.bad_records, 2);
        lines.tick();
        fs::rename(&path, &moved).unwrap();
        signals.ask_for_reopen();
        lines.tick();
        lines.request(&mut request).unwrap();
        lines.finish();
        let old = fs::read_to_string(&moved).unwrap();
        assert_eq!(old.lines().count(), 2);
        assert!(old.contains("\"/a\"") && !old.contains("secret"), "{old}");
        assert!(
            old.contains("\"count\":2") && old.contains("bad_read"),
            "{old}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert_eq!(lines.ledger.written.load(Ordering::Relaxed), 2);
    }
}
