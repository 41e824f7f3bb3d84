// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consumer that writes records as lines.

use std::io;
use std::sync::Arc;
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
use crate::output;
use crate::output::Flushed;
use crate::output::LineKind;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::output::WriteFailure;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::ledger::add;
use crate::pipeline::messages;
use crate::pipeline::records::Consumer;

/// The form of the lines.
pub struct LineSettings {
    /// The format.
    pub format: OutputFormat,
    /// The redaction of query strings.
    pub redaction: Redaction,
    /// The longest line in bytes, its end included. `None`: any length.
    pub line_bytes_max: Option<usize>,
}

/// Writes records as lines of one format.
pub struct Lines {
    /// The encoder of the format.
    sink: Box<dyn Format + Send>,
    settings: LineSettings,
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
            sink: output::encoder(settings.format),
            settings,
            output,
            signals: signals.clone(),
            ledger: Arc::clone(ledger),
            reported: Counts::default(),
            messages,
        }
    }

    /// Appends the line of a record, and writes those that wait when they are enough.
    fn append(
        &mut self,
        kind: LineKind,
        encode: impl FnOnce(&mut dyn Format, &mut Vec<u8>) -> io::Result<()>,
    ) -> Result<()> {
        self.output
            .append(kind, |line| encode(&mut *self.sink, line))?;
        if self.output.is_full() {
            self.write();
        }
        Ok(())
    }

    /// Writes the lines that wait. When SIGUSR1 has come, the rest is written to the new file.
    fn write(&mut self) {
        loop {
            let ledger = &self.ledger;
            let mut has_written = false;
            let flushed = self.output.flush(&self.signals, |kind| {
                if let Some(outcome) = ledger.outcome(kind) {
                    add(&outcome.written, 1);
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
    /// tried again at the next call.
    fn report_losses(&mut self) {
        if self.ledger.has_ended() || self.output.is_unread() {
            return;
        }
        let (counts, reported) = (self.ledger.counts(), self.reported);
        for (cause, count) in counts.since(&reported) {
            let time = Clock::wall_now();
            let lost = Lost { time, count, cause };
            let kind = LineKind::Lost { cause, count };
            let appended = self.output.append(kind, |line| self.sink.lost(line, &lost));
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
                LineKind::Request | LineKind::Blocked => {}
            }
            if let Some(outcome) = self.ledger.outcome(kind) {
                let count = if is_closed {
                    &outcome.late
                } else {
                    &outcome.unwritten
                };
                add(count, 1);
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
        self.settings.redaction.apply(request);
        let max = self.settings.line_bytes_max;
        self.append(LineKind::Request, |sink, line| {
            append_line(sink, line, request, max)
        })
    }

    fn blocked(&mut self, blocked: &mut Blocked<'_>) -> Result<()> {
        let max = self.settings.line_bytes_max;
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
        self.write();
        if self.output.is_closed() {
            self.ledger.end_here();
        }
        self.report_losses();
    }

    fn finish(&mut self) {
        self.write();
        if self.output.is_unread() {
            let given_up = self.output.give_up_unread();
            self.count(given_up, false);
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
    use std::thread;

    use ngx_bpf_record::Blocked;
    use ngx_bpf_record::Connection;
    use ngx_bpf_record::Redaction;
    use ngx_bpf_record::Request;
    use rustix::fs::Mode;

    use super::LineSettings;
    use super::Lines;
    use super::add;
    use crate::host::signals::Signals;
    use crate::host::stderr::Messages;
    use crate::host::stderr::Verbosity;
    use crate::output::Output;
    use crate::output::OutputFormat;
    use crate::pipeline::ledger::Ledger;
    use crate::pipeline::records::Consumer as _;

    /// Returns the consumer that writes to this file.
    fn lines_to(path: &Path, signals: &Signals) -> Lines {
        let settings = LineSettings {
            format: OutputFormat::Json,
            redaction: Redaction::Query,
            line_bytes_max: None,
        };
        Lines::new(
            Output::open(Some(path)).unwrap(),
            settings,
            signals,
            &Arc::new(Ledger::default()),
            Messages::new(Verbosity::Quiet),
        )
    }

    /// Check that the lines of a blocked worker and of a connection are not counted as requests, and that they are
    /// counted as lost when they can't be written, and not as lost requests.
    #[test]
    fn no_requests() {
        for (path, lost) in [("/dev/null", 0), ("/dev/full", 1)] {
            let mut lines = lines_to(Path::new(path), &Signals::default());
            lines.blocked(&mut Blocked::default()).unwrap();
            lines.connection(&mut Connection::default()).unwrap();
            lines.finish();
            let ledger = &lines.ledger;
            assert_eq!(ledger.counts().blocked_lost, lost, "{path}");
            let counts = ledger.counts();
            let connections = (counts.connections.written, counts.connections.lost);
            assert_eq!(connections, (1 - lost, lost), "{path}");
            assert_eq!((counts.lost(), counts.seen), (0, 0));
            assert_eq!(ledger.requests.written.load(Ordering::Relaxed), 0);
            assert_eq!(ledger.is_output_failing.load(Ordering::Relaxed), lost > 0);
        }
    }

    /// Check that requests are redacted, that losses are written once and not counted as written, and
    /// that SIGUSR1 opens the file again after it was moved away.
    #[test]
    fn written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let signals = Signals::default();
        let mut lines = lines_to(&path, &signals);
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
        assert_eq!(lines.ledger.requests.written.load(Ordering::Relaxed), 2);
    }

    /// Check that a loss in a line that was not written is reported by the next one that is written.
    #[test]
    fn reported_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut lines = lines_to(Path::new("/dev/full"), &Signals::default());
        add(&lines.ledger.connections.unwritten, 2);
        lines.connection(&mut Connection::default()).unwrap();
        lines.tick();
        assert_eq!(lines.ledger.counts().connections.lost, 3);
        lines.output = Output::open(Some(&path)).unwrap();
        lines.connection(&mut Connection::default()).unwrap();
        lines.connection(&mut Connection::default()).unwrap();
        lines.finish();
        let text = fs::read_to_string(&path).unwrap();
        let reports: Vec<_> = text.matches("\"connections_lost\":3").collect();
        assert_eq!((reports.len(), text.lines().count()), (1, 2), "{text}");
        assert!(!lines.ledger.is_output_failing.load(Ordering::Relaxed));
    }

    /// Check that records of every kind wait until a FIFO is read, and that none is lost.
    #[test]
    fn unread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        let mut lines = lines_to(&path, &Signals::default());
        lines.request(&mut Request::default()).unwrap();
        lines.connection(&mut Connection::default()).unwrap();
        lines.blocked(&mut Blocked::default()).unwrap();
        lines.tick();
        let reader = path.clone();
        let text = thread::spawn(move || fs::read_to_string(reader).unwrap());
        while lines.output.is_unread() {
            lines.tick();
        }
        lines.finish();
        assert_eq!(lines.ledger.unwritten(), 0);
        drop(lines);
        assert_eq!(text.join().unwrap().lines().count(), 3);
    }
}
