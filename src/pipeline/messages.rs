// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said on stderr: one line when tracing has started, one at its end, warnings between.

use std::fmt::Display;

use crate::bpf::types::limit;
use crate::cli::Trace;
use crate::follow::program::Program;
use crate::host::stderr;
use crate::host::stderr::Patience;
use crate::output::escape::Line;
use crate::pipeline::counts::Counts;
use crate::pipeline::overhead::Cost;
use nginx_binary::sites::Hook;
use nginx_binary::sites::Hooks;
use nginx_binary::version::Version;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// `-q`
    Errors,
    /// Without an option.
    Normal,
    /// `-v`
    Verbose,
}

/// The one way to stderr.
#[derive(Clone, Copy, Debug)]
pub struct Messages(Level);

impl Messages {
    /// From the options.
    pub fn new(cli: &Trace) -> Self {
        Self(match (cli.quiet, cli.verbose) {
            (true, _) => Level::Errors,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        })
    }

    /// Tracing has started.
    pub fn started(self, version: Version, pid: u32, workers: usize) {
        let plural = if workers == 1 { "" } else { "s" };
        self.say(
            Level::Normal,
            format_args!("tracing nginx {version}, pid {pid}, {workers} worker{plural}"),
        );
    }

    /// The new master of an upgrade is traced; it may have served before.
    pub fn upgraded(self, pid: u32) {
        self.say(
            Level::Normal,
            format_args!("nginx was upgraded: what pid {pid} served until now was not seen"),
        );
    }

    /// Where probes are put, and what these can't tell.
    pub fn hooks(self, hooks: &Hooks) {
        for hook in &hooks.places {
            self.hook(hook);
        }
        if let Some(lack) = &hooks.lack {
            self.say(Level::Verbose, format_args!("{lack}"));
        }
    }

    /// Where a probe is put.
    fn hook(self, hook: &Hook) {
        let how = if hook.emulated {
            "emulated"
        } else {
            "single-stepped"
        };
        self.say(
            Level::Verbose,
            format_args!(
                "probe on {}+{}, {}, {how}",
                hook.function, hook.entry_offset, hook.instruction
            ),
        );
    }

    /// The layout of a binary was chosen by how it fits.
    pub fn inferred(self, program: &Program) {
        self.say(
            Level::Normal,
            format_args!(
                "{} is not known: its layout is inferred from its code, which agrees in all {} \
                 members that were asked for",
                program.build,
                program.layout.fit.asked()
            ),
        );
    }

    /// No nginx runs yet.
    pub fn waiting(self) {
        self.say(Level::Normal, "waiting for nginx to start");
    }

    /// The output is a FIFO, and has no reader.
    pub fn unread(self) {
        self.say(
            Level::Normal,
            "no one reads the output, a FIFO: records wait until somebody does",
        );
    }

    /// The output was opened again.
    pub fn reopened(self) {
        self.say(Level::Verbose, "reopened the output");
    }

    /// What was asked for may not be what was meant.
    pub fn hint(self, hint: &str) {
        self.say(Level::Normal, hint);
    }

    /// Something went wrong, and tracing goes on.
    pub fn warn(self, error: &anyhow::Error) {
        self.say(Level::Normal, format_args!("{error:#}"));
    }

    /// Workers that are not traced.
    pub fn untraced(self, processes: u64) {
        self.say(
            Level::Normal,
            format_args!("{processes} new processes are not traced: no memory for them"),
        );
    }

    /// What tracing has cost so far.
    pub fn cost(self, cost: &Cost, waiting_max: u64) {
        for (program, runs) in &cost.programs {
            let each = runs.time_ns.checked_div(runs.hits).unwrap_or_default();
            self.say(
                Level::Normal,
                format_args!("{program}: {} hits, {each} ns each", runs.hits),
            );
        }
        self.say(
            Level::Normal,
            format_args!(
                "this process: {:.3} s of cpu, {:.1} MiB resident; ring buffer: at most {} KiB \
                 of {} KiB used",
                cost.cpu.as_secs_f64(),
                cost.resident as f64 / f64::from(1 << 20),
                waiting_max >> 10,
                limit::RING_BYTES.0 >> 10,
            ),
        );
    }

    /// Tracing has ended. What was seen is what was written, filtered or lost.
    pub fn finished(self, written: u64, counts: &Counts) {
        let (lost, seen, filtered) = (counts.lost(), counts.seen, counts.filtered);
        let plural = if written == 1 { "" } else { "s" };
        if self.0 >= Level::Normal {
            stderr::say(
                format_args!(
                    "{written} request{plural}, {lost} lost ({seen} seen, {filtered} filtered)"
                ),
                Patience::Long,
            );
        }
    }

    /// The output has failed, and nothing went out until the end.
    pub fn unwritten(self, requests: u64) {
        let plural = if requests == 1 { "" } else { "s" };
        stderr::say(
            format_args!("the output failed to the end: {requests} request{plural} not written"),
            Patience::Long,
        );
    }

    /// One line, now or not at all.
    fn say(self, level: Level, what: impl Display) {
        if self.0 >= level {
            stderr::say(Line(what), Patience::None);
        }
    }
}
