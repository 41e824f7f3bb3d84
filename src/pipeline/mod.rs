// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf` itself: sets everything up, then hands each record to the output until the end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use crossbeam_channel::Receiver;
use crossbeam_channel::at;
use crossbeam_channel::never;
use crossbeam_channel::select;
use crossbeam_channel::tick;
use ngx_bpf_record::Format;
use ngx_bpf_record::Redaction;
use ngx_bpf_record::append_line;
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::SIGXFSZ;

use crate::attach::kernel;
use crate::cli::Trace;
use crate::cli::hint::hints;
use crate::decode::clock::Clock;
use crate::decode::request::request;
use crate::decode::ring::Collector;
use crate::decode::wire;
use crate::decode::wire::RequestEvent;
use crate::follow::Binaries;
use crate::follow::found::Found;
use crate::host::descriptors;
use crate::host::signals::Signals;
use crate::metrics::Metrics;
use crate::output;
use crate::output::Failure;
use crate::output::Flushed;
use crate::output::Output;
use crate::pipeline::counts::Counts;
use crate::pipeline::filter::Filter;
use crate::pipeline::messages::Messages;
use crate::pipeline::overhead::Cost;
use crate::pipeline::overhead::Meter;

pub mod counts;
pub mod filter;
pub mod messages;
pub mod overhead;

/// How often the counters, the clock and the traced processes are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Traces until the end is asked for, or nothing is left to trace. False when the output has failed,
/// which was said.
pub fn run(cli: &Trace) -> Result<bool> {
    let messages = Messages::new(cli);
    let (stop, stopped) = Signals::take_over()?;
    let reopen = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&reopen))
        .context("failed to handle SIGUSR1")?;
    /* That a file may not grow any more (ulimit -f) is then an error of write(), like a full disk. */
    signal_hook::flag::register(SIGXFSZ, Arc::default()).context("failed to handle SIGXFSZ")?;
    let kernel = kernel::check(cli.sockets)?;
    descriptors::raise();
    let found = Found::read(cli, messages, &stop)?;
    let mut tracing = Tracing {
        cli,
        sink: output::format(cli.format()),
        output: Output::open(cli.output.as_deref())?,
        filter: Filter::new(cli),
        redaction: match cli.no_query {
            true => Redaction::Query,
            false => Redaction::Keys(cli.redact.0.clone()),
        },
        metrics: Metrics::serve(cli)?,
        clock: Clock::now(),
        meter: cli.self_stats.map(Meter::start).transpose()?,
        left: cli.count,
        written: 0,
        filtered: 0,
        late: 0,
        unwritten: 0,
        bad_records: 0,
        told: Counts::default(),
        over: None,
        is_failing: false,
        collector: Collector::new(),
        binaries: Binaries::new(cli, messages),
        stop,
        messages,
    };
    tracing
        .binaries
        .start(found, kernel, &mut tracing.collector)?;
    tracing.tell_hints();
    tracing.stop.after(cli.duration);
    tracing.run(&stopped, &reopen)?;
    tracing.finish()
}

/// Everything between the first record and the last.
struct Tracing<'cli> {
    /// The options.
    cli: &'cli Trace,
    /// The format.
    sink: Box<dyn Format>,
    /// Where the lines go.
    output: Output,
    /// Which requests are told of.
    filter: Filter,
    /// What is told of their query strings.
    redaction: Redaction,
    /// `--metrics`
    metrics: Option<Metrics>,
    /// Read again at every tick.
    clock: Clock,
    /// `--self-stats`
    meter: Option<Meter>,
    /// What is left of `--count`.
    left: Option<u64>,
    /// Requests written.
    written: u64,
    /// Requests that the filter did not let through, besides those that BPF has kept back.
    filtered: u64,
    /// Requests that came after the end: after `--count` was reached, or after the reader has left.
    late: u64,
    /// Requests that could not be written.
    unwritten: u64,
    /// Records that could not be decoded.
    bad_records: u64,
    /// What the stream has told of losses.
    told: Counts,
    /// What BPF had counted when `--count` was reached, or no one read any more: what it counts after
    /// that is no one's loss.
    over: Option<Counts>,
    /// Writing fails, and that was said.
    is_failing: bool,
    /// Reads what is recorded.
    collector: Collector,
    /// What is traced.
    binaries: Binaries<'cli>,
    /// Whether the end was asked for.
    stop: Signals,
    /// What is said on stderr.
    messages: Messages,
}

