// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tracing: from settings to lines and metrics.
//!
//! Three threads share the work, so that none of them delays another one for longer than its
//! channel takes to fill. The ring reader takes records from the ring buffer. The record thread
//! passes them to the consumers, which write and measure them. The main thread controls which
//! processes are traced: it attaches to new binaries, which takes 0.3 s each, and updates the tool's
//! own metrics. Two threads read what other users can make hang: `lookout` reads processes and their
//! files, and `counters` nginx's own counters. `otlp` sends to a receiver, which others can make slow.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use anyhow::anyhow;
use crossbeam_channel::Receiver;
use crossbeam_channel::at;
use crossbeam_channel::bounded;
use crossbeam_channel::never;
use crossbeam_channel::select;
use crossbeam_channel::tick;

use crate::attach::Tracer;
use crate::decode::clock::Clock;
use crate::decode::held;
use crate::decode::ring::RingReader;
use crate::follow::Follower;
use crate::follow::containers::ContainerNumbers;
use crate::follow::description;
use crate::follow::inflight::InflightTo;
use crate::follow::selection::Selection;
use crate::follow::settings::FileReading;
use crate::follow::settings::FollowSettings;
use crate::follow::settings::ReadingSettings;
use crate::host::descriptors;
use crate::host::privileges;
use crate::host::signals::Signals;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;
use crate::host::terminal;
use crate::host::usage;
use crate::host::usage::Usage;
use crate::metrics;
use crate::metrics::MetricsSettings;
use crate::metrics::own::OwnMetrics;
use crate::pipeline::abandoned::AbandonedRequests;
use crate::pipeline::asked::AskedNames;
use crate::pipeline::containers::ContainerKeys;
use crate::pipeline::counters::CounterExport;
use crate::pipeline::delivery::DeliverySettings;
use crate::pipeline::fence::Rights;
use crate::pipeline::filter::TextFilter;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::listeners::ListenerExport;
use crate::pipeline::outputs::Outputs;
use crate::pipeline::overhead::Overhead;
use crate::pipeline::overhead::OverheadMeter;
use crate::pipeline::overhead::ReportTimes;
use crate::pipeline::places::Places;
use crate::pipeline::records::RecordThread;
use crate::pipeline::sink::Sink;
use crate::pipeline::stacks::StackThread;

mod abandoned;
mod asked;
mod containers;
mod counters;
pub mod delivery;
mod fence;
pub mod filter;
mod ledger;
mod lines;
mod listeners;
mod messages;
mod outcome;
mod outputs;
pub mod overhead;
mod places;
mod records;
pub mod sink;
mod stacks;
pub mod view;

/// The interval at which the control checks the traced processes and the counters.
const TICK: Duration = Duration::from_millis(100);

/// What is traced when tracing has begun.
pub struct Begun {
    /// A description of it.
    pub name: String,
    /// The pids of its masters, and of workers that were asked for.
    pub pids: Vec<u32>,
    /// What says that the end is asked for.
    pub signals: Signals,
}

impl Begun {
    /// Describes what a follower traces.
    fn of(follower: &Follower, signals: Signals) -> Self {
        let processes = follower.programs().flat_map(|program| &program.processes);
        Self {
            name: description::of(follower.programs()),
            pids: processes.map(|process| process.pid).collect(),
            signals,
        }
    }
}

/// Takes what is traced, once.
pub type Started = Box<dyn FnOnce(Begun) -> Result<()> + Send>;

/// The settings of tracing and of the output.
pub struct TraceSettings {
    /// The choice of nginx processes, and the filters that run in BPF.
    pub follow: FollowSettings,
    /// The choice of containers, and the files for layouts.
    pub reading: ReadingSettings,
    /// The filters on texts.
    pub filter: TextFilter,
    /// The values that headers must have, by their names.
    pub headers: Vec<(String, String)>,
    /// What takes the records. `None`: only the receiver does.
    pub sink: Option<Sink>,
    /// The receiver of OTLP that records are sent to.
    pub delivery: Option<DeliverySettings>,
    /// The time after which tracing ends.
    pub duration: Option<Duration>,
    /// The number of requests after which tracing ends; at least 1.
    pub count: Option<u64>,
    /// The times at which the overhead is reported. `None` when it is not measured.
    pub overhead: Option<ReportTimes>,
    /// The user to become. `None`: the process keeps its user.
    pub user: Option<String>,
    /// The settings of the metrics. `None` when they are not served.
    pub metrics: Option<MetricsSettings>,
    /// Gets what is traced, when tracing has begun.
    pub started: Option<Started>,
    /// Takes the requests in flight, when they are asked for. `None`: they are printed.
    pub inflight: Option<InflightTo>,
    pub verbosity: Verbosity,
    /// Hints about the settings, printed when tracing has begun.
    pub hints: Vec<String>,
}

