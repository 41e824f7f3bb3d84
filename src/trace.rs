// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf` itself: sets everything up, then hands each record to the output until the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use crossbeam_channel::Receiver;
use crossbeam_channel::at;
use crossbeam_channel::never;
use crossbeam_channel::select;
use crossbeam_channel::tick;
use signal_hook::consts::SIGUSR1;

use crate::cli::Trace;
use crate::clock::Clock;
use crate::collect::Collector;
use crate::cost::Cost;
use crate::cost::Meter;
use crate::discover;
use crate::discover::Process;
use crate::discover::Target;
use crate::event;
use crate::event::RequestEvent;
use crate::filter::Early;
use crate::filter::Filter;
use crate::lost::Counts;
use crate::message::Messages;
use crate::metrics::Metrics;
use crate::output;
use crate::output::Failure;
use crate::output::Output;
use crate::output::Sink;
use crate::preflight;
use crate::preflight::Kernel;
use crate::probe::Probe;
use crate::program::Program;
use crate::program::by_binary;
use crate::redaction::Redaction;
use crate::request::Request;
use crate::source::Source;
use crate::stop::Stop;

/// How often the counters, the clock and the traced processes are looked at.
const TICK: Duration = Duration::from_millis(100);

/// How often `--wait` looks for an nginx that has started.
const WAIT: Duration = Duration::from_millis(500);

/// Traces until the end is asked for, or nothing is left to trace.
pub fn run(cli: &Trace) -> Result<()> {
    let messages = Messages::new(cli);
    let (stop, stopped) = Stop::on_signals()?;
    let reopen = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&reopen))
        .context("failed to handle SIGUSR1")?;
    let kernel = preflight::check(cli.sockets)?;
    let (programs, refused) = if cli.wait && discover::masters()?.is_empty() {
        messages.waiting();
        Default::default()
    } else {
        programs(cli)?
    };
    let mut tracing = Tracing {
        cli,
        sink: output::sink(cli.format()),
        output: Output::open(cli.output.as_deref())?,
        filter: Filter::new(cli),
        redaction: Redaction::new(cli),
        metrics: Metrics::serve(cli)?,
        clock: Clock::now(),
        meter: cli.self_stats.map(Meter::start).transpose()?,
        count: cli.count,
        written: 0,
        filtered: 0,
        unwritten: 0,
        bad_records: 0,
        told: Counts::default(),
        is_over: false,
        is_failing: false,
        collector: Collector::new(),
        traced: Vec::new(),
        passed_over: Vec::new(),
        looked: Instant::now(),
        stop,
        messages,
    };
    for (pids, error) in refused {
        tracing.pass_over(&pids, &error);
    }
    for program in programs {
        tracing.attach(program, &kernel)?;
    }
    drop(kernel);
    give_back_memory();
    for n in 0..tracing.traced.len() {
        tracing.activate(n)?;
    }
    tracing.stop.after(cli.duration);
    tracing.run(&stopped, &reopen)?;
    tracing.finish()
}

/// Set-up takes ten times the memory of tracing: the allocator would keep it.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Processes that can't be traced, and why.
type Refused = (Vec<u32>, anyhow::Error);

/// What is asked for. Of what was found without being asked for, one that can't be traced does not
/// stand in the way of the others, nor of those that are waited for.
fn programs(cli: &Trace) -> Result<(Vec<Program>, Vec<Refused>)> {
    let mut programs = Vec::new();
    let mut refused = Vec::new();
    for targets in by_binary(discover::targets(&cli.pids)?) {
        let pids = targets.iter().map(|target| target.process.pid).collect();
        match Program::read(targets, &cli.layout) {
            Ok(program) => programs.push(program),
            Err(error) if !cli.pids.is_empty() => return Err(error),
            Err(error) => refused.push((pids, error)),
        }
    }
    if programs.is_empty()
        && !cli.wait
        && let Some((_, error)) = refused.pop()
    {
        return Err(error);
    }
    Ok((programs, refused))
}

/// One nginx binary, and its probes.
struct Traced {
    /// What is known of it, and its processes.
    program: Program,
    /// Attached to it.
    probe: Probe,
}