impl Tracing<'_> {
    /// Until the end is asked for, no one reads any more, or nothing is left to trace.
    fn run(&mut self, stopped: &Receiver<()>, reopen: &AtomicBool) -> Result<()> {
        let ticks = tick(TICK);
        let deadline = self.stop.deadline().map_or_else(never, at);
        let batches = self.collector.batches.clone();
        while self.over.is_none() && !self.stop.is_asked() {
            select! {
                recv(batches) -> batch => match batch {
                    Ok(batch) => self.batch(&batch, batches.is_empty())?,
                    Err(_) => return Ok(()),
                },
                recv(ticks) -> _ => {
                    self.tick();
                    /* finish() tells what a reader failed with. */
                    if !self.binaries.are_alive() || self.collector.has_failed() {
                        return Ok(());
                    }
                }
                recv(deadline) -> _ => return Ok(()),
                recv(stopped) -> _ => return Ok(()),
            }
            if reopen.swap(false, Ordering::Relaxed) {
                self.reopen();
            }
        }
        Ok(())
    }

    /// What is to be known of the options and of the output, once nothing fails any more.
    fn tell_hints(&self) {
        let hints = hints(self.cli, output::is_stdout_pipe());
        hints.iter().for_each(|hint| self.messages.hint(hint));
        if self.output.is_unread() {
            self.messages.unread();
        }
        if self.output.is_public() {
            self.messages
                .hint("everybody may read the output, and requests may hold secrets");
        }
    }

    /// Goes on in a new file of the output's name, once what waits is in the old one.
    fn reopen(&mut self) {
        self.flush();
        match self.output.reopen() {
            Ok(()) if self.output.is_unread() => self.messages.unread(),
            Ok(()) => self.messages.reopened(),
            Err(error) => self.messages.warn(&error),
        }
    }

    /// The records of one batch.
    fn batch(&mut self, mut bytes: &[u8], is_last: bool) -> Result<()> {
        while !bytes.is_empty() {
            let (record, rest) = wire::split(bytes).context("the ring buffer is garbled")?;
            bytes = rest;
            match wire::decode(record) {
                Ok(event) => self.event(&event)?,
                Err(error) => {
                    self.bad_records += 1;
                    self.messages
                        .warn(&error.context("failed to decode a record"));
                }
            }
        }
        if is_last || self.output.is_full() {
            self.flush();
        }
        Ok(())
    }

    /// One record.
    fn event(&mut self, event: &RequestEvent<'_>) -> Result<()> {
        if self.over.is_some() {
            self.late += 1;
            return Ok(());
        }
        let mut request = request(event, self.clock);
        if !self.filter.lets_through(&request) {
            self.filtered += 1;
            return Ok(());
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.request(&request);
        }
        self.redaction.apply(&mut request);
        let max = self.cli.max_line.0;
        append_line(&mut *self.sink, self.output.lines(), &mut request, max)
            .context("failed to encode a record")?;
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                self.end();
            }
        }
        Ok(())
    }

    /// Nothing that comes from now on is asked for.
    fn end(&mut self) {
        if self.over.is_none() {
            self.over = Some(self.binaries.counts());
        }
    }

    /// What is done from time to time.
    fn tick(&mut self) {
        self.clock = Clock::now();
        if self.output.is_unread() {
            self.flush();
        }
        self.tell_losses();
        self.binaries.follow(&mut self.collector);
        if self.meter.as_mut().is_some_and(Meter::is_due) {
            self.tell_cost();
        }
        if let Some(metrics) = &self.metrics {
            metrics.tick(&self.counts(), self.written, self.binaries.alive());
        }
        if self.output.is_closed() {
            self.end();
        }
    }

    /// What is new among the losses goes into the stream.
    fn tell_losses(&mut self) {
        if self.over.is_some() || self.output.is_unread() {
            return;
        }
        let counts = self.counts();
        for lost in counts.since(&self.told, &Clock::wall_now()) {
            self.flush();
            let line = self.sink.lost(self.output.lines(), &lost);
            let flushed = self.output.flush(&self.stop);
            if line.is_err() || flushed.failure.is_some() {
                return;
            }
            self.told.tell(&lost);
        }
        if counts.untraced_processes > self.told.untraced_processes {
            self.messages.untraced(counts.untraced_processes);
        }
        self.told = counts;
    }

    /// What tracing has cost so far.
    fn tell_cost(&self) {
        match Cost::now(self.binaries.runs()) {
            Ok(cost) => self.messages.cost(&cost, self.counts().waiting_max),
            Err(error) => self.messages.warn(&error),
        }
    }

    /// Writes the requests that wait, and counts them.
    fn flush(&mut self) {
        let flushed = self.output.flush(&self.stop);
        self.count(flushed);
    }

    /// Counts what was written, and what was not.
    fn count(&mut self, flushed: Flushed) {
        self.written += flushed.written;
        match flushed.failure {
            /* What no one reads is not lost: the reader has what it wanted. */
            Some(Failure::Closed) => {
                self.late += flushed.unwritten;
                self.end();
            }
            Some(Failure::Stalled) => self.unwritten += flushed.unwritten,
            Some(Failure::Failed(error)) => {
                self.unwritten += flushed.unwritten;
                if !self.is_failing {
                    let error = anyhow::Error::from(error).context("failed to write records");
                    self.messages.warn(&error);
                }
                self.is_failing = true;
            }
            /* With nothing to write nothing is told of the output. */
            None => self.is_failing &= flushed.written == 0,
        }
    }

    /// Detaches, takes what is left, and says how it ended. False when the output has failed, and took
    /// nothing more until the end.
    fn finish(mut self) -> Result<bool> {
        self.binaries.detach();
        self.collector.finish();
        while let Ok(batch) = self.collector.batches.recv() {
            self.batch(&batch, self.collector.batches.is_empty())?;
        }
        let held = self.binaries.take_held();
        self.batch(&held.concat(), true)?;
        self.flush();
        if self.output.is_unread() {
            let given_up = self.output.give_up_unread();
            self.count(given_up);
        }
        let result = self.collector.join();
        self.tell_losses();
        if self.meter.is_some() {
            self.tell_cost();
        }
        if self.is_failing {
            self.messages.unwritten(self.unwritten);
        }
        self.messages.finished(self.written, &self.counts());
        result.map(|()| !self.is_failing)
    }

    /// All counters, BPF's and ours, of what was asked for.
    fn counts(&self) -> Counts {
        let mut counts = self.binaries.counts();
        if let Some(over) = &self.over {
            counts.end_at(over, self.late);
        }
        counts.filtered += self.filtered;
        counts.add_bad_records(self.bad_records);
        counts.add_unwritten(self.unwritten);
        counts
    }
}
