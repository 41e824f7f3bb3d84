// SPDX-License-Identifier: MIT OR Apache-2.0
//! The consumer that writes records as lines.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use anyhow::Result;

use crate::host::signals::Signals;
use crate::host::stderr::Messages;
use crate::output::Flushed;
use crate::output::Output;
use crate::output::WriteFailure;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::ledger::add;
use crate::pipeline::messages;
use crate::pipeline::records::Consumer;
use ngx_bpf_record::Format;
use ngx_bpf_record::Lost;
use ngx_bpf_record::Redaction;
use ngx_bpf_record::Request;
use ngx_bpf_record::append_line;

/// Writes records as lines of one format.
pub struct Lines {
    /// The format.
    pub sink: Box<dyn Format + Send>,
    /// Where the lines go.
    pub output: Output,
    /// What is removed from query strings.
    pub redaction: Redaction,
    /// The longest line in bytes, its end included. `None`: any length.
    pub line_bytes_max: Option<usize>,
    /// Asks for the end, which a reader that stalls can't hold up, and for a new file.
    pub signals: Signals,
    /// Where requests are counted.
    pub ledger: Arc<Ledger>,
    /// Where warnings go.
    pub messages: Messages,
}

impl Lines {
    /// Writes what waits. When SIGUSR1 has come, what is left goes to the new file.
    fn write(&mut self) {
        loop {
            let flushed = self.output.flush(&self.signals, &self.ledger.written);
            self.count(flushed);
            if !self.signals.take_reopen() {
                return;
            }
            match self.output.reopen() {
                Ok(()) if self.output.is_unread() => messages::unread(self.messages),
                Ok(()) => messages::reopened(self.messages),
                Err(error) => self.messages.warn(&error),
            }
        }
    }

    /// Counts what was not written, and reports the first failure of several.
    fn count(&self, flushed: Flushed) {
        let is_failing = &self.ledger.is_output_failing;
        match flushed.failure {
            /* The reader has what it wanted: the rest is not lost. */
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
            /* Writing nothing says nothing about whether the output works. */
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

    fn lost(&mut self, lost: &Lost) -> bool {
        if self.output.is_unread() {
            return false;
        }
        self.write();
        let line = self.sink.lost(self.output.lines(), lost);
        /* Only requests are counted. */
        let flushed = self.output.flush(&self.signals, &AtomicU64::new(0));
        line.is_ok() && flushed.failure.is_none()
    }

    fn flush(&mut self) {
        self.write();
    }

    fn tick(&mut self) {
        self.write();
        if self.output.is_closed() {
            self.ledger.end_here();
        }
    }

    fn finish(&mut self) {
        self.write();
        if self.output.is_unread() {
            let given_up = self.output.give_up_unread();
            self.count(given_up);
        }
    }
}
