// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record thread: it decodes and filters the records that the ring readers send, and passes
//! each request to the consumers. When a consumer blocks, this thread blocks, then the readers, and
//! then the ring buffers fill: BPF counts the records that do not fit.

use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::never;
use crossbeam_channel::select;
use crossbeam_channel::tick;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Container;
use ngx_bpf_record::Request;
use rustix::thread::CapabilitySet;

use crate::bpf::types;
use crate::bpf::types::record_kind;
use crate::decode::blocked;
use crate::decode::clock::Clock;
use crate::decode::connection::ConnectionEvent;
use crate::decode::place;
use crate::decode::place::Notice;
use crate::decode::request;
use crate::decode::wire;
use crate::decode::wire::RequestEvent;
use crate::follow::containers::ENDED_MAX;
use crate::host::privileges;
use crate::host::stderr::Messages;
use crate::pipeline::asked::AskedNames;
use crate::pipeline::containers::ContainerKeys;
use crate::pipeline::filter::TextFilter;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::ledger::add;
use crate::pipeline::ledger::is_first;
use crate::pipeline::places::Places;
use crate::pipeline::places::WORKERS_MAX;
use crate::pipeline::stacks::NamedRecord;
use crate::pipeline::stacks::StackThread;

/// The interval at which the clocks are compared and `Consumer::tick()` is called.
const TICK: Duration = Duration::from_millis(100);

/// A consumer of requests. All consumers are called by one thread, one after the other.
pub trait Consumer: Send {
    /// Takes one request, in the order in which they were recorded. Later consumers see the request
    /// as this one has changed it.
    fn request(&mut self, request: &mut Request<'_>) -> Result<()>;

    /// Takes a worker that was blocked, likewise.
    fn blocked(&mut self, _: &mut Blocked<'_>) -> Result<()> {
        Ok(())
    }

    /// Takes one connection that ended without a request, likewise.
    fn connection(&mut self, _: &mut Connection<'_>) -> Result<()> {
        Ok(())
    }

    /// Called when no further record waits to be handled.
    fn flush(&mut self) {}

    /// Called ten times a second.
    fn tick(&mut self) {}

    /// Called once, after the last record.
    fn finish(&mut self) {}
}

/// The state of the record thread.
pub struct RecordThread {
    /// The filters on texts.
    pub filter: TextFilter,
    /// The containers of the processes that records come from.
    pub containers: ContainerKeys,
    /// The variables and headers that options ask for.
    pub asked: AskedNames,
    /// The names in the configuration of the workers that records come from.
    pub places: Places,
    /// The thread that names the functions on the stacks of blocked workers. `None` when they are not
    /// asked for.
    pub stacks: Option<StackThread>,
    /// The consumers, in the order of `Outputs::open()`.
    pub consumers: Vec<Box<dyn Consumer>>,
    /// The number of requests until the end (`--count`). `None`: no limit.
    pub left: Option<u64>,
    /// The counts of requests.
    pub ledger: Arc<Ledger>,
    /// The printer of warnings.
    pub messages: Messages,
    /// Dropped when no more records are needed.
    pub wants_more: Option<Sender<()>>,
    /// The conversion from the kernel's clock to the wall clock, which is updated at every tick.
    pub clock: Clock,
}

impl RecordThread {
    /// Starts the thread, with only these capabilities.
    pub fn start(
        self,
        batches: Receiver<Vec<u8>>,
        kept: CapabilitySet,
    ) -> Result<JoinHandle<Result<()>>> {
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || {
                /* If it fails, the main thread reports why. */
                let _ = privileges::keep_only(kept);
                self.handle_all(&batches)
            })
            .context("failed to start a thread")
    }

    /// Handles all batches until the channel is closed.
    ///
    /// Fails when a batch is corrupt, or a request can't be encoded.
    pub fn handle_all(mut self, batches: &Receiver<Vec<u8>>) -> Result<()> {
        let received = self.receive_all(batches);
        let finished = self.finish_blocked();
        self.consumers.iter_mut().for_each(|c| c.finish());
        received.and(finished)
    }

    /// Handles batches until the channel ends.
    fn receive_all(&mut self, batches: &Receiver<Vec<u8>>) -> Result<()> {
        let ticks = tick(TICK);
        let mut named = self.stacks.as_ref().map_or_else(never, StackThread::named);
        loop {
            let mut is_over = false;
            select! {
                recv(batches) -> batch => match batch {
                    Ok(batch) => self.batch(&batch, batches.is_empty())?,
                    Err(_) => break,
                },
                recv(named) -> record => match record {
                    Ok(record) => self.named(record)?,
                    Err(_) => is_over = true,
                },
                recv(ticks) -> _ => self.tick(),
            }
            if is_over {
                named = never();
            }
            if self.ledger.has_ended() {
                self.wants_more = None;
            }
        }
        Ok(())
    }

    /// Handles the records of one batch. `is_last` says that no other batch waits.
    fn batch(&mut self, mut bytes: &[u8], is_last: bool) -> Result<()> {
        while !bytes.is_empty() {
            let (record, rest) = wire::split(bytes).context("corrupt record in the ring buffer")?;
            bytes = rest;
            match place::decode(record) {
                Ok(Some(Notice::Place(place))) => {
                    if let Some(pid) = self.places.announced(&place) {
                        self.forgotten(pid);
                    }
                }
                Ok(Some(Notice::WorkerEnded(pid))) => self.places.ended(pid),
                Ok(Some(Notice::Blocked(record))) => self.blocked(record)?,
                Ok(Some(Notice::Connection(event))) => self.connection(&event)?,
                Ok(None) => match wire::decode(record) {
                    Ok(event) => self.event(&event)?,
                    Err(error) => self.bad_record(error),
                },
                Err(error) => self.bad_notice(record, error),
            }
        }
        if is_last {
            self.consumers.iter_mut().for_each(|c| c.flush());
        }
        Ok(())
    }