/// Traces until the end is asked for, or no process is left to trace. Returns false when the output
/// was still failing at the end, which was reported.
pub fn trace(settings: TraceSettings) -> Result<bool> {
    usage::limit_free_memory();
    let messages = Messages::new(settings.verbosity);
    fence::become_user(settings.user.as_deref())?;
    let ledger = Arc::new(Ledger::default());
    let (mut signals, stopped) = take_over_signals(&ledger, messages)?;
    let kernel = settings.follow.check_kernel()?;
    descriptors::raise_limit();
    let redaction = settings.follow.redaction.clone();
    let outputs = Outputs::new(settings.sink, settings.delivery, redaction);
    let rights = Rights::new(&kernel, outputs.has_file(), outputs.has_receiver())?;
    let tracer = Tracer::start(kernel, &settings.follow.filter, &settings.follow.extras)?;
    ledger.count_from(tracer.counters()?);
    let reading = file_reading(settings.reading, &tracer, &rights)?;
    let selection = Selection::read(&settings.follow, &reading, messages, &signals)?;
    let (reader, batches) = RingReader::start(tracer.ring_buffer()?, privileges::drop_all)?;
    let containers = ContainerNumbers::default();
    let keys = ContainerKeys::new(containers.numbered());
    let asked = AskedNames::new(&settings.follow.extras, &settings.headers);
    let served = metrics::serve(settings.metrics)?;
    let (consumers, state) = outputs.open(served.requests, &signals, &ledger, messages)?;
    let stacks = (settings.follow.extras.blocked).map(|_| StackThread::start(rights.reading));
    let mut control = Control {
        abandoned: AbandonedRequests::new(settings.follow.filter),
        ended_processes: 0,
        follower: Follower::new(settings.follow, tracer, reading, containers, messages)
            .with_inflight(settings.inflight),
        reader,
        ledger: Arc::clone(&ledger),
        own_metrics: served.own,
        counters: served.nginx.map(CounterExport::new),
        listeners: served.listeners.map(ListenerExport::new),
        meter: settings.overhead.map(OverheadMeter::start).transpose()?,
        messages,
    };
    let (wants_more, ended) = bounded(0);
    let records = RecordThread {
        filter: settings.filter,
        containers: keys,
        asked,
        places: Places::default(),
        stacks: stacks.transpose()?,
        consumers,
        left: settings.count,
        ledger,
        messages,
        wants_more: Some(wants_more),
        clock: Clock::now(),
    }
    .start(batches, rights.writing)?;
    rights.close(messages);
    control.follower.start(selection)?;
    sink::print_hints(&settings.hints, state, messages);
    signals.start_clock(settings.duration);
    if let Some(started) = settings.started {
        started(Begun::of(&control.follower, signals.clone()))?;
    }
    control.run_until_end(&signals, &stopped, &ended);
    control.finish(records)
}

/// Returns how processes and their files are read.
fn file_reading(
    settings: ReadingSettings,
    tracer: &Tracer,
    rights: &Rights,
) -> Result<FileReading> {
    Ok(FileReading {
        settings,
        mapped: Some(Arc::new(tracer.mapped_files()?)),
        capabilities: Some(rights.reading),
    })
}

/// Installs the handlers of signals. Their thread has no capabilities. The second signal reports the
/// counts so far.
fn take_over_signals(ledger: &Arc<Ledger>, messages: Messages) -> Result<(Signals, Receiver<()>)> {
    let ledger = Arc::clone(ledger);
    privileges::without_capabilities(|| {
        Signals::take_over(move || {
            let written = ledger.requests.written.load(Ordering::Relaxed);
            terminal::restore();
            messages::ended_at_once(messages, written, &ledger.counts_at_once());
        })
    })?
}

/// The state of the main thread, which controls which processes are traced.
struct Control {
    /// The binaries that are traced.
    follower: Follower,
    /// The reader of the ring buffer.
    reader: RingReader,
    /// The counts of requests.
    ledger: Arc<Ledger>,
    /// The tool's own metrics.
    own_metrics: Option<OwnMetrics>,
    /// nginx's own counters as metrics.
    counters: Option<CounterExport>,
    /// The queues of nginx's listening sockets as metrics.
    listeners: Option<ListenerExport>,
    /// The measurement of the overhead.
    meter: Option<OverheadMeter>,
    /// The requests that were in flight in processes that have ended.
    abandoned: AbandonedRequests,
    /// The number of traced processes that have ended and whose entries were removed.
    ended_processes: u64,
    /// The printer of messages.
    messages: Messages,
}