/// What a new master runs.
enum Binary {
    /// One that is traced already.
    Known,
    /// One that was not.
    New,
}

/// Everything between the first record and the last.
struct Tracing<'cli> {
    /// The options.
    cli: &'cli Trace,
    /// The format.
    sink: Box<dyn Sink>,
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
    /// `--count`
    count: Option<u64>,
    /// Requests written.
    written: u64,
    /// Requests that the filter did not let through, or that came behind `--count`, besides those
    /// that BPF has kept back.
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
    /// Reads what is recorded.
    collector: Collector,
    /// What is traced.
    traced: Vec<Traced>,
    /// Masters that can't be traced, which was said.
    passed_over: Vec<Process>,
    /// When it was last looked for a master that has started.
    looked: Instant,
    /// Whether the end was asked for.
    stop: Stop,
    /// What is said on stderr.
    messages: Messages,
}

impl Tracing<'_> {
    /// Loads and attaches the probes of one binary. Nothing is traced yet.
    fn attach(&mut self, program: Program, kernel: &Kernel) -> Result<()> {
        for hook in &program.hooks {
            self.messages.hook(hook);
        }
        if program.layout.source == Source::Inferred {
            self.messages.inferred(&program);
        }
        let probe = Probe::new(kernel, &program, &Early::from(self.cli))
            .with_context(|| format!("failed to trace {}", program.shown()))?;
        self.collector.add(probe.events()?)?;
        self.traced.push(Traced { program, probe });
        Ok(())
    }

    /// Starts to trace the processes of the nth binary.
    fn activate(&mut self, n: usize) -> Result<()> {
        let Traced { program, probe } = &mut self.traced[n];
        probe.activate();
        for target in &program.targets {
            let workers = probe.follow(&target.process)?;
            self.messages
                .started(program.build.version, target.process.pid, workers);
        }
        Ok(())
    }

    /// Until the end is asked for, nobody reads any more, or nothing is left to trace.
    fn run(&mut self, stopped: &Receiver<()>, reopen: &AtomicBool) -> Result<()> {
        let ticks = tick(TICK);
        let deadline = self.stop.deadline().map_or_else(never, at);
        let batches = self.collector.batches.clone();
        while !self.is_over && !self.stop.is_asked() {
            select! {
                recv(batches) -> batch => match batch {
                    Ok(batch) => self.batch(&batch, batches.is_empty())?,
                    Err(_) => return Ok(()),
                },
                recv(ticks) -> _ => {
                    self.tick();
                    /* finish() tells what a reader failed with. */
                    if !self.is_alive() || self.collector.has_failed() {
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

    /// Whether a traced process has not ended, or one may come.
    fn is_alive(&self) -> bool {
        self.cli.wait || self.traced.iter().any(|traced| traced.program.is_alive())
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
        let mut request = Request::new(event, self.clock);
        if self.is_over || !self.filter.lets_through(&request) {
            self.filtered += 1;
            return Ok(());
        }
        if let Some(metrics) = &mut self.metrics {
            metrics.request(&request);
        }
        self.redaction.apply(&mut request);
        let max = self.cli.max_line.0;
        output::append_line(&mut *self.sink, self.output.lines(), &mut request, max)?;
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
        self.follow_upgrades();
        if self.cli.wait && self.looked.elapsed() >= WAIT {
            if let Err(error) = self.follow_started() {
                self.messages.warn(&error);
            }
            self.looked = Instant::now();
        }
        if self.meter.as_mut().is_some_and(Meter::is_due) {
            self.tell_cost();
        }
        if let Some(metrics) = &self.metrics {
            let counts = self.counts();
            let filtered = self.filtered + counts.filtered;
            let alive = self.traced.iter().filter(|t| t.program.is_alive()).count();
            metrics.tick(&counts, self.written, filtered, alive);
        }
        if self.output.is_closed() {
            self.is_over = true;
        }
    }

    /// nginx replaces its binary by starting the new one from the old master: the new master and
    /// its workers are traced, too, with a layout of their own.
    fn follow_upgrades(&mut self) {
        while let Some(pid) = self.traced.iter().find_map(|t| t.probe.upgraded()) {
            match self.follow_master(pid) {
                Ok(Binary::Known) => {}
                Ok(Binary::New) => self.messages.upgraded(pid),
                Err(error) => {
                    let what = format!("failed to follow the upgrade of nginx to pid {pid}");
                    self.pass_over(&[pid], &error.context(what));
                }
            }
        }
    }

    /// Traces the masters that have started since.
    fn follow_started(&mut self) -> Result<()> {
        let masters = discover::masters()?;
        /* The master of an upgrade was executed before it could be listed. */
        self.follow_upgrades();
        self.passed_over.retain(Process::is_alive);
        for pid in masters {
            if !self.is_known(pid)
                && let Err(error) = self.follow_master(pid)
            {
                self.pass_over(&[pid], &error);
            }
        }
        Ok(())
    }

    /// Says that these can't be traced, and remembers it while they live.
    fn pass_over(&mut self, pids: &[u32], error: &anyhow::Error) {
        let processes: Vec<_> = pids.iter().flat_map(|pid| Process::open(*pid)).collect();
        if !processes.is_empty() {
            self.messages.warn(error);
        }
        self.passed_over.extend(processes);
    }

    /// Whether this process is traced, or passed over.
    fn is_known(&self, pid: u32) -> bool {
        let targets = self.traced.iter().flat_map(|t| &t.program.targets);
        let mut known = targets
            .map(|target| &target.process)
            .chain(&self.passed_over);
        known.any(|process| process.pid == pid && process.is_alive())
    }

    /// Traces a new master, unless it has ended again.
    fn follow_master(&mut self, pid: u32) -> Result<Binary> {
        let Ok(process) = Process::open(pid) else {
            return Ok(Binary::Known);
        };
        let target = Target::of(process)?;
        let inode = target.inode;
        let same = self
            .traced
            .iter_mut()
            .find(|traced| traced.program.inode() == inode);
        if let Some(Traced { program, probe }) = same {
            /* Its probes are there, and its workers were followed since it was executed. */
            let workers = probe.follow(&target.process)?;
            self.messages
                .started(program.build.version, target.process.pid, workers);
            program.targets.retain(|target| target.process.is_alive());
            program.targets.push(target);
            return Ok(Binary::Known);
        }
        let program = Program::read(vec![target], &self.cli.layout)?;
        self.attach(program, &preflight::check(self.cli.sockets)?)?;
        give_back_memory();
        self.activate(self.traced.len() - 1)?;
        Ok(Binary::New)
    }

    /// What is new among the losses goes into the stream.
    fn tell_losses(&mut self) {
        let counts = self.counts();
        if self.is_over {
            return;
        }
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
        let mut programs = BTreeMap::new();
        for traced in &self.traced {
            traced.probe.runs(&mut programs);
        }
        match Cost::now(programs) {
            Ok(cost) => self.messages.cost(&cost, self.counts().waiting_max),
            Err(error) => self.messages.warn(&error),
        }
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
            /* With nothing to write nothing is told of the output. */
            None => self.is_failing &= flushed.written == 0,
        }
    }

    /// Detaches, takes what is left, and says how it ended.
    fn finish(mut self) -> Result<()> {
        for traced in &mut self.traced {
            traced.probe.detach();
        }
        self.collector.finish();
        let batches = self.collector.batches.clone();
        while let Ok(batch) = batches.recv() {
            self.batch(&batch, batches.is_empty())?;
        }
        drop(batches);
        let held: Vec<_> = self
            .traced
            .iter()
            .flat_map(|t| t.probe.take_held())
            .collect();
        if self.cli.min_duration.is_some_and(|least| !least.is_zero()) {
            self.filtered += held.len() as u64;
        } else {
            self.batch(&held.concat(), true)?;
        }
        self.flush();
        let result = self.collector.join();
        self.tell_losses();
        if self.meter.is_some() {
            self.tell_cost();
        }
        let counts = self.counts();
        let filtered = self.filtered + counts.filtered;
        self.messages.finished(self.written, filtered, &counts);
        result
    }

    /// All counters, BPF's and ours.
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for traced in &self.traced {
            traced.probe.count(&mut counts);
        }
        counts.add_bad_records(self.bad_records);
        counts.add_unwritten(self.unwritten);
        counts
    }
}