    /// Handles the record of a request.
    fn event(&mut self, event: &RequestEvent<'_>) -> Result<()> {
        if self.ledger.has_ended() {
            add(&self.ledger.requests.late, 1);
            return Ok(());
        }
        let Some(mut request) = self.filtered(event) else {
            add(&self.ledger.filtered, 1);
            return Ok(());
        };
        let container = self.containers.keys(event.record.container);
        request.container = container.unwrap_or_else(|| nameless(&self.ledger, self.messages));
        self.asked.add(&mut request, &event.texts);
        let record = &event.record;
        self.places
            .add(&mut request, record.location, record.upstream);
        add(&self.ledger.taken, 1);
        for consumer in &mut self.consumers {
            consumer.request(&mut request)?;
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                self.ledger.end_here();
                /* At once: the next write may block for long. */
                self.wants_more = None;
            }
        }
        Ok(())
    }

    /// Takes the record of a worker that was blocked. No filter is for it.
    fn blocked(&mut self, record: Box<types::blocked_record>) -> Result<()> {
        let stacks = self.stacks.as_mut();
        match stacks.and_then(|stacks| stacks.name(record)) {
            Some(unnamed) => self.consume_blocked(unnamed),
            None => Ok(()),
        }
    }

    /// Handles such a record when its stacks have names.
    fn named(&mut self, named: NamedRecord) -> Result<()> {
        if let Some(stacks) = &mut self.stacks {
            stacks.note_done();
        }
        self.consume_blocked(named)
    }

    /// Handles those that the thread of the stacks still has.
    fn finish_blocked(&mut self) -> Result<()> {
        if self.ledger.has_ended() {
            return Ok(());
        }
        let rest = self.stacks.as_mut().map(StackThread::rest);
        let mut rest = rest.into_iter().flatten();
        rest.try_for_each(|named| self.consume_blocked(named))
    }

    /// Passes a worker that was blocked to the consumers.
    fn consume_blocked(&mut self, named: NamedRecord) -> Result<()> {
        if self.ledger.has_ended() {
            add(&self.ledger.blocked.late, 1);
            return Ok(());
        }
        let mut blocked = blocked::blocked(&named.record, self.clock);
        let container = self.containers.keys(named.record.container);
        blocked.container = container.unwrap_or_else(|| nameless(&self.ledger, self.messages));
        (blocked.kernel_stack, blocked.user_stack) = (named.kernel, named.user);
        for consumer in &mut self.consumers {
            consumer.blocked(&mut blocked)?;
        }
        Ok(())
    }

    /// Handles the record of a connection. The filters are about requests.
    fn connection(&mut self, event: &ConnectionEvent) -> Result<()> {
        if self.ledger.has_ended() {
            add(&self.ledger.connections.late, 1);
            return Ok(());
        }
        let mut connection = event.connection(self.clock);
        let container = self.containers.keys(event.0.container);
        connection.container = container.unwrap_or_else(|| nameless(&self.ledger, self.messages));
        for consumer in &mut self.consumers {
            consumer.connection(&mut connection)?;
        }
        Ok(())
    }

    /// Returns the request that a record reports. `None` when a filter leaves it out.
    fn filtered<'a>(&self, event: &RequestEvent<'a>) -> Option<Request<'a>> {
        if !self.filter.lets_texts_through(&event.texts) || !self.asked.lets_through(&event.texts) {
            return None;
        }
        let request = request::request(event, self.clock);
        self.filter.lets_through(&request).then_some(request)
    }

    /// Counts a record that can't be decoded. Only the first one is reported now, since there may
    /// be as many as there are requests.
    fn bad_record(&self, error: anyhow::Error) {
        if is_first(&self.ledger.bad_records) {
            let what = "failed to decode a record; others like it are only counted";
            self.messages.warn(&error.context(what));
        }
    }

    /// Counts a record of another kind that can't be decoded. No request is lost. Only the first one is reported now.
    fn bad_notice(&self, record: &[u8], error: anyhow::Error) {
        match wire::kind(record) {
            Ok(record_kind::RECORD_CONNECTION) => add(&self.ledger.connections.unwritten, 1),
            Ok(record_kind::RECORD_BLOCKED) => add(&self.ledger.blocked.unwritten, 1),
            _ => {}
        }
        if is_first(&self.ledger.bad_notices) {
            let what = "failed to decode a record that is not of a request; others like it are only counted";
            self.messages.warn(&error.context(what));
        }
    }

    /// Counts a worker whose places were forgotten. Only the first one is reported now.
    fn forgotten(&self, pid: u32) {
        if is_first(&self.ledger.forgotten_workers) {
            self.messages.warn(&anyhow!(
                "the places of worker {pid} are forgotten, since {WORKERS_MAX} others were seen later: \
                 requests of it lack their location and upstream_name until nginx is reloaded; others \
                 like it are only counted"
            ));
        }
    }

    /// Does the work that does not depend on records, ten times a second.
    fn tick(&mut self) {
        self.clock = Clock::now();
        self.consumers.iter_mut().for_each(|c| c.tick());
    }
}

/// Counts a record whose container is no longer known, and returns no keys. Only the first one is reported now.
fn nameless<'a>(ledger: &Ledger, messages: Messages) -> Container<'a> {
    if is_first(&ledger.nameless) {
        messages.warn(&anyhow!(
            "a record lacks the keys of its container, since {ENDED_MAX} other containers have ended \
             before the output took it; others like it are only counted"
        ));
    }
    Container::default()
}

#[cfg(test)]
mod tests;
