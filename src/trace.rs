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
use libbpf_rs::btf::Btf;
use signal_hook::consts::SIGUSR1;

use crate::cli::Trace;
use crate::clock::Clock;
use crate::collect::Collector;
use crate::discover;
use crate::event;
use crate::event::RequestEvent;
use crate::filter::Filter;
use crate::lost::Counts;
use crate::message::Messages;
use crate::output;
use crate::output::Failure;
use crate::output::Output;
use crate::output::Sink;
use crate::preflight;
use crate::probe::Probe;
use crate::probe::Storage;
use crate::program::Program;
use crate::request::Request;
use crate::stop::Stop;

/// How often the counters, the clock and the traced processes are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Traces until the end is asked for, or nothing is left to trace.
pub fn run(cli: &Trace) -> Result<()> {
    let messages = Messages::new(cli);
    let (mut stop, stopped) = Stop::on_signals()?;
    let reopen = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&reopen))
        .context("failed to handle SIGUSR1")?;
    let kernel = preflight::check()?;
    let programs = Program::all(discover::targets(&cli.pids)?, &cli.layout)?;
    let output = Output::open(cli.output.as_deref())?;

    let mut storages: Vec<[Storage; 2]> = programs
        .iter()
        .map(|_| [Storage::uninit(), Storage::uninit()])
        .collect();
    let mut probes = Vec::new();
    for (program, storage) in programs.iter().zip(&mut storages) {
        probes.push(attach(program, storage, &kernel, &messages)?);
    }
    drop(kernel);
    let rings = probes.iter().map(Probe::events).collect::<Result<_>>()?;
    let collector = Collector::start(rings)?;
    probes.iter_mut().for_each(Probe::activate);
    stop.after(cli.duration);
    for (program, probe) in programs.iter().zip(&probes) {
        for target in &program.targets {
            let workers = probe.follow(&target.process)?;
            messages.started(program.build.version, target.process.pid, workers);
        }
    }

    let mut tracing = Tracing {
        sink: output::sink(cli.format()),
        filter: Filter::new(cli),
        clock: Clock::now(),
        count: cli.count,
        written: 0,
        filtered: 0,
        unwritten: 0,
        bad_records: 0,
        told: Counts::default(),
        is_over: false,
        is_failing: false,
        output,
        probes,
        stop,
        messages,
    };
    tracing.run(&collector.batches, &stopped, &programs, &reopen)?;
    tracing.finish(collector)
}

/// Loads and attaches the probes of one binary.
fn attach<'obj>(
    program: &Program,
    storage: &'obj mut [Storage; 2],
    kernel: &Btf<'_>,
    messages: &Messages,
) -> Result<Probe<'obj>> {
    for hook in program.hooks.iter() {
        messages.hook(hook);
    }
    let Program {
        binary,
        layout,
        hooks,
        ..
    } = program;
    Probe::new(storage, kernel, layout, binary, hooks)
        .with_context(|| format!("failed to trace {}", program.shown()))
}

/// Everything between the first record and the last.
struct Tracing<'obj> {
    /// The format.
    sink: Box<dyn Sink>,
    /// Which requests are told of.
    filter: Filter,
    /// Read again at every tick.
    clock: Clock,
    /// `--count`
    count: Option<u64>,
    /// Requests written.
    written: u64,
    /// Requests that the filter did not let through, or that came behind `--count`.
    filtered: u64,
    /// Requests that could not be written.
    unwritten: u64,
    /// Records that could not be decoded.
    bad_records: u64,
    /// What the stream has told of losses.
    told: Counts,
    /// `--count` is reached, or nobody reads any more.
    is_over: bool,
    /// Writing fails, and that was said.
    is_failing: bool,
    /// Where the lines go.
    output: Output,
    /// What is traced.
    probes: Vec<Probe<'obj>>,
    /// Whether the end was asked for.
    stop: Stop,
    /// What is said on stderr.
    messages: Messages,
}

impl Tracing<'_> {
    /// Until the end is asked for, nobody reads any more, or every traced process has ended.
    fn run(
        &mut self,
        batches: &Receiver<Vec<u8>>,
        stopped: &Receiver<()>,
        programs: &[Program],
        reopen: &AtomicBool,
    ) -> Result<()> {
        let ticks = tick(TICK);
        let deadline = self.stop.deadline().map_or_else(never, at);
        while !self.is_over && !self.stop.is_asked() {
            select! {
                recv(batches) -> batch => match batch {
                    Ok(batch) => self.batch(&batch, batches.is_empty())?,
                    /* The reader failed: finish() tells with what. */
                    Err(_) => return Ok(()),
                },
                recv(ticks) -> _ => {
                    self.tick();
                    if !programs.iter().any(Program::is_alive) {
                        return Ok(());
                    }
                }
                recv(deadline) -> _ => return Ok(()),
                recv(stopped) -> _ => return Ok(()),
            }
            if reopen.swap(false, Ordering::Relaxed) {
                self.flush();
                match self.output.reopen() {
                    Ok(()) => self.messages.reopened(),
                    Err(error) => self.messages.warn(&error),
                }
            }
        }
        Ok(())
    }

    /// The records of one batch.
    fn batch(&mut self, mut bytes: &[u8], is_last: bool) -> Result<()> {
        while !bytes.is_empty() {
            let (record, rest) = event::split(bytes).context("the ring buffer is garbled")?;
            bytes = rest;
            match event::decode(record) {
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
        let request = Request::new(event, self.clock);
        if self.is_over || !self.filter.lets_through(&request) {
            self.filtered += 1;
            return Ok(());
        }
        self.sink.request(self.output.lines(), &request)?;
        if let Some(count) = &mut self.count {
            *count -= 1;
            self.is_over = *count == 0;
        }
        Ok(())
    }

    /// What is done from time to time.
    fn tick(&mut self) {
        self.clock = Clock::now();
        self.tell_losses();
        if self.output.is_closed() {
            self.is_over = true;
        }
    }

    /// What is new among the losses goes into the stream.
    fn tell_losses(&mut self) {
        let counts = self.counts();
        if counts == self.told || self.is_over {
            return;
        }
        self.flush();
        for lost in counts.since(&self.told, &Clock::wall_now()) {
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

    /// Writes the requests that wait, and counts them.
    fn flush(&mut self) {
        let flushed = self.output.flush(&self.stop);
        self.written += flushed.written;
        match flushed.failure {
            /* What nobody reads is not lost: the reader has what it wanted. */
            Some(Failure::Closed) => {
                self.filtered += flushed.unwritten;
                self.is_over = true;
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
            None => self.is_failing = false,
        }
    }

    /// Detaches, takes what is left, and says how it ended.
    fn finish(mut self, collector: Collector) -> Result<()> {
        self.probes.iter_mut().for_each(Probe::detach);
        collector.finish();
        while let Ok(batch) = collector.batches.recv() {
            self.batch(&batch, collector.batches.is_empty())?;
        }
        self.flush();
        let result = collector.join();
        self.tell_losses();
        let counts = self.counts();
        self.messages.finished(self.written, self.filtered, &counts);
        result
    }

    /// All counters, BPF's and ours.
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for probe in &self.probes {
            probe.count(&mut counts);
        }
        counts.add_bad_records(self.bad_records);
        counts.add_unwritten(self.unwritten);
        counts
    }
}
