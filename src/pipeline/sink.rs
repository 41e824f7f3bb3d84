// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of the pipeline: a file, stdout, or a view.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::host::signals::Signals;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;
use crate::output::Output;
use crate::output::OutputFormat;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::lines::LineSettings;
use crate::pipeline::lines::Lines;
use crate::pipeline::messages;
use crate::pipeline::records::Consumer;
use crate::pipeline::view::Shown;
use crate::pipeline::view::View;

/// What takes the records.
pub enum Sink {
    /// A file, or stdout.
    Lines(LineOutput),
    /// A view.
    View(View),
}

/// Where lines go, and their form.
#[derive(Debug)]
pub struct LineOutput {
    /// The format of the lines.
    pub format: OutputFormat,
    /// The name of the service in spans. `None`: that of a request is its `server_name`.
    pub service: Option<String>,
    /// The file that lines are appended to. `None`: stdout.
    pub output: Option<PathBuf>,
    /// The longest line in bytes, its end included. `None`: any length.
    pub line_bytes_max: Option<usize>,
}

impl Sink {
    /// Returns whether a file is opened, and opened again.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::Lines(lines) if lines.output.is_some())
    }

    /// Opens the output, and returns the consumer that takes the records.
    pub fn open(
        self,
        signals: &Signals,
        ledger: &Arc<Ledger>,
        messages: Messages,
    ) -> Result<(Box<dyn Consumer>, OutputState)> {
        let lines = match self {
            Self::Lines(lines) => lines,
            Self::View(view) => {
                let shown = Shown::new(view, ledger);
                return Ok((Box::new(shown), OutputState::default()));
            }
        };
        let output = Output::open(lines.output.as_deref())?;
        let state = OutputState {
            is_unread: output.is_unread(),
            is_public: output.is_public(),
        };
        let settings = LineSettings {
            format: lines.format,
            service: lines.service,
            line_bytes_max: lines.line_bytes_max,
        };
        let lines = Lines::new(output, settings, signals, ledger, messages);
        Ok((Box::new(lines), state))
    }
}

/// What is to be said of the output when tracing has begun.
#[derive(Clone, Copy, Default)]
pub struct OutputState {
    /// It is a FIFO without a reader.
    is_unread: bool,
    /// Everybody may read it.
    is_public: bool,
}

/// Prints hints about the settings and the output.
pub fn print_hints(hints: &[String], state: OutputState, messages: Messages) {
    for hint in hints {
        messages.print(Verbosity::Normal, hint);
    }
    if state.is_unread {
        messages::unread(messages);
    }
    if state.is_public {
        messages.print(
            Verbosity::Normal,
            "everybody may read the output, and requests may hold secrets",
        );
    }
}