impl Control {
    /// Runs until the end is asked for, no more records are wanted, or nothing is left to trace.
    fn run_until_end(&mut self, signals: &Signals, stopped: &Receiver<()>, ended: &Receiver<()>) {
        let ticks = tick(TICK);
        let deadline = signals.deadline().map_or_else(never, at);
        while !signals.is_end_asked() {
            select! {
                recv(ticks) -> _ => {
                    self.tick();
                    if signals.take_inflight() {
                        self.follower.print_inflight();
                    }
                    /* finish() returns the error of a reader. */
                    if !self.follower.has_work() || self.reader.has_failed() {
                        return;
                    }
                }
                recv(deadline) -> _ => return,
                recv(stopped) -> _ => return,
                recv(ended) -> _ => return,
            }
        }
    }

    /// Does the periodic work, ten times a second.
    fn tick(&mut self) {
        self.follower.follow_processes();
        self.forget_departed();
        if self.meter.as_mut().is_some_and(OverheadMeter::is_due) {
            self.report_overhead();
        }
        self.report_untraced();
        if let Some(counters) = &mut self.counters {
            counters.tick(&self.follower, self.messages);
        }
        if let Some(listeners) = &mut self.listeners {
            listeners.tick(&self.follower, self.messages);
        }
        let counts = self.ledger.counts();
        if let Some(metrics) = &self.own_metrics {
            let written = self.ledger.requests.written.load(Ordering::Relaxed);
            metrics.update(&counts, written, self.follower.live_binaries());
        }
    }

    /// Removes what BPF has kept of processes that have ended, and reports their requests in flight.
    fn forget_departed(&mut self) {
        self.abandoned.offer(&self.reader);
        let ended = self.ledger.ended_processes();
        if ended == self.ended_processes {
            return;
        }
        match self.follower.forget_departed() {
            Ok(departed) => {
                self.abandoned.take(departed, &self.ledger);
                self.abandoned.offer(&self.reader);
                self.ended_processes = ended;
            }
            Err(error) => self.messages.warn(&error),
        }
    }

    /// Reports new processes that could not be traced, each once.
    fn report_untraced(&mut self) {
        let untraced = self.follower.untraced_processes();
        let reported = &self.ledger.untraced_processes;
        if untraced > reported.swap(untraced, Ordering::Relaxed) {
            messages::untraced(self.messages, untraced);
        }
    }

    /// Reports the overhead of tracing so far.
    fn report_overhead(&self) {
        match Usage::read() {
            Ok(process) => {
                let overhead = Overhead {
                    programs: self.follower.tracer().program_runs(),
                    process,
                };
                let waiting_max = self.ledger.counts().waiting_max;
                messages::overhead(self.messages, &overhead, waiting_max);
            }
            Err(error) => self.messages.warn(&error),
        }
    }

    /// Detaches, waits until every record is written, and reports the counts. Returns false when
    /// the output was still failing at the end.
    fn finish(mut self, records: JoinHandle<Result<()>>) -> Result<bool> {
        self.follower.detach();
        self.forget_departed();
        let held = self.follower.tracer().take_held().into_iter();
        let held = held.filter_map(held::unfinished_record);
        let last: Vec<_> = self.abandoned.rest().chain(held).collect();
        let read = self.reader.finish(last.concat());
        let handled = records
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the thread of the records panicked")));
        if handled.is_err() {
            self.ledger.lose_the_rest();
        }
        self.report_untraced();
        if self.meter.is_some() {
            self.report_overhead();
        }
        messages::only_counted(self.messages, &self.ledger);
        let counts = self.ledger.counts();
        messages::blocked_lost(self.messages, counts.blocked_lost);
        let is_failing = self.ledger.is_output_failing.load(Ordering::Relaxed);
        if is_failing {
            messages::unwritten(self.messages, self.ledger.unwritten());
        }
        if self.follower.tracer().reports_connections() {
            messages::connections(self.messages, &counts.connections);
        }
        let written = self.ledger.requests.written.load(Ordering::Relaxed);
        messages::finished(self.messages, written, &counts);
        let is_receiver_failing = self.ledger.is_receiver_failing.load(Ordering::Relaxed);
        handled
            .and(read)
            .map(|()| !is_failing && !is_receiver_failing)
    }
}
